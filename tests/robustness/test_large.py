"""Counts and offsets beyond 31 bits: one such number kept in 32 bits anywhere would be wrong here."""

import resource
import sys
from dataclasses import replace

import numpy as np
import pytest

from pysim.config import Accelerator, Memory
from pysim.sim import simulate_layer
from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.workload import BlockGrid

# (M, K, N): MACs beyond 2**31 alone; each of M K, K N and M N beyond 2**31; each side beyond 2**31.
SHAPES = [
    (4096, 4096, 4096),
    (1 << 16, (1 << 15) + 3, (1 << 16) + 5),
    (1 << 33, 5, 3),
    (3, 1 << 33, 5),
    (5, 3, 1 << 33),
]


def ceil_div(a, b):
    return -(-a // b)


def dense_cycles(hw, m, k, n):
    """The sums of docs/machine.md for equal folds, in Python's integers; (cycles, folds)."""
    r, c = hw.rows, hw.cols
    rows, cols, depth = {"ws": (k, m, n), "os": (n, m, k), "is": (k, n, m)}[hw.dataflow]
    folds = ceil_div(rows, r) * ceil_div(cols, c)
    if hw.pipelining == "serial":
        return folds * (2 * r + c + depth - 2), folds
    return (folds - 1) * max(depth, r) + depth + 2 * r + c - 2, folds


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("pipelining", ["serial", "overlap"])
def test_counts_beyond_31_bits_are_those_of_python(shape, dataflow, pipelining):
    m, k, n = shape
    hw = Accelerator(rows=8192, cols=4096, dataflow=dataflow, pipelining=pipelining)
    grid = BlockGrid(m=m, k=k, bh=m, bw=k)
    result = simulate_layer(grid, np.ones((1, 1), bool), n, hw)
    assert (result.cycles, result.folds) == dense_cycles(hw, m, k, n)
    assert (result.macs, result.kept_macs, result.skipped_macs) == (m * k * n, m * k * n, 0)
    _, folds = dense_cycles(hw, m, k, n)
    depth = {"ws": n, "os": k, "is": m}[dataflow]
    assert result.macs + result.padded_macs == hw.rows * hw.cols * folds * depth


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_half_of_a_layer_beyond_31_bits_is_half_of_its_macs(dataflow):
    m, k, n = 1 << 17, 1 << 16, 1 << 18
    grid = BlockGrid(m=m, k=k, bh=1 << 12, bw=1 << 12)
    mask = np.zeros(grid.shape, bool)
    mask[:, ::2] = True
    hw = Accelerator(rows=4096, cols=4096, dataflow=dataflow, skip="gather")
    result = simulate_layer(grid, mask, n, hw)
    assert (result.macs, result.kept_macs, result.skipped_macs) == (m * k * n // 2,) * 3
    if dataflow != "is":  # whose features are all needed by every second reduction tile
        half = simulate_layer(BlockGrid(m=m, k=k // 2, bh=m, bw=k), np.ones((1, 1), bool), n, hw)
        assert result.cycles == half.cycles


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_bytes_beyond_31_bits_are_counted_in_full(dataflow):
    m, k, n = 3000, 5000, 1 << 20
    grid = BlockGrid(m=m, k=k, bh=m, bw=k)
    whole = Memory(
        input_bytes=1 << 40,
        weight_bytes=1 << 40,
        output_bytes=1 << 40,
        bandwidth=0.25,
        input_bits=32,
        weight_bits=32,
        output_bits=32,
        index_bits=0,
    )
    hw = Accelerator(rows=8192, cols=8192, dataflow=dataflow, memory=whole)
    figures = simulate_layer(grid, np.ones((1, 1), bool), n, hw).memory
    assert figures.input_bytes == 4 * k * n > 2**31
    assert figures.weight_bytes == 4 * m * k
    assert figures.output_bytes == 4 * m * n > 2**31
    assert figures.spill_bytes == figures.reload_bytes == 0
    slow = simulate_layer(grid, np.ones((1, 1), bool), n, hw).cycles
    assert slow >= 4 * (4 * k * n + 4 * m * k + 4 * m * n)
    fast = simulate_layer(grid, np.ones((1, 1), bool), n, replace(hw, memory=None)).cycles
    assert slow > fast


def free_address_space(size):
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit == resource.RLIM_INFINITY or limit > size


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not free_address_space(1 << 34),
    reason="needs 9 GB of addresses; zeros that nobody writes take no memory",
)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_reads_inputs_whose_offset_is_beyond_31_bits(threads):
    """X has 2**31 + 2**16 elements, nearly all of them zeros that are never touched."""
    k, n = 1 << 16, (1 << 15) + 1
    try:
        x = np.zeros((k, n), np.float32)
    except MemoryError:
        pytest.skip("this system does not lend addresses that it has no memory for")
    grid = BlockGrid(m=8, k=k, bh=4, bw=4)
    keep = np.zeros(grid.shape, bool)
    keep[0, 0] = keep[1, -1] = keep[0, -2] = True
    rng = np.random.default_rng(0)
    w = np.zeros((8, k), np.float32)
    w[:] = grid.expand(keep) * rng.integers(-8, 9, (8, k))
    for row in (0, 3, k - 8, k - 5, k - 4, k - 1):
        x[row] = rng.integers(-8, 9, n)
    columns = [*range(4), *range(k - 8, k)]
    y = SpmmPlan(BsrMatrix.from_dense(w, grid, keep), threads=threads)(x)
    np.testing.assert_array_equal(y, w[:, columns] @ x[columns])
