"""From counts to energy: by hand on one small product, and what must hold on drawn ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.config import load_accelerator
from pysim.report.explain import cycle_shares
from pysim.result import add_results
from pysim.runner.energy import actions, energy_of
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

GEMMINI = replace(load_accelerator("gemmini-16"), skip="gather")


@st.composite
def cases(draw):
    """(accelerator, grid, mask, n)."""
    dataflow = draw(st.sampled_from(["ws", "os", "is"]))
    skips = replace(GEMMINI, dataflow=dataflow).allowed_skips()
    hw = replace(
        GEMMINI,
        dataflow=dataflow,
        skip=draw(st.sampled_from(skips)),
        rows=draw(st.integers(1, 9)),
        cols=draw(st.integers(1, 9)),
        cores=draw(st.integers(1, 3)),
    )
    grid = BlockGrid(m=draw(st.integers(1, 30)), k=draw(st.integers(1, 30)), bh=2, bw=3)
    mask = np.random.default_rng(draw(st.integers(0, 999))).random(grid.shape) < draw(st.floats(0, 1))
    return hw, grid, mask, draw(st.integers(1, 40))


def test_one_weight_stationary_product_by_hand():
    # W is 2 x 4, X is 4 x 3, 2 x 2 PEs: two folds of 3 operands, as in docs/machine.md.
    hw = replace(GEMMINI, rows=2, cols=2)
    grid = BlockGrid(m=2, k=4, bh=2, bw=2)
    counted = actions(simulate_layer(grid, np.ones((1, 2), bool), 3, hw), hw)
    assert counted.macs == {"int8": 24}
    assert counted.gated_slots == 0
    # 24 slots pass 8 bits of operand and 32 of sum; a fold shifts 2 columns x 3 moves and copies 4 twice.
    assert counted.register_bits_written == 24 * (8 + 32) + 2 * 8 * (2 * 3 + 2 * 4)
    assert counted.register_bits_read == counted.register_bits_written + 24 * 8
    # Off chip: 12 inputs, 8 weights, 2 indices and 2 row pointers of 4 bytes; 6 outputs.
    assert (counted.dram_read_bytes, counted.dram_written_bytes) == (12 + 8 + 16, 6)
    sizes = {b.name: (b.read_bytes, b.written_bytes) for b in counted.buffers}
    assert sizes["input"] == (12, 12)
    assert sizes["weight"] == (8, 8)
    # 6 sums are put down by each fold, and read to be added to by the second and to be written out.
    assert sizes["output"] == (4 * 12, 4 * 12)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_energy_adds_up_and_pruning_a_block_never_costs(case):
    hw, grid, mask, n = case
    counts = simulate_layer(grid, mask, n, hw)
    energy = energy_of([counts], [counts], hw)
    assert energy is not None
    assert energy.total == pytest.approx(sum(energy.components.values()))
    assert energy.total == energy.total_dense
    assert min(energy.components.values()) >= 0
    if mask.any() and hw.skip != "mux":
        fewer = mask.copy()
        fewer[tuple(np.argwhere(mask)[0])] = False
        less = energy_of([counts], [simulate_layer(grid, fewer, n, hw)], hw)
        assert less.components["MAC int8"] <= energy.components["MAC int8"]
        for part in ("register read", "register write"):
            assert less.components[part] <= energy.components[part]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_shares_of_cycles_add_up_to_one(case):
    hw, grid, mask, n = case
    counts = simulate_layer(grid, mask, n, hw)
    shares = cycle_shares(counts, hw)
    if not counts.cycles:
        assert shares == {}
        return
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= -1e-12
    assert shares["useful"] + shares["zero weights"] == pytest.approx(counts.utilization)


@settings(max_examples=30, deadline=None)
@given(cases(), cases())
def test_products_one_after_the_other_add_up(first, second):
    hw = first[0]
    one, two = simulate_layer(*first[1:], hw), simulate_layer(*second[1:], hw)
    both = add_results([one, two], hw.rows * hw.cols)
    assert both.cycles == one.cycles + two.cycles
    assert both.memory.total_bytes == one.memory.total_bytes + two.memory.total_bytes
    assert both.macs == one.macs + two.macs


def test_without_a_figure_there_is_no_energy():
    grid = BlockGrid(m=2, k=4, bh=2, bw=2)
    for hw in (
        replace(GEMMINI, technology=None),
        replace(GEMMINI, technology="7nm"),
        replace(GEMMINI, memory=None),
    ):
        counts = simulate_layer(grid, np.ones((1, 2), bool), 3, hw)
        assert energy_of([counts], [counts], hw) is None
