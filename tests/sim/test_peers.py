"""What other simulators of systolic arrays count, where they mean the same: docs/peers.md."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim import _core
from pysim.config import Accelerator, Memory
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

SCALESIM = json.loads((Path(__file__).parent / "vectors" / "scalesim_3_0_0.json").read_text())["records"]
each_record = pytest.mark.parametrize(
    "record", SCALESIM, ids=lambda r: f"{r['net']}-{r['layer']}-{r['dataflow']}-{r['rows']}x{r['cols']}"
)
# Everything fits and nothing is waited for; dense weights travel without indices.
LARGE = Memory(input_bytes=1 << 40, weight_bytes=1 << 40, output_bytes=1 << 40, bandwidth=None, index_bits=0)


def ceil_div(a, b):
    return -(-a // b)


@each_record
def test_buffer_accesses_equal_scalesim_but_for_its_count_of_writes_under_os(record):
    """Under os it adds R + C to the writes of every fold, whatever the fold writes."""
    gemm, rows, cols = record["gemm"], record["rows"], record["cols"]
    hw = Accelerator(rows=rows, cols=cols, dataflow=record["dataflow"], pipelining="serial", memory=LARGE)
    grid = BlockGrid(m=gemm["N"], k=gemm["K"], bh=gemm["N"], bw=gemm["K"])
    result = simulate_layer(grid, np.ones((1, 1), bool), gemm["M"], hw)
    ours, theirs = result.memory, record["sram"]
    assert ours.input_reads == theirs["ifmap_reads"]
    assert ours.weight_reads == theirs["filter_reads"]
    extra = result.folds * (rows + cols) if record["dataflow"] == "os" else 0
    assert ours.output_writes + extra == theirs["ofmap_writes"]


@each_record
def test_sums_of_several_folds_are_read_back_here_and_never_in_scalesim(record):
    """ws, is: it writes every fold's sums; adding them up takes as many reads as writes, less the first."""
    gemm, rows = record["gemm"], record["rows"]
    hw = Accelerator(rows=rows, cols=record["cols"], dataflow=record["dataflow"], memory=LARGE)
    grid = BlockGrid(m=gemm["N"], k=gemm["K"], bh=gemm["N"], bw=gemm["K"])
    memory = simulate_layer(grid, np.ones((1, 1), bool), gemm["M"], hw).memory
    outputs = gemm["M"] * gemm["N"]
    passes = 1 if record["dataflow"] == "os" else ceil_div(gemm["K"], rows)
    assert memory.output_writes == passes * outputs
    assert memory.output_reads == passes * outputs  # passes - 1 to add to, and one to send off chip


@pytest.mark.parametrize(
    "record", [r for r in SCALESIM if r["kind"] == "conv"], ids=lambda r: f"{r['net']}-{r['layer']}"
)
def test_scalesim_rounds_the_output_size_up(record):
    """A convolution that does not end at the border has one output more than torch's in that direction."""
    shape = record["shape"]
    up, down = 1, 1
    for size, kernel in ((shape["ih"], shape["fh"]), (shape["iw"], shape["fw"])):
        up *= ceil_div(size - kernel + shape["stride"], shape["stride"])
        down *= (size - kernel) // shape["stride"] + 1
    assert record["gemm"]["M"] == up >= down
    assert record["gemm"]["K"] == shape["fh"] * shape["fw"] * shape["c"]


def onnxim_fold_starts(folds, depth, side):
    """Stream starts of equal folds in ONNXim's SystolicWS core (src/SystolicWS.cc, src/operations/GemmWS.cc).

    A fold is cut into instructions of at most ``side`` operands. One with a preload starts ``side`` cycles
    after the instruction before it, any other as long after it as that one has operands, at least 4. The
    first waits for its preload: 2 side - 1 cycles. Returns the starts and the cycle in which all has left.
    """
    starts, at, sizes = [], 0, []
    for _ in range(folds):
        for first in range(0, depth, side):
            if not sizes:
                at = 2 * side - 1
            elif first == 0:
                at += side
            else:
                at += max(sizes[-1], 4)
            sizes.append(min(side, depth - first))
            if first == 0:
                starts.append(at)
    return starts, at + 2 * side - 2 + max(sizes[-1], 4)


@given(side=st.integers(4, 12), folds=st.integers(1, 6), depth=st.integers(1, 50))
def test_in_steady_state_onnxim_and_gemmini_start_folds_as_far_apart(side, folds, depth):
    """max(T, R) where T is at most R or a multiple of it; else they round T up to one, by up to R - 1."""
    hw = Accelerator(rows=side, cols=side, dataflow="ws")
    grid = BlockGrid(m=side, k=side * folds, bh=side, bw=side)
    array = _core.ArrayConfig(
        rows=side, cols=side, dataflow="ws", skip="none", pipelining="overlap", mux=2, group_cols=1
    )
    mask = np.ones(grid.shape, bool)
    ours = [
        stream
        for _, stream, _ in _core._testing.schedule_folds(array, (side, grid.k, 1, side, side), mask, depth)
    ]
    theirs, finish = onnxim_fold_starts(folds, depth, side)
    apart = side * ceil_div(depth, side)
    assert set(np.diff(theirs)) <= {apart}
    assert set(np.diff(ours)) <= {max(depth, side)}
    if depth <= side or depth % side == 0:
        assert apart == max(depth, side)
        if depth >= 4:  # shorter ones take them 4 cycles
            # They count the skew of reading the first weights from their buffer; here a preload starts at 0.
            assert finish == simulate_layer(grid, mask, depth, hw).cycles + side - 1
    else:
        assert 0 < apart - max(depth, side) < side
