"""Reordered block rows: never slower, the same product, and a gain where there is one to be had."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import Accelerator, simulate_gemm
from pysim.config import Memory
from pysim.sim import list_timeline, simulate_layer
from pysim.sim.reorder import candidate_orders
from pysim.workload import BlockGrid

MODES = [
    (dataflow, skip)
    for dataflow in ("ws", "os", "is")
    for skip in Accelerator(rows=1, cols=1, dataflow=dataflow).allowed_skips()
]


@st.composite
def layers(draw):
    """(grid, mask, n): ragged last block rows among them."""
    grid = BlockGrid(
        m=draw(st.integers(1, 30)),
        k=draw(st.integers(1, 24)),
        bh=draw(st.integers(1, 4)),
        bw=draw(st.integers(1, 4)),
    )
    seed, kept = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.1, 0.3, 0.6]))
    return grid, np.random.default_rng(seed).random(grid.shape) < kept, draw(st.integers(1, 12))


@pytest.mark.parametrize(("dataflow", "skip"), MODES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_reordering_never_costs_cycles_and_changes_neither_the_product_nor_the_engines_agreement(
    dataflow, skip, data
):
    grid, mask, n = data.draw(layers())
    memory = Memory(input_bytes=2000, weight_bytes=2000, output_bytes=4000, bandwidth=2.0)
    hw = Accelerator(
        rows=data.draw(st.integers(1, 5)),
        cols=data.draw(st.integers(1, 6)),
        dataflow=dataflow,
        skip=skip,
        cores=data.draw(st.integers(1, 2)),
        memory=data.draw(st.sampled_from([None, memory])),
        reorder=True,
    )
    rng = np.random.default_rng(5)
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    x = rng.integers(-8, 9, (grid.k, n)).astype(np.float32)
    found = simulate_layer(grid, mask, n, hw)
    assert found.cycles <= simulate_layer(grid, mask, n, dataclasses.replace(hw, reorder=False)).cycles
    stepped = simulate_gemm(w, x, block=(grid.bh, grid.bw), accelerator=hw, engine="cycle", mask=mask)
    assert stepped == found
    np.testing.assert_array_equal(stepped.output, (w * grid.expand(mask)) @ x)
    assert list_timeline(grid, mask, n, hw).cycles == found.cycles


@settings(max_examples=200, deadline=None)
@given(layer=layers(), feeder_cols=st.integers(1, 9))
def test_every_order_is_a_permutation_that_leaves_a_shorter_last_row_last(layer, feeder_cols):
    grid, mask, _ = layer
    for order in candidate_orders(grid, mask, feeder_cols):
        assert sorted(order) == list(range(len(mask)))
        if grid.m % grid.bh:
            assert order[-1] == len(mask) - 1


def test_rows_of_two_kinds_in_turn_are_gathered_into_strips_of_one_kind():
    """Even rows keep elements 0 and 1, odd rows 2 and 3; strips of two. In turn every strip needs all four
    elements, 4 strips x 2 folds of 2 rows; sorted each needs two, 4 strips x 1 fold."""
    mask = np.array([[row % 2 == 0, row % 2 == 1] for row in range(8)])
    grid = BlockGrid(m=8, k=4, bh=1, bw=2)
    hw = Accelerator(rows=2, cols=2, dataflow="ws", skip="gather")
    assert simulate_layer(grid, mask, 3, hw).folds == 8
    assert simulate_layer(grid, mask, 3, dataclasses.replace(hw, reorder=True)).folds == 4
