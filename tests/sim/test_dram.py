"""Rows of the off-chip memory: engines agree, nothing that should help ever hurts, streams run near peak."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysim import Accelerator, _core, simulate_gemm
from pysim.config import Dram, Memory
from pysim.errors import ConfigError
from pysim.sim import list_timeline, simulate_layer, write_request_trace
from pysim.sim.gemm import core_memory
from pysim.workload import BlockGrid
from tests.sim.drawn import BANDWIDTHS, assert_stepped_is, each_mode, layers, machines, run

examples = settings(max_examples=15, deadline=None)

# DDR3-1600, 11-11-11, a rank of eight x8 chips of 2 Gb, on a clock of 800 MHz: 12.8 GB/s, rows of 8 KiB.
DDR3 = Dram(banks=8, row_bytes=8192, t_cl=11, t_rcd=11, t_rp=11, t_rfc=128, t_refi=6240)
DDR3_BANDWIDTH = 16.0


@st.composite
def drams(draw):
    """Rows from one byte to a few bursts; refreshes from none to nearly always."""
    burst = draw(st.sampled_from([1, 3, 8, 64]))
    times = st.integers(0, 12)
    t_rcd, t_rp, t_rfc = draw(times), draw(times), draw(st.sampled_from([0, 1, 5, 40]))
    refresh = t_rp + t_rfc + t_rcd if t_rfc else 0
    return Dram(
        banks=draw(st.integers(1, 5)),
        row_bytes=burst * draw(st.sampled_from([1, 2, 7, 64])),
        burst_bytes=burst,
        t_cl=draw(times),
        t_rcd=t_rcd,
        t_rp=t_rp,
        t_rfc=t_rfc,
        t_refi=refresh + draw(st.integers(1, 300)),
    )


def cases(dataflow, skip):
    """Layer, machine and result, for machines that can run the layer."""

    @st.composite
    def drawn(draw):
        layer, hw = draw(layers()), draw(machines(dataflow, skip))
        memory = dataclasses.replace(hw.memory, mode="rowbuffer", dram=draw(drams()))
        hw = dataclasses.replace(hw, memory=memory)
        result = run(layer, hw)
        assume(result is not None)
        return layer, hw, result

    return drawn()


@each_mode
@examples
@given(data=st.data())
def test_engines_agree_on_every_figure(dataflow, skip, data):
    layer, hw, expected = data.draw(cases(dataflow, skip))
    assume(expected.cycles < 50_000)
    assert_stepped_is(layer, hw, expected)


@each_mode
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_should_help_never_costs_cycles(dataflow, skip, data):
    """A faster channel, less latency, faster rows, larger buffers; a larger buffer is never refused."""
    layer, hw, result = data.draw(cases(dataflow, skip))
    dram = hw.memory.dram
    faster = [run(layer, hw, bandwidth=bandwidth).cycles for bandwidth in BANDWIDTHS[::2]]
    assert faster == sorted(faster, reverse=True)
    later = [run(layer, hw, latency=latency).cycles for latency in (0, 7)]
    assert later == sorted(later)
    for field in ("t_cl", "t_rcd", "t_rp", "t_rfc"):
        time = getattr(dram, field)
        if time > 1:
            half = dataclasses.replace(dram, **{field: time // 2})
            assert run(layer, hw, dram=half).cycles <= result.cycles
    for field in ("input_bytes", "weight_bytes", "output_bytes"):
        before = result.cycles
        for factor in (1.3, 3, 40):
            grown = run(layer, hw, **{field: int(getattr(hw.memory, field) * factor) + 1})
            assert grown.cycles <= before
            before = grown.cycles


@each_mode
@examples
@given(data=st.data())
def test_rows_only_add_cycles_and_bursts_cover_all_bytes(dataflow, skip, data):
    layer, hw, result = data.draw(cases(dataflow, skip))
    memory = result.memory
    assert result.cycles >= run(layer, hw, mode="bandwidth").cycles
    assert result.cycles == memory.compute_cycles + memory.stall_cycles
    dram = hw.memory.dram
    assert memory.dram_bursts * dram.burst_bytes >= memory.total_bytes
    assert memory.row_misses <= dram.banks
    assert memory.row_misses + memory.row_conflicts <= memory.dram_bursts
    opening = memory.row_misses * dram.t_rcd + memory.row_conflicts * (dram.t_rp + dram.t_rcd)
    assert result.cycles >= opening
    if hw.memory.bandwidth is not None:
        assert result.cycles - opening >= memory.dram_bursts * dram.burst_bytes / hw.memory.bandwidth


@each_mode
@examples
@given(data=st.data())
def test_one_row_that_takes_no_time_is_the_plain_channel(dataflow, skip, data):
    layer, hw, _ = data.draw(cases(dataflow, skip))
    free = Dram(banks=1, row_bytes=2**30, burst_bytes=1, t_cl=0, t_rcd=0, t_rp=0, t_rfc=0, t_refi=1)
    found, plain = run(layer, hw, dram=free), run(layer, hw, mode="bandwidth")
    assert (found.memory.row_misses, found.memory.row_conflicts) == (1, 0)
    assert found.cycles == plain.cycles
    if hw.cores == 1:
        assert found.memory.total_bytes == found.memory.dram_bursts == plain.memory.total_bytes


def memory_of(dram, bandwidth):
    return Memory(
        input_bytes=2**20,
        weight_bytes=2**20,
        output_bytes=2**20,
        bandwidth=bandwidth,
        mode="rowbuffer",
        dram=dram,
    )


def plain_channel(dram, bandwidth, requests):
    """Cycles of each transfer, bursts, misses, conflicts: burst by burst, as the page says."""
    open_rows, cycles, bursts, misses, conflicts = {}, [], 0, 0, 0
    row, moved = None, 0
    for transfer, address, size in requests:
        if transfer == len(cycles):
            cycles.append(0)
            row, moved = None, 0
        for burst in range(address // dram.burst_bytes, (address + size - 1) // dram.burst_bytes + 1):
            bursts += 1
            at = burst * dram.burst_bytes // dram.row_bytes
            if at != row:
                row, moved, bank = at, 0, at % dram.banks
                if bank not in open_rows:
                    misses += 1
                    cycles[-1] += dram.t_rcd
                elif open_rows[bank] != at:
                    conflicts += 1
                    cycles[-1] += dram.t_rp + dram.t_rcd
                open_rows[bank] = at
            before = int(np.ceil(moved / bandwidth))
            moved += dram.burst_bytes
            cycles[-1] += int(np.ceil(moved / bandwidth)) - before
    return cycles, bursts, misses, conflicts


@settings(max_examples=200, deadline=None)
@given(
    dram=drams(),
    bandwidth=st.sampled_from([0.25, 1.0, 1.5, 16.0]),
    parts=st.lists(
        st.tuples(st.booleans(), st.integers(0, 3000), st.integers(1, 400)), min_size=1, max_size=20
    ),
)
def test_the_channel_is_that_of_a_plain_model(dram, bandwidth, parts):
    transfers = np.cumsum([int(i > 0 and new) for i, (new, _, _) in enumerate(parts)])
    requests = [(int(t), address, size) for t, (_, address, size) in zip(transfers, parts, strict=True)]
    found = _core._testing.channel_use(core_memory(memory_of(dram, bandwidth)), requests)
    assert found == plain_channel(dram, bandwidth, requests)


@settings(max_examples=200, deadline=None)
@given(dram=drams(), start=st.integers(0, 2000), busy=st.integers(0, 1000))
def test_refresh_takes_the_first_cycles_of_every_interval_but_the_first(dram, start, busy):
    refresh = dram.t_rp + dram.t_rfc + dram.t_rcd if dram.t_rfc else 0
    now, left = start, busy
    while left:
        left -= not (now >= dram.t_refi and now % dram.t_refi < refresh)
        now += 1
    assert _core._testing.end_of_work(core_memory(memory_of(dram, 1.0)), start, busy) == now


def test_a_stream_of_a_mebibyte_reaches_nine_tenths_of_the_peak_and_single_bursts_less_than_four():
    core = core_memory(memory_of(DDR3, DDR3_BANDWIDTH))
    peak = 2**20 / DDR3_BANDWIDTH

    def share(requests):
        cycles = _core._testing.channel_use(core, requests)[0]
        return peak / _core._testing.end_of_work(core, 0, sum(cycles))

    assert 0.9 < share([(0, 0, 2**20)]) < 1
    anywhere = np.random.default_rng(0).integers(0, 2**24, 2**14) * 64
    assert share([(i, int(address), 64) for i, address in enumerate(anywhere)]) < 0.4


def test_a_layer_that_streams_its_weights_reaches_nine_tenths_of_the_peak():
    """A mebibyte of weights for one position: the channel is never idle once it has begun."""
    memory = dataclasses.replace(memory_of(DDR3, DDR3_BANDWIDTH), index_bits=0)  # Units of whole bursts.
    hw = Accelerator(rows=32, cols=32, memory=memory)
    result = simulate_gemm(np.ones((1024, 1024)), 1, block=(32, 32), accelerator=hw)
    assert 0.9 < result.memory.total_bytes / DDR3_BANDWIDTH / result.cycles < 1


@pytest.mark.parametrize("engine", ["event", "cycle"])
def test_the_example_of_the_machine_page_with_rows_worked_by_hand(engine):
    """The page's example, 2 bytes a cycle, with two banks of rows of 4096 bytes, bursts of 8, t_rcd 3,
    t_rp 2, t_cl 1, refresh of 2 + 4 + 3 = 9 cycles every 40.

    Regions: row pointers at 0 (row 0, bank 0), weights at 4096 (row 1, bank 1), inputs at 8192 (row 2, bank
    0), outputs at 12288 (row 3, bank 1). A burst takes 4 cycles. Channel:
    row pointers: miss 3 + 4, 0-7. Weights of fold 0, 8 bytes: miss 3 + 4, 7-14. Inputs of fold 0, 6 bytes,
    one burst: conflict 5 + 4, 14-23. Weights of fold 1: hit 4, 23-27. Its inputs, bytes 6 to 11, two bursts:
    hit 8, 27-35. Outputs: conflict 5 + 4.
    Array: preload needs weights at 14 + 1: 15 weight stalls. Array cycle 2, the stream, would be cycle 17;
    inputs at 24: 7 input stalls. Fold 1's preload is array cycle 3, cycle 25: weights at 28, 3 stalls. Its
    stream is array cycle 5, cycle 30: inputs at 36, 6 stalls. Array cycle 10 ends at 10 + 31 = 41. Outputs
    are complete then, and the channel starts on them in 41, within the refresh from 40 to 49: they end at
    49 + 9 = 58."""
    w = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    dram = Dram(banks=2, row_bytes=4096, burst_bytes=8, t_cl=1, t_rcd=3, t_rp=2, t_rfc=4, t_refi=40)
    memory = Memory(
        input_bytes=64, weight_bytes=64, output_bytes=64, bandwidth=2.0, mode="rowbuffer", dram=dram
    )
    hw = Accelerator(rows=2, cols=2, dataflow="ws", memory=memory)
    result = simulate_gemm(w, x, block=(2, 2), accelerator=hw, engine=engine)
    found = result.memory
    assert (found.stall_weight_cycles, found.stall_input_cycles, found.stall_output_cycles) == (18, 13, 17)
    assert (result.cycles, found.compute_cycles) == (58, 10)
    assert (found.dram_bursts, found.row_misses, found.row_conflicts) == (7, 2, 2)


def test_the_request_trace_has_the_bursts_that_are_counted(tmp_path):
    layer_mask = np.random.default_rng(0).random((6, 5)) < 0.5
    hw = Accelerator(rows=4, cols=4, skip="gather", cores=2, memory=memory_of(DDR3, 4.0))
    grid = BlockGrid(m=24, k=20, bh=4, bw=4)
    bursts = simulate_layer(grid, layer_mask, 300, hw).memory.dram_bursts
    assert write_request_trace(list_timeline(grid, layer_mask, 300, hw), tmp_path / "trace") == bursts


@pytest.mark.parametrize(
    ("field", "value"),
    [("banks", 0), ("row_bytes", 100), ("burst_bytes", 0), ("t_cl", -1), ("t_refi", 150), ("t_rfc", 2**31)],
)
def test_a_dram_field_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"memory\.dram\.{field}: expected "):
        dataclasses.replace(DDR3, **{field: value})


def test_buffers_too_small_are_named_with_rows_too():
    hw = Accelerator(rows=3, cols=2, memory=dataclasses.replace(memory_of(DDR3, 1.0), weight_bytes=1))
    with pytest.raises(
        ConfigError, match=r"memory weight_bytes: expected at least \d+ for this layer, got 1"
    ):
        simulate_gemm(np.ones((4, 6)), 5, block=(2, 2), accelerator=hw)
