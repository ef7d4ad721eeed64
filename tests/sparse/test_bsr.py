"""BSR matrices: what goes in comes out, for any cut; and the definition, read off element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.errors import ShapeError
from pysim.sparse import BsrMatrix
from pysim.workload import BlockGrid


@st.composite
def grids(draw):
    positions = draw(st.integers(1, 5))
    return BlockGrid(
        m=draw(st.integers(1, 30)),
        k=positions * draw(st.integers(1, 12)),
        positions=positions,
        bh=draw(st.integers(1, 40)),
        bw=draw(st.integers(1, 15)),
    )


@settings(max_examples=150, deadline=None)
@given(grid=grids(), density=st.sampled_from([0.0, 0.3, 0.7, 1.0]), seed=st.integers(0, 2**32 - 1))
def test_dense_to_blocks_and_back_is_the_masked_matrix(grid, density, seed):
    rng = np.random.default_rng(seed)
    keep = rng.random(grid.shape) < density
    w = rng.standard_normal((grid.m, grid.k)).astype(np.float32)
    matrix = BsrMatrix.from_dense(w, grid, keep)
    np.testing.assert_array_equal(matrix.to_dense(), w * grid.expand(keep))
    assert matrix.nnz_blocks == keep.sum()
    assert matrix.density == keep.sum() / keep.size
    again = BsrMatrix.from_dense(matrix.to_dense(), grid, keep)
    for name in ("row_ptr", "col_idx", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(matrix, name))


@settings(max_examples=100, deadline=None)
@given(grid=grids(), seed=st.integers(0, 2**32 - 1))
def test_every_stored_element_stands_where_the_grid_says(grid, seed):
    """Block b of block row i holds W[row_edges[i] + r, col_edges[col_idx[b]] + c]; the rest is zero."""
    rng = np.random.default_rng(seed)
    w = np.arange(1, grid.m * grid.k + 1, dtype=np.float32).reshape(grid.m, grid.k)
    matrix = BsrMatrix.from_dense(w, grid, rng.random(grid.shape) < 0.5)
    for i in range(grid.shape[0]):
        for b in range(matrix.row_ptr[i], matrix.row_ptr[i + 1]):
            j = matrix.col_idx[b]
            for r in range(grid.bh if grid.bh < 9 else 9):
                for c in range(grid.bw):
                    row, col = grid.row_edges[i] + r, grid.col_edges[j] + c
                    inside = row < grid.row_edges[i + 1] and col < grid.col_edges[j + 1]
                    assert matrix.values[b, r, c] == (w[row, col] if inside else 0)


def test_without_a_mask_blocks_of_zeros_are_left_out():
    w = np.zeros((4, 6), np.float32)
    w[3, 5] = 1
    matrix = BsrMatrix.from_dense(w, BlockGrid(m=4, k=6, bh=2, bw=3))
    assert matrix.row_ptr.tolist() == [0, 0, 1]
    assert matrix.col_idx.tolist() == [1]
    np.testing.assert_array_equal(matrix.values, [[[0, 0, 0], [0, 0, 1]]])


def test_with_a_mask_a_kept_block_of_zeros_is_kept_and_a_pruned_one_counts_as_zero():
    w = np.ones((2, 4), np.float32)
    w[:, :2] = 0
    matrix = BsrMatrix.from_dense(w, BlockGrid(m=2, k=4, bh=2, bw=2), np.array([[True, False]]))
    assert matrix.nnz_blocks == 1
    assert not matrix.to_dense().any()


@pytest.mark.parametrize(
    ("w", "mask", "message"),
    [
        (np.ones((4, 5)), None, r"expected weights of shape \(4, 6\), got \(4, 5\)"),
        (np.ones(24), None, r"expected weights of shape \(4, 6\), got \(24,\)"),
        (np.ones((4, 6)), np.ones((2, 3), bool), r"block mask: expected bool \(2, 2\)"),
        (np.ones((4, 6)), np.ones((2, 2)), r"block mask: expected bool \(2, 2\) .*, got float64"),
    ],
)
def test_weights_or_masks_of_another_shape_are_refused(w, mask, message):
    with pytest.raises(ShapeError, match=message):
        BsrMatrix.from_dense(w, BlockGrid(m=4, k=6, bh=2, bw=3), mask)
