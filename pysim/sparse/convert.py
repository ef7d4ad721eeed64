"""BSR matrices of PyTorch and SciPy, to and from ``BsrMatrix``.

Both know whole blocks only, of one size, without kernel positions: a ragged matrix cannot be expressed. SciPy
is not a dependency; it is imported when asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pysim.errors import ConfigError, ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.workload import BlockGrid


def to_torch_bsr(matrix: BsrMatrix) -> Tensor:
    """A copy as a tensor of layout ``torch.sparse_bsr``, (m, k) float32.

    Raises:
        ShapeError: Blocks are ragged.
    """
    _check_whole(matrix)
    return torch.sparse_bsr_tensor(
        torch.from_numpy(matrix.row_ptr.copy()),
        torch.from_numpy(matrix.col_idx.astype(np.int64)),
        torch.from_numpy(matrix.values.copy()),
        size=(matrix.grid.m, matrix.grid.k),
        check_invariants=True,
    )


def from_torch_bsr(tensor: Tensor, *, positions: int = 1) -> BsrMatrix:
    """A copy of a tensor of layout ``torch.sparse_bsr``.

    Args:
        tensor: (m, k) float32 on the CPU.
        positions: Kernel positions that k is made of.

    Raises:
        ShapeError: The tensor is of another layout, type, device or number of dimensions, or an index is out
            of place.
        ConfigError: Blocks straddle kernel positions.
    """
    if tensor.layout != torch.sparse_bsr or tensor.ndim != 2:
        raise ShapeError(
            f"BSR: expected a 2-D tensor of layout torch.sparse_bsr, got {tensor.ndim}-D, {tensor.layout}"
        )
    values = tensor.values().detach()
    if values.device.type != "cpu" or values.dtype != torch.float32 or values.ndim != 3:
        raise ShapeError(
            f"BSR: expected blocks of float32 on the CPU, got {values.dtype} {tuple(values.shape)} "
            f"on {values.device}"
        )
    return _from_parts(
        tensor.crow_indices().numpy(),
        tensor.col_indices().numpy(),
        values.numpy(),
        (tensor.shape[0], tensor.shape[1]),
        positions,
    )


def to_scipy_bsr(matrix: BsrMatrix) -> Any:  # noqa: ANN401  # scipy has no types here
    """A copy as a ``scipy.sparse.bsr_array``, (m, k) float32.

    Raises:
        ShapeError: Blocks are ragged.
        ConfigError: SciPy is not installed.
    """
    _check_whole(matrix)
    parts = matrix.values.copy(), matrix.col_idx.copy(), matrix.row_ptr.copy()
    return _scipy_sparse().bsr_array(parts, shape=(matrix.grid.m, matrix.grid.k))


def from_scipy_bsr(array: Any, *, positions: int = 1) -> BsrMatrix:  # noqa: ANN401
    """A copy of a ``scipy.sparse.bsr_array`` or ``bsr_matrix``; blocks that occur twice are added.

    Args:
        array: (m, k) float32.
        positions: Kernel positions that k is made of.

    Raises:
        ShapeError: The array is of another format or type, or an index is out of place.
        ConfigError: SciPy is not installed, or blocks straddle kernel positions.
    """
    if not _scipy_sparse().issparse(array) or array.format != "bsr" or array.dtype != np.float32:
        got = f"{array.format} {array.dtype}" if hasattr(array, "format") else type(array).__name__
        raise ShapeError(f"BSR: expected a SciPy array in format bsr of float32, got {got}")
    # Checked before SciPy sorts: its loops trust the indices.
    rows, cols = array.shape[0] // array.blocksize[0], array.shape[1] // array.blocksize[1]
    pointers, indices = array.indptr, array.indices
    if (
        len(pointers) != rows + 1
        or pointers[0] != 0
        or (np.diff(pointers) < 0).any()
        or pointers[-1] != len(indices)
        or len(array.data) != len(indices)
        or (len(indices) and (indices.min() < 0 or indices.max() >= cols))
    ):
        raise ShapeError("BSR: expected indices inside the matrix, got others")
    ordered = array.copy()
    ordered.sum_duplicates()
    return _from_parts(ordered.indptr, ordered.indices, ordered.data, array.shape, positions)


def _from_parts(
    row_ptr: np.ndarray[Any, Any],
    col_idx: np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
    shape: tuple[int, int],
    positions: int,
) -> BsrMatrix:
    bh, bw = values.shape[1:]
    grid = BlockGrid(m=shape[0], k=shape[1], positions=positions, bh=bh, bw=bw)
    if grid.channels % bw:
        raise ConfigError(
            f"BSR: expected blocks that do not straddle {positions} kernel positions of "
            f"{grid.channels} channels, got a width of {bw}"
        )
    if len(col_idx) and (col_idx.min() < 0 or col_idx.max() >= 2**31):
        raise ShapeError("BSR col_idx: expected indices from 0 to 2^31 - 1, got others")
    return BsrMatrix(
        grid=grid,
        row_ptr=row_ptr.astype(np.int64),
        col_idx=col_idx.astype(np.int32),
        values=np.array(values, dtype=np.float32, order="C"),
    )


def _check_whole(matrix: BsrMatrix) -> None:
    grid = matrix.grid
    if grid.m % grid.bh or grid.channels % grid.bw:
        raise ShapeError(
            f"BSR: expected whole blocks, got {grid.m} x {grid.channels} in blocks of {grid.bh} x {grid.bw}",
            hint="Only BsrMatrix holds ragged blocks; convert to_dense() instead.",
        )


def _scipy_sparse() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("scipy.sparse")
    except ImportError as error:
        raise ConfigError("SciPy: expected it to be installed", hint="pip install scipy") from error
