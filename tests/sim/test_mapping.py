"""The mapper: other orders and sizes of folds run right, it never loses, and its cost is the simulator's."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysim import Accelerator, _core, simulate_gemm
from pysim.config import Memory
from pysim.errors import ConfigError
from pysim.sim import Mapping, choose_mapping, list_timeline, simulate_layer
from pysim.sim.gemm import core_array, core_conv, core_memory, grid_tuple
from pysim.workload import BlockGrid
from tests.sim.drawn import AMPLE, each_mode, layers, machines

examples = settings(max_examples=25, deadline=None)
FIGURES = ("cycles", "folds", "macs", "skipped_macs", "kept_macs", "padded_macs")
MEMORY_FIGURES = (
    *(f"stall_{cause}_cycles" for cause in ("input", "weight", "output")),
    *(f"{kind}_bytes" for kind in ("input", "weight", "index", "output", "spill", "reload")),
    *(f"{name}_{way}" for name in ("input", "weight", "output") for way in ("reads", "writes")),
    "compute_cycles",
)


def run_event(layer, hw, mapping):
    grid, mask, n, conv, _ = layer
    array = core_array(hw, grid, mapping)
    return _core.simulate_event(
        array, grid_tuple(grid), mask, n, core_memory(hw.memory), core_conv(conv, grid, n)
    )


@each_mode
@settings(max_examples=40, deadline=None)
@given(data=st.data(), piece=st.sampled_from([1, 3, 64, 256, 1000]), swapped=st.booleans())
def test_engines_agree_with_the_loops_swapped_and_other_pieces(dataflow, skip, data, piece, swapped):
    layer, hw = data.draw(layers()), data.draw(machines(dataflow, skip))
    mapping = Mapping(swapped=swapped, piece=piece)
    try:
        expected = run_event(layer, hw, mapping)
    except ValueError as error:
        assert "_bytes: expected at least" in str(error)  # noqa: PT017 (the other outcome is a result)
        assume(False)
    assume(expected.cycles < 50_000)
    grid, mask, n, conv, seed = layer
    rng = np.random.default_rng(seed)
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    x = rng.integers(-8, 9, (grid.k, n)).astype(np.float32)
    array, memory = core_array(hw, grid, mapping), core_memory(hw.memory)
    stepped, output = _core.simulate_cycle(
        array, grid_tuple(grid), mask, w, x, memory, core_conv(conv, grid, n)
    )
    np.testing.assert_array_equal(output, (w * grid.expand(mask)) @ x)
    assert [getattr(stepped, f) for f in FIGURES] == [getattr(expected, f) for f in FIGURES]
    for figure in MEMORY_FIGURES:
        assert getattr(stepped.memory, figure) == getattr(expected.memory, figure), figure
    free = run_event(layer, dataclasses.replace(hw, memory=None), mapping)
    assert free.cycles == run_event(layer, dataclasses.replace(hw, memory=None), Mapping()).cycles


@each_mode
@examples
@given(data=st.data())
def test_the_mapper_never_loses_and_reports_what_the_simulator_says(dataflow, skip, data):
    layer, plain = data.draw(layers()), data.draw(machines(dataflow, skip))
    grid, mask, n, conv, _ = layer
    hw = dataclasses.replace(plain, mapper=True)
    try:
        before = simulate_layer(grid, mask, n, plain, conv=conv)
    except ConfigError:
        assume(False)
    found = simulate_layer(grid, mask, n, hw, conv=conv)
    assert (found.cycles, found.memory.total_bytes) <= (before.cycles, before.memory.total_bytes)
    mapping = choose_mapping(grid, mask, n, hw, conv=conv)
    assert run_event(layer, plain, mapping).cycles == found.cycles
    assert list_timeline(grid, mask, n, hw, conv=conv).cycles == found.cycles
    slower = dataclasses.replace(hw, memory=dataclasses.replace(hw.memory, bandwidth=0.05))
    assert found.cycles <= simulate_layer(grid, mask, n, slower, conv=conv).cycles


def test_positions_outside_fetch_inputs_once_where_they_do_not_fit():
    """ws, 4 x 4 PEs, two strips, X of 8 x 600 bytes: one range of 200 positions fits, all three do not. Strip
    by strip every input is fetched twice, 9600 bytes; range by range once. The 64 bytes of weights fit."""
    memory = Memory(
        input_bytes=2 * 8 * 256, weight_bytes=AMPLE, output_bytes=AMPLE, bandwidth=4.0, index_bits=0
    )
    plain = Accelerator(rows=4, cols=4, memory=memory)
    before = simulate_gemm(np.ones((8, 8)), 600, block=(4, 4), accelerator=plain)
    hw = dataclasses.replace(plain, mapper=True)
    x = np.ones((8, 600), np.float32)
    for engine in ("event", "cycle"):
        found = simulate_gemm(np.ones((8, 8), np.float32), x, block=(4, 4), accelerator=hw, engine=engine)
        assert found.memory.input_bytes == 4800 < before.memory.input_bytes
        assert found.memory.weight_bytes == 64
        assert found.cycles <= before.cycles


def test_a_layer_that_does_not_fit_is_cut_smaller_and_what_never_fits_is_refused():
    """Sums of a range of 256 positions take 1024 bytes a feature; 64 positions take 256."""
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=300, bandwidth=4.0)
    plain = Accelerator(rows=2, cols=1, memory=memory)
    grid, mask = BlockGrid(m=1, k=4, bh=1, bw=1), np.ones((1, 4), bool)
    with pytest.raises(ConfigError, match="output_bytes: expected at least 1024 for this layer, got 300"):
        simulate_layer(grid, mask, 512, plain)
    hw = dataclasses.replace(plain, mapper=True)
    assert simulate_layer(grid, mask, 512, hw).memory.output_bytes == 512
    assert choose_mapping(grid, mask, 512, hw).piece == 64
    tiny = dataclasses.replace(hw, memory=dataclasses.replace(memory, output_bytes=255))
    with pytest.raises(ConfigError, match="output_bytes: expected at least 256 for this layer, got 255"):
        simulate_layer(grid, mask, 512, tiny)


def test_without_memory_there_is_nothing_to_choose():
    grid, mask = BlockGrid(m=8, k=8, bh=2, bw=2), np.ones((4, 4), bool)
    hw = Accelerator(rows=2, cols=2, mapper=True)
    mapping = choose_mapping(grid, mask, 600, hw)
    assert (mapping.order, mapping.swapped, mapping.piece) == (None, False, 256)
    with pytest.raises(ConfigError, match="mapper: expected true or false, got 1"):
        dataclasses.replace(hw, mapper=1)
