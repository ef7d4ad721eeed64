"""Several arrays on one layer: who gets what, and that more of them never cost cycles."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import Accelerator, simulate_gemm
from pysim.config import Memory
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

MODES = [
    (dataflow, skip)
    for dataflow in ("ws", "os", "is")
    for skip in Accelerator(rows=1, cols=1, dataflow=dataflow).allowed_skips()
]
each_mode = pytest.mark.parametrize(("dataflow", "skip"), MODES)
examples = settings(max_examples=50, deadline=None)


@st.composite
def layers(draw):
    """(grid, mask, n): enough strips and tiles for several cores."""
    grid = BlockGrid(
        m=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 30)),
        bh=draw(st.integers(1, 5)),
        bw=draw(st.integers(1, 5)),
    )
    seed, kept = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.05, 0.3, 0.7, 1.0]))
    return grid, np.random.default_rng(seed).random(grid.shape) < kept, draw(st.integers(1, 30))


@st.composite
def machines(draw, dataflow, skip, cores):
    return Accelerator(
        rows=draw(st.integers(1, 6)),
        cols=draw(st.integers(1, 4)),
        dataflow=dataflow,
        skip=skip,
        pipelining=draw(st.sampled_from(["serial", "overlap"])),
        group_cols=draw(st.none() | st.integers(1, 4)),
        cores=cores,
    )


@each_mode
@examples
@given(data=st.data(), cores=st.integers(2, 6))
def test_stepped_cores_agree_with_the_event_engine_and_compute_the_product(dataflow, skip, data, cores):
    grid, mask, n = data.draw(layers())
    hw = data.draw(machines(dataflow, skip, cores))
    rng = np.random.default_rng(1)
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    x = rng.integers(-8, 9, (grid.k, n)).astype(np.float32)
    stepped = simulate_gemm(w, x, block=(grid.bh, grid.bw), accelerator=hw, engine="cycle", mask=mask)
    assert stepped == simulate_layer(grid, mask, n, hw)
    np.testing.assert_array_equal(stepped.output, (w * grid.expand(mask)) @ x)


@each_mode
@examples
@given(data=st.data(), cores=st.integers(1, 5), bandwidth=st.sampled_from([0.5, 4.0, None]))
def test_both_engines_report_the_same_cycles_for_every_core(dataflow, skip, data, cores, bandwidth):
    grid, mask, n = data.draw(layers())
    memory = Memory(input_bytes=2**12, weight_bytes=2**12, output_bytes=2**12, bandwidth=bandwidth)
    for given_memory in (None, memory):
        hw = dataclasses.replace(data.draw(machines(dataflow, skip, cores)), memory=given_memory)
        w, x = np.ones((grid.m, grid.k), np.float32), np.ones((grid.k, n), np.float32)
        stepped = simulate_gemm(w, x, block=(grid.bh, grid.bw), accelerator=hw, engine="cycle", mask=mask)
        assert stepped.cores == simulate_layer(grid, mask, n, hw).cores


@each_mode
@examples
@given(data=st.data())
def test_more_cores_never_cost_cycles_and_do_the_same_work(dataflow, skip, data):
    grid, mask, n = data.draw(layers())
    hw = data.draw(machines(dataflow, skip, 1))
    ideal = Memory(input_bytes=2**20, weight_bytes=2**20, output_bytes=2**20, bandwidth=1.0, mode="ideal")
    one = simulate_layer(grid, mask, n, hw)
    before = one.cycles
    for cores in range(2, 10):
        several = dataclasses.replace(hw, cores=cores)
        found = simulate_layer(grid, mask, n, several)
        assert found.cycles <= before
        assert (found.macs, found.folds, found.padded_macs) == (one.macs, one.folds, one.padded_macs)
        assert (
            simulate_layer(grid, mask, n, dataclasses.replace(several, memory=ideal)).cycles == found.cycles
        )
        before = found.cycles


@each_mode
@examples
@given(data=st.data(), cores=st.integers(1, 6), bandwidth=st.sampled_from([0.5, 4.0, None]))
def test_the_longest_core_takes_the_layers_cycles_and_one_core_is_the_plain_array(
    dataflow, skip, data, cores, bandwidth
):
    grid, mask, n = data.draw(layers())
    memory = Memory(input_bytes=2**20, weight_bytes=2**20, output_bytes=2**20, bandwidth=bandwidth)
    for given_memory in (None, memory):
        hw = dataclasses.replace(data.draw(machines(dataflow, skip, cores)), memory=given_memory)
        found = simulate_layer(grid, mask, n, hw)
        assert 1 <= len(found.cores) <= cores
        assert max(core.cycles for core in found.cores) == found.cycles
        alone = simulate_layer(grid, mask, n, dataclasses.replace(hw, cores=1))
        assert [core.cycles for core in alone.cores] == [alone.cycles]
        if cores == 1:
            assert found == alone
        elif given_memory is None and dataflow != "is" and hw.pipelining == "serial":
            # Serial folds cost the same wherever they run.
            assert sum(core.compute_cycles for core in found.cores) == alone.cycles


def test_strips_go_to_the_core_with_the_least_to_do_the_longest_first():
    """Strips of one feature keep so many of four elements; os on one PE: a fold takes T, the total T + 1."""
    hw = Accelerator(rows=1, cols=1, dataflow="os", skip="gather", cores=2)

    def cycles(kept, cores=2):
        mask = np.array([[j < count for j in range(4)] for count in kept])
        machine = dataclasses.replace(hw, cores=cores)
        return simulate_layer(BlockGrid(m=len(kept), k=4, bh=1, bw=1), mask, 1, machine).cycles

    assert cycles([3, 3, 2, 2, 2]) == 3 + 2 + 2 + 1
    assert cycles([3, 3, 2, 2, 2], cores=1) == 12 + 1
    assert cycles([1, 1, 2]) == 2 + 1  # The strip of 2 alone; in the order given it would be 1 + 2.
    assert cycles([1, 1, 2], cores=3) == 2 + 1


def test_tiles_of_positions_go_round_the_cores():
    """is, one PE: a fold of one position streams M = 3 features; of five positions one core has three.
    Preload 1, then 3 cycles a fold."""
    hw = Accelerator(rows=1, cols=1, dataflow="is", cores=2)
    assert simulate_gemm(np.ones((3, 1)), 5, block=(1, 1), accelerator=hw).cycles == 1 + 3 * 3


def test_cores_share_the_channel_in_the_order_of_array_cycles():
    """Two features, one a core, one weight each; X is one element of one position, fetched by both.

    ws on one PE, bytes without indices, one byte a cycle: the weights of cores 0 and 1 are needed at array
    cycle 0 and take channel cycles 0 and 1; inputs at array cycle 1, channel cycles 2 and 3. Core 0 preloads
    in cycle 1 and waits from 2 to 3; core 1 preloads in cycle 2 and waits from 3 to 4. Results leave in
    cycles 3 and 4; outputs are written in 4 and 5."""
    memory = Memory(input_bytes=8, weight_bytes=8, output_bytes=8, bandwidth=1.0, index_bits=0)
    hw = Accelerator(rows=1, cols=1, dataflow="ws", cores=2, memory=memory)
    for engine, x in (("event", 1), ("cycle", np.ones((1, 1), np.float32))):
        result = simulate_gemm(np.ones((2, 1), np.float32), x, block=(1, 1), accelerator=hw, engine=engine)
        found = result.memory
        assert (result.cycles, found.compute_cycles, found.input_bytes, found.total_bytes) == (6, 2, 2, 6)
        assert (found.stall_weight_cycles, found.stall_input_cycles, found.stall_output_cycles) == (2, 1, 1)
