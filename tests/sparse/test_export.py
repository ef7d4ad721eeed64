"""scipy's and torch's BSR hold the same matrix; what comes back is checked."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import PysimError, ShapeError
from pysim.sparse import BsrMatrix, from_scipy, from_torch, padded_shape, to_scipy, to_torch
from pysim.workload import BlockGrid

scipy_sparse = pytest.importorskip("scipy.sparse")


@st.composite
def matrices(draw):
    positions = draw(st.integers(1, 3))
    grid = BlockGrid(
        m=draw(st.integers(1, 9)),
        k=positions * draw(st.integers(1, 7)),
        positions=positions,
        bh=draw(st.integers(1, 4)),
        bw=draw(st.integers(1, 4)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    return BsrMatrix.from_dense(w, grid, rng.random(grid.shape) < 0.5)


def padded_dense(matrix):
    """The definition, element by element."""
    grid = matrix.grid
    out = np.zeros(padded_shape(grid), dtype=np.float32)
    wide = padded_shape(grid)[1] // grid.positions
    for (row, k), value in np.ndenumerate(matrix.to_dense()):
        position, channel = divmod(k, grid.channels)
        out[row, position * wide + channel] = value
    return out


def same(a, b):
    return a.grid == b.grid and all(
        np.array_equal(getattr(a, f), getattr(b, f)) for f in ("row_ptr", "col_idx", "values")
    )


@given(matrix=matrices())
def test_both_hold_the_padded_matrix_and_come_back_the_same(matrix):
    expected = padded_dense(matrix)
    assert np.array_equal(to_scipy(matrix).toarray(), expected)
    assert same(from_scipy(to_scipy(matrix), matrix.grid), matrix)
    assert np.array_equal(to_torch(matrix).to_dense().numpy(), expected)
    assert same(from_torch(to_torch(matrix), matrix.grid), matrix)


GRID = BlockGrid(m=3, k=4, bh=2, bw=2)


def test_a_weight_outside_the_matrix_and_another_shape_are_refused():
    array = to_scipy(BsrMatrix.from_dense(np.ones((3, 4)), GRID))
    array.data[-1, 1, 0] = 1  # row 3 of a matrix of 3 rows
    with pytest.raises(ShapeError, match="ragged"):
        from_scipy(array, GRID)
    with pytest.raises(ShapeError, match=r"expected shape \(4, 4\)"):
        from_scipy(to_scipy(BsrMatrix.from_dense(np.ones((8, 8)), BlockGrid(m=8, k=8, bh=2, bw=2))), GRID)
    with pytest.raises(ShapeError, match="sparse_bsr"):
        from_torch(torch.ones(4, 4), GRID)
    with pytest.raises(ShapeError, match="bsr_array"):
        from_scipy(scipy_sparse.csr_array(np.ones((4, 4))), GRID)


def test_indices_that_scipy_would_take_but_no_kernel_should_are_refused():
    whole = to_scipy(BsrMatrix.from_dense(np.ones((4, 4)), BlockGrid(m=4, k=4, bh=2, bw=2)))
    for indices in ([1, 0, 0, 1], [0, 0, 0, 1], [0, 7, 0, 1], [0, -1, 0, 1]):
        whole.indices = np.array(indices, dtype=np.int32)
        with pytest.raises(ShapeError):
            from_scipy(whole, BlockGrid(m=4, k=4, bh=2, bw=2))


def test_without_scipy_the_error_says_what_to_do(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    matrix = BsrMatrix.from_dense(np.ones((3, 4)), GRID)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(PysimError, match="scipy is not installed"):
        to_scipy(matrix)
    assert to_torch(matrix).shape == (4, 4)
