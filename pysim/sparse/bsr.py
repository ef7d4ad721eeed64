"""A block-sparse-row matrix: plain arrays, immutable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from pysim import _core
from pysim.errors import ShapeError
from pysim.workload import BlockGrid, BoolArray, Int64Array

ScalarT = TypeVar("ScalarT", np.float32, np.int8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks(Generic[ScalarT]):
    """What matrices of all weight types share."""

    grid: BlockGrid
    row_ptr: Int64Array
    col_idx: npt.NDArray[np.int32]
    values: npt.NDArray[ScalarT]
    _dtype: ClassVar[type[np.generic]]

    def __post_init__(self) -> None:
        self.grid.check_order("BSR")
        blocks = len(self.col_idx) if isinstance(self.col_idx, np.ndarray) and self.col_idx.ndim else 0
        for name, dtype, shape in (
            ("row_ptr", np.int64, (self.grid.shape[0] + 1,)),
            ("col_idx", np.int32, (blocks,)),
            ("values", self._dtype, (blocks, self.grid.bh, self.grid.bw)),
        ):
            array = getattr(self, name)
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            if got != f"{np.dtype(dtype)} {shape}":
                raise ShapeError(f"BSR {name}: expected {np.dtype(dtype)} {shape}, got {got}")
            # A view: the caller's own array stays writeable.
            view = np.require(array, requirements=("C", "A")).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        try:
            self._check()
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error

    @classmethod
    def from_dense(cls, w: npt.ArrayLike, grid: BlockGrid, mask: BoolArray | None = None) -> Self:
        """The kept blocks of ``w``.

        Args:
            w: (m, k), converted to float32; integers for 8-bit weights.
            grid: How to cut it.
            mask: (block rows, block columns), True where a block is kept; other blocks count as zero.
                Default: a block is kept if any of its weights is not zero.

        Raises:
            ShapeError: ``w`` or ``mask`` is not of the grid's shape, or a weight is out of the type's range.
        """
        array = cls._converted(w)
        if array.shape != (grid.m, grid.k):
            raise ShapeError(f"BSR: expected weights of shape ({grid.m}, {grid.k}), got {array.shape}")
        keep = grid.nonzero_blocks(array) if mask is None else mask
        grid.check_mask(keep)
        rows, cols = np.nonzero(keep)
        values = np.zeros((len(rows), grid.bh, grid.bw), dtype=array.dtype)
        row_edges, col_edges = grid.row_edges, grid.col_edges
        for block, i, j in zip(values, rows, cols, strict=True):
            part = array[row_edges[i] : row_edges[i + 1], col_edges[j] : col_edges[j + 1]]
            block[: part.shape[0], : part.shape[1]] = part
        row_ptr = np.append(0, np.cumsum(np.count_nonzero(keep, axis=1))).astype(np.int64)
        return cls(grid=grid, row_ptr=row_ptr, col_idx=cols.astype(np.int32), values=values)

    @classmethod
    def _converted(cls, w: npt.ArrayLike) -> npt.NDArray[ScalarT]:
        raise NotImplementedError

    def _check(self) -> None:
        raise NotImplementedError

    def to_dense(self) -> npt.NDArray[ScalarT]:
        """W (m, k) with zeros where no block is kept."""
        w = np.zeros((self.grid.m, self.grid.k), dtype=self.values.dtype)
        row_edges, col_edges = self.grid.row_edges, self.grid.col_edges
        rows = np.repeat(np.arange(self.grid.shape[0]), np.diff(self.row_ptr))
        for block, i, j in zip(self.values, rows, self.col_idx, strict=True):
            target = w[row_edges[i] : row_edges[i + 1], col_edges[j] : col_edges[j + 1]]
            target[:] = block[: target.shape[0], : target.shape[1]]
        return w

    @property
    def parts(self) -> _core.BsrParts[ScalarT]:
        """The matrix as the C++ core takes it."""
        grid = self.grid
        return (
            (grid.m, grid.k, grid.positions, grid.bh, grid.bw),
            self.row_ptr,
            self.col_idx,
            self.values,
        )

    @property
    def nnz_blocks(self) -> int:
        return len(self.col_idx)

    @property
    def density(self) -> float:
        """Kept blocks over all blocks, 0 to 1."""
        return self.nnz_blocks / (self.grid.shape[0] * self.grid.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class BsrMatrix(_Blocks[np.float32]):
    """W (m, k) in blocks, kept blocks only.

    Ragged blocks are stored at full size with zeros outside W; those zeros are never multiplied.

    Args:
        grid: How W is cut.
        row_ptr: (block rows + 1,) int64; block row i owns blocks row_ptr[i] to row_ptr[i + 1] - 1.
        col_idx: (nnz_blocks,) int32, block columns, strictly rising within a block row.
        values: (nnz_blocks, bh, bw) float32.

    Raises:
        ShapeError: An array has the wrong type or shape, or an index is out of place.
        ConfigError: Blocks straddle kernel positions.
    """

    _dtype: ClassVar[type[np.generic]] = np.float32

    @classmethod
    def _converted(cls, w: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(w, dtype=np.float32)

    def _check(self) -> None:
        _core.check_bsr(*self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8BsrMatrix(_Blocks[np.int8]):
    """W (m, k) of 8-bit integers in blocks, otherwise as ``BsrMatrix``: values are int8, from -128 to 127."""

    _dtype: ClassVar[type[np.generic]] = np.int8

    @classmethod
    def _converted(cls, w: npt.ArrayLike) -> npt.NDArray[np.int8]:
        array = np.asarray(w)
        if array.dtype.kind in "iu":
            small = array.astype(np.int8)
            if np.array_equal(small, array):
                return small
        raise ShapeError("BSR: expected integers from -128 to 127 as weights, got others")

    def _check(self) -> None:
        _core.check_int8_bsr(*self.parts)
