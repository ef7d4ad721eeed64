"""BSR matrices of PyTorch and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, from_scipy_bsr, from_torch_bsr, to_scipy_bsr, to_torch_bsr
from pysim.workload import BlockGrid


@st.composite
def whole_matrices(draw):
    """Matrices that the others can hold: nothing ragged."""
    bh, bw = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    positions = draw(st.integers(1, 3))
    grid = BlockGrid(
        m=bh * draw(st.integers(1, 5)),
        k=positions * bw * draw(st.integers(1, 4)),
        positions=positions,
        bh=bh,
        bw=bw,
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keep = rng.random(grid.shape) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    return BsrMatrix.from_dense(rng.standard_normal((grid.m, grid.k)), grid, keep)


def check_same(found, matrix):
    assert found.grid == matrix.grid
    for name in ("row_ptr", "col_idx", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(matrix, name))


@settings(max_examples=50, deadline=None)
@given(matrix=whole_matrices())
def test_torch_and_back_is_the_same_matrix(matrix):
    tensor = to_torch_bsr(matrix)
    assert tensor.layout == torch.sparse_bsr
    np.testing.assert_array_equal(tensor.to_dense().numpy(), matrix.to_dense())
    check_same(from_torch_bsr(tensor, positions=matrix.grid.positions), matrix)


def test_a_dense_tensor_made_sparse_by_torch_is_read():
    dense = torch.arange(24.0).reshape(4, 6) * (torch.arange(6) < 3)
    tensor = dense.to_sparse_bsr((2, 3))
    np.testing.assert_array_equal(from_torch_bsr(tensor).to_dense(), dense.numpy())


@settings(max_examples=50, deadline=None)
@given(matrix=whole_matrices())
def test_scipy_and_back_is_the_same_matrix(matrix):
    pytest.importorskip("scipy", reason="SciPy is not installed: its conversions are not tested")
    array = to_scipy_bsr(matrix)
    np.testing.assert_array_equal(array.toarray(), matrix.to_dense())
    check_same(from_scipy_bsr(array, positions=matrix.grid.positions), matrix)


def test_blocks_that_scipy_holds_unsorted_or_twice_are_sorted_and_added():
    sparse = pytest.importorskip(
        "scipy.sparse", reason="SciPy is not installed: its conversions are not tested"
    )
    data = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    array = sparse.bsr_array((data, [2, 0, 2], [0, 3]), shape=(2, 6))
    before = array.indices.tolist()
    matrix = from_scipy_bsr(array)
    assert matrix.col_idx.tolist() == [0, 2]
    np.testing.assert_array_equal(matrix.to_dense(), array.toarray())
    assert array.indices.tolist() == before


def test_a_hostile_scipy_array_is_refused():
    sparse = pytest.importorskip(
        "scipy.sparse", reason="SciPy is not installed: its conversions are not tested"
    )
    for name, change in (
        ("indices", [0, 9]),
        ("indices", [-1, 0]),
        ("indptr", [0, 1, 9]),
        ("indptr", [0, 2, 1]),
    ):
        array = sparse.bsr_array((np.ones((2, 2, 2), np.float32), [0, 1], [0, 1, 2]), shape=(4, 4))
        setattr(array, name, np.array(change, np.int32))
        with pytest.raises(ShapeError, match="expected indices inside the matrix"):
            from_scipy_bsr(array)
    with pytest.raises(ShapeError, match="format bsr of float32, got csr"):
        from_scipy_bsr(sparse.csr_array(np.eye(4, dtype=np.float32)))
    with pytest.raises(ShapeError, match="format bsr of float32, got bsr float64"):
        from_scipy_bsr(sparse.bsr_array(np.eye(4)))


def test_ragged_matrices_are_refused_by_both():
    matrix = BsrMatrix.from_dense(np.ones((5, 6)), BlockGrid(m=5, k=6, bh=2, bw=2))
    with pytest.raises(ShapeError, match="expected whole blocks, got 5 x 6 in blocks of 2 x 2"):
        to_torch_bsr(matrix)
    with pytest.raises(ShapeError, match="expected whole blocks"):
        to_scipy_bsr(matrix)


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (torch.ones(4, 4), ShapeError, "layout torch.sparse_bsr, got 2-D, torch.strided"),
        (torch.ones(4, 4).to_sparse_csr(), ShapeError, "got 2-D, torch.sparse_csr"),
        (torch.ones(2, 4, 4).to_sparse_bsr((2, 2)), ShapeError, "got 3-D"),
        (
            torch.ones(4, 4).double().to_sparse_bsr((2, 2)),
            ShapeError,
            "float32 on the CPU, got torch.float64",
        ),
        (torch.ones(4, 6).to_sparse_bsr((2, 3)), ConfigError, "do not straddle 3 kernel positions of 2"),
    ],
)
def test_other_tensors_are_refused(tensor, error, message):
    with pytest.raises(error, match=message):
        from_torch_bsr(tensor, positions=3 if error is ConfigError else 1)


def test_a_hostile_torch_tensor_is_refused():
    for crow, cols in (([0, 1, 2], [0, 9]), ([0, 1, 2], [0, -1]), ([0, 2, 2], [1, 0]), ([1, 1, 2], [0, 1])):
        tensor = torch.sparse_bsr_tensor(crow, cols, torch.ones(2, 2, 2), size=(4, 4), check_invariants=False)
        with pytest.raises(ShapeError, match="BSR"):
            from_torch_bsr(tensor)
