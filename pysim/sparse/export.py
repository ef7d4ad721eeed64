"""Block-sparse matrices to and from scipy and torch, whose blocks are all of one size.

Theirs is the matrix with zeros added: rows to a multiple of the block height, the channels of every kernel
position to a multiple of the block width. ``padded_shape`` says what that comes to; without ragged blocks it
is the matrix's own shape. scipy is needed only for what is named after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from pysim.errors import PysimError, ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.workload import BlockGrid

if TYPE_CHECKING:
    import scipy.sparse


def padded_shape(grid: BlockGrid) -> tuple[int, int]:
    """Rows and columns of the matrix in whole blocks."""
    rows, cols = grid.shape
    return rows * grid.bh, cols * grid.bw


def to_scipy(matrix: BsrMatrix) -> scipy.sparse.bsr_array:
    """As ``scipy.sparse.bsr_array`` of ``padded_shape``.

    Raises:
        PysimError: scipy is not installed.
    """
    parts = (matrix.values.copy(), matrix.col_idx.copy(), matrix.row_ptr.astype(np.int32))
    return _scipy_sparse().bsr_array(parts, shape=padded_shape(matrix.grid))


def from_scipy(array: scipy.sparse.bsr_array, grid: BlockGrid) -> BsrMatrix:
    """The inverse of ``to_scipy``.

    Args:
        array: Of ``padded_shape(grid)``, blocks sorted within a block row and none twice.
        grid: How the matrix is cut.

    Raises:
        PysimError: scipy is not installed.
        ShapeError: The array is not one of that grid, or has a weight where the grid has none.
    """
    if not isinstance(array, _scipy_sparse().bsr_array | _scipy_sparse().bsr_matrix):
        raise ShapeError(f"BSR from scipy: expected bsr_array or bsr_matrix, got {type(array).__name__}")
    return _checked(array.indptr, array.indices, array.data, array.shape, grid)


def to_torch(matrix: BsrMatrix) -> torch.Tensor:
    """As a float32 ``torch.sparse_bsr`` tensor of ``padded_shape``."""
    return torch.sparse_bsr_tensor(
        torch.from_numpy(matrix.row_ptr.copy()),
        torch.from_numpy(matrix.col_idx.astype(np.int64)),
        torch.from_numpy(matrix.values.copy()),
        padded_shape(matrix.grid),
        check_invariants=True,
    )


def from_torch(tensor: torch.Tensor, grid: BlockGrid) -> BsrMatrix:
    """The inverse of ``to_torch``.

    Raises:
        ShapeError: The tensor is not a BSR matrix of that grid, or has a weight where the grid has none.
    """
    if tensor.layout != torch.sparse_bsr:
        raise ShapeError(f"BSR from torch: expected layout torch.sparse_bsr, got {tensor.layout}")
    plain = tensor.detach().cpu()
    return _checked(
        plain.crow_indices().numpy(),
        plain.col_indices().numpy(),
        plain.values().numpy(),
        tuple(plain.shape),
        grid,
    )


def _checked(
    row_ptr: npt.NDArray[Any],
    col_idx: npt.NDArray[Any],
    values: npt.NDArray[Any],
    shape: tuple[int, ...],
    grid: BlockGrid,
) -> BsrMatrix:
    if tuple(shape) != padded_shape(grid) or values.shape[1:] != (grid.bh, grid.bw):
        raise ShapeError(
            f"BSR: expected shape {padded_shape(grid)} in blocks of {grid.bh} x {grid.bw}, "
            f"got {tuple(shape)} in blocks of {values.shape[1:]}"
        )
    if not np.issubdtype(values.dtype, np.floating):
        raise ShapeError(f"BSR: expected real values, got {values.dtype}")
    limit = np.iinfo(np.int32).max
    if len(col_idx) and not (col_idx.min() >= 0 and col_idx.max() <= limit):
        raise ShapeError(f"BSR: expected column indices from 0 to {limit}, got others")
    matrix = BsrMatrix(
        grid=grid,
        row_ptr=row_ptr.astype(np.int64),
        col_idx=col_idx.astype(np.int32),
        values=np.ascontiguousarray(values, dtype=np.float32),
    )
    again = BsrMatrix.from_dense(matrix.to_dense(), grid, _mask(matrix))
    if not np.array_equal(again.values, matrix.values, equal_nan=True):
        raise ShapeError("BSR: expected zeros where a ragged block lies outside the matrix, got other values")
    return matrix


def _mask(matrix: BsrMatrix) -> npt.NDArray[np.bool_]:
    mask = np.zeros(matrix.grid.shape, dtype=np.bool_)
    mask[np.repeat(np.arange(len(mask)), np.diff(matrix.row_ptr)), matrix.col_idx] = True
    return mask


def _scipy_sparse() -> Any:  # noqa: ANN401 (scipy is optional and comes without types)
    try:
        import scipy.sparse
    except ImportError as error:
        raise PysimError("scipy is not installed", hint="pip install scipy, or use to_torch.") from error
    return scipy.sparse
