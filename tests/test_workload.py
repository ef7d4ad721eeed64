"""How weights are cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.workload import BlockGrid, BlockMask


@st.composite
def grids(draw):
    positions = draw(st.integers(1, 5))
    return BlockGrid(
        m=draw(st.integers(1, 20)),
        k=positions * draw(st.integers(1, 12)),
        positions=positions,
        bh=draw(st.integers(1, 7)),
        bw=draw(st.integers(1, 7)),
    )


@given(grid=grids())
def test_blocks_tile_the_matrix_and_never_straddle_kernel_positions(grid):
    rows, cols = grid.row_edges, grid.col_edges
    assert rows[0] == cols[0] == 0
    assert (rows[-1], cols[-1]) == (grid.m, grid.k)
    assert (len(rows) - 1, len(cols) - 1) == grid.shape
    assert np.all((np.diff(rows) >= 1) & (np.diff(rows) <= grid.bh))
    assert np.all((np.diff(cols) >= 1) & (np.diff(cols) <= grid.bw))
    assert np.all(cols[:-1] // grid.channels == (cols[1:] - 1) // grid.channels)
    assert grid.sizes().sum() == grid.m * grid.k


@given(grid=grids(), seed=st.integers(0, 2**32 - 1))
def test_expanding_a_mask_and_finding_nonzero_blocks_are_inverse(grid, seed):
    mask = np.random.default_rng(seed).random(grid.shape) < 0.5
    elements = grid.expand(mask)
    np.testing.assert_array_equal(grid.nonzero_blocks(elements.astype(np.float32)), mask)
    whole = BlockMask(grid=grid, keep=mask[None].copy())
    assert whole.weights_kept == elements.sum()


def test_a_ragged_grid_by_hand():
    """2 kernel positions of 5 channels in blocks of 4: widths 4, 1, 4, 1; 3 features in blocks of 2: 2, 1."""
    grid = BlockGrid(m=3, k=10, positions=2, bh=2, bw=4)
    assert grid.shape == (2, 4)
    assert grid.row_edges.tolist() == [0, 2, 3]
    assert grid.col_edges.tolist() == [0, 4, 5, 9, 10]
    assert grid.sizes().tolist() == [[8, 2, 8, 2], [4, 1, 4, 1]]


@pytest.mark.parametrize("change", [{"m": 0}, {"k": 0}, {"bh": 0}, {"bw": -1}, {"positions": 3}])
def test_an_impossible_grid_is_refused(change):
    with pytest.raises(ConfigError, match="expected"):
        BlockGrid(**{"m": 4, "k": 8, "positions": 1, "bh": 2, "bw": 2, **change})


@pytest.mark.parametrize("keep", [np.ones((1, 2, 3), bool), np.ones((1, 2, 4), int), np.ones((2, 4), bool)])
def test_a_mask_of_another_shape_or_type_is_refused(keep):
    with pytest.raises(ShapeError, match="expected"):
        BlockMask(grid=BlockGrid(m=4, k=8, bh=2, bw=2), keep=keep)
