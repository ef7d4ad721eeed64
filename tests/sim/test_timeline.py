"""The timeline says the same as the figures, and its requests are the bytes of its transfers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysim import Accelerator
from pysim.config import Memory
from pysim.errors import ConfigError
from pysim.sim import (
    STALL_CAUSES,
    TRANSFER_KINDS,
    list_timeline,
    simulate_layer,
    write_request_trace,
)
from pysim.workload import BlockGrid


@st.composite
def cases(draw):
    """(grid, mask, n, accelerator), with buffers that may be too small."""
    grid = BlockGrid(
        m=draw(st.integers(1, 24)),
        k=draw(st.integers(1, 24)),
        bh=draw(st.integers(1, 4)),
        bw=draw(st.integers(1, 4)),
    )
    mask = np.random.default_rng(draw(st.integers(0, 99))).random(grid.shape) < draw(
        st.sampled_from([0.1, 0.5, 1.0])
    )
    size = st.sampled_from([200, 1000, 5000, 2**20])
    dataflow = draw(st.sampled_from(["ws", "os", "is"]))
    hw = Accelerator(
        rows=draw(st.integers(1, 5)),
        cols=draw(st.integers(1, 5)),
        dataflow=dataflow,
        skip=draw(st.sampled_from(["none", "gather"])),
        pipelining=draw(st.sampled_from(["serial", "overlap"])),
        cores=draw(st.sampled_from([1, 1, 3])),
        memory=Memory(
            input_bytes=draw(size),
            weight_bytes=draw(size),
            output_bytes=draw(size),
            bandwidth=draw(st.sampled_from([0.5, 3.0, None])),
            latency=draw(st.sampled_from([0, 9])),
        ),
    )
    return grid, mask, draw(st.sampled_from([1, 7, 20, 300])), hw


def simulated(case):
    try:
        return simulate_layer(*case)
    except ConfigError:
        assume(False)


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_the_timeline_adds_up_to_the_figures(case):
    result, found = simulated(case), list_timeline(*case)
    memory, hw = result.memory, case[3]
    assert (found.cycles, found.cut) == (result.cycles, False)
    by_kind = {
        kind: found.transfer_bytes[found.transfer_kind == i].sum() for i, kind in enumerate(TRANSFER_KINDS)
    }
    assert sum(by_kind.values()) == memory.total_bytes
    assert by_kind["inputs"] == memory.input_bytes
    assert by_kind["outputs"] == memory.output_bytes
    assert by_kind["spill"] == by_kind["reload"] == memory.spill_bytes
    if hw.cores == 1:
        for i, cause in enumerate(STALL_CAUSES):
            stalls = found.stall_cycles[found.stall_cause == i].sum()
            assert stalls == getattr(memory, f"stall_{cause}_cycles")
        assert (np.diff(found.piece_start) > 0).all()
    assert (found.stall_cycles > 0).all()
    assert (found.transfer_start[1:] >= found.transfer_end[:-1]).all()
    if hw.memory.bandwidth is not None:
        lengths = np.ceil(found.transfer_bytes / hw.memory.bandwidth)
        np.testing.assert_array_equal(found.transfer_end - found.transfer_start, lengths)
    for ends in (found.piece_end, found.transfer_end, found.stall_start + found.stall_cycles):
        assert (ends <= result.cycles).all()


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_requests_are_the_bytes_of_their_transfers_and_no_two_things_share_an_address(case):
    simulated(case)
    case = (*case[:3], dataclasses.replace(case[3], cores=1))
    simulated(case)
    found = list_timeline(*case)
    sums = np.bincount(
        found.request_transfer, weights=found.request_bytes, minlength=len(found.transfer_bytes)
    )
    np.testing.assert_array_equal(sums, found.transfer_bytes)
    kinds = found.transfer_kind[found.request_transfer]
    kinds[kinds == TRANSFER_KINDS.index("reload")] = TRANSFER_KINDS.index("spill")
    owner = {}
    for kind, address, size in zip(kinds, found.request_address, found.request_bytes, strict=True):
        for byte in range(address, address + size):
            assert owner.setdefault(byte, kind) == kind
    outputs = sum(1 for kind in owner.values() if kind == TRANSFER_KINDS.index("outputs"))
    assert outputs == case[0].m * case[2]  # Each output has a byte of its own.


GRID = BlockGrid(m=2, k=4, bh=2, bw=2)
MASK = np.ones((1, 2), bool)
HW = Accelerator(
    rows=2,
    cols=2,
    memory=Memory(input_bytes=64, weight_bytes=64, output_bytes=64, bandwidth=2.0),
)


def test_the_example_of_the_machine_page_as_a_timeline():
    """The cycles are worked out by hand in test_memory."""
    found = list_timeline(GRID, MASK, 3, HW)
    assert found.piece_preload.tolist() == [8, 15]
    assert found.piece_start.tolist() == [11, 18]
    assert found.piece_end.tolist() == [17, 21]  # The wait from 12 to 15 falls into the first stream.
    assert found.transfer_start.tolist() == [0, 4, 8, 11, 15, 23]
    assert found.transfer_end.tolist() == [4, 8, 11, 15, 18, 26]
    assert found.stall_start.tolist() == [0, 10, 12, 17, 23]
    assert found.stall_cycles.tolist() == [8, 1, 3, 1, 3]


def test_a_timeline_without_memory_has_the_pieces_alone():
    found = list_timeline(GRID, MASK, 3, dataclasses.replace(HW, memory=None))
    assert found.cycles == 10
    assert found.piece_preload.tolist() == [0, 3]
    assert found.piece_start.tolist() == [2, 5]
    assert not found.transfer_bytes.size
    assert not found.stall_cycles.size


def test_a_timeline_is_bounded_and_says_when_it_is_cut():
    found = list_timeline(GRID, MASK, 3, HW, max_rows=2)
    assert found.cut
    assert len(found.piece_start) == len(found.transfer_bytes) == len(found.stall_cycles) == 2
    assert found.cycles == 26
    with pytest.raises(ConfigError, match="max_rows: expected an integer of at least 1"):
        list_timeline(GRID, MASK, 3, HW, max_rows=0)


def test_the_request_trace_has_a_line_a_burst(tmp_path):
    """Row pointers at 0, weights and indices at 4096, four units of 3 inputs at 8192, outputs at 12288."""
    path = tmp_path / "requests.trace"
    lines = write_request_trace(list_timeline(GRID, MASK, 3, HW), path, burst_bytes=8)
    assert path.read_text().splitlines() == [
        "LD 0x0",
        "LD 0x1000",
        "LD 0x2000",
        "LD 0x1008",
        "LD 0x2000",
        "LD 0x2008",
        "ST 0x3000",
    ]
    assert lines == 7


def test_a_trace_that_would_be_incomplete_is_refused(tmp_path):
    path = tmp_path / "requests.trace"
    with pytest.raises(ConfigError, match="got one that is cut"):
        write_request_trace(list_timeline(GRID, MASK, 3, HW, max_rows=2), path)
    with pytest.raises(ConfigError, match="has none"):
        write_request_trace(list_timeline(GRID, MASK, 3, dataclasses.replace(HW, memory=None)), path)
    with pytest.raises(ConfigError, match="power of two, got 48"):
        write_request_trace(list_timeline(GRID, MASK, 3, HW), path, burst_bytes=48)
    assert not path.exists()
