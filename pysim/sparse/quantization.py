"""From float32 to 8 bits: weights by output row, activations as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import Float32Array, check_matrix
from pysim.sparse.bsr import BsrMatrix, Int8BsrMatrix
from pysim.sparse.int8 import InputType

_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How real numbers x are 8-bit ones: q = round(x / scale) + zero_point, kept within the type's range.

    Args:
        dtype: ``uint8`` or ``int8``.
        scale: Above 0.
        zero_point: Within the type's range; it stands for 0 exactly.

    Raises:
        ConfigError: A field is out of range.
    """

    dtype: InputType
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if self.dtype not in _LIMITS:
            raise ConfigError(f"dtype: expected one of {', '.join(_LIMITS)}, got {self.dtype!r}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale: expected a finite number above 0, got {self.scale}")
        low, high = _LIMITS[self.dtype]
        if not low <= self.zero_point <= high:
            raise ConfigError(f"zero_point: expected from {low} to {high}, got {self.zero_point}")

    @classmethod
    def of(cls, sample: npt.ArrayLike, dtype: InputType = "uint8") -> Self:
        """One whose range just holds ``sample`` and zero.

        Raises:
            ConfigError: ``sample`` is empty or not finite, or the type is unknown.
        """
        array = np.asarray(sample, dtype=np.float32)
        if array.size == 0 or not np.isfinite(array).all():
            raise ConfigError(
                "quantization: expected a sample of finite numbers, got an empty or infinite one"
            )
        if dtype not in _LIMITS:
            raise ConfigError(f"dtype: expected one of {', '.join(_LIMITS)}, got {dtype!r}")
        least, most = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
        low, high = _LIMITS[dtype]
        scale = max(float(np.float32((most - least) / (high - low))), _TINY)
        return cls(dtype=dtype, scale=scale, zero_point=int(np.clip(np.rint(low - least / scale), low, high)))

    def quantize(self, x: npt.ArrayLike) -> npt.NDArray[np.generic]:
        """8-bit numbers of x's shape, rounded to nearest even."""
        low, high = _LIMITS[self.dtype]
        scaled = np.rint(np.asarray(x, dtype=np.float32) / np.float32(self.scale))
        q: npt.NDArray[np.generic] = np.clip(scaled + self.zero_point, low, high).astype(self.dtype)
        return q

    def dequantize(self, q: npt.NDArray[np.generic]) -> Float32Array:
        """The real numbers that 8-bit ones stand for."""
        return (q.astype(np.float32) - self.zero_point) * np.float32(self.scale)


def quantize_weights(matrix: BsrMatrix) -> tuple[Int8BsrMatrix, Float32Array]:
    """8-bit weights and the scale of each row: W is about scale[:, None] * the result.

    Symmetric: a row's largest magnitude becomes 127, and 0 stays 0. Rounded to nearest even.

    Returns:
        The matrix, with the same blocks kept, and scales (m,), 1 for a row without weights.

    Raises:
        ShapeError: A weight is not finite.
    """
    check_matrix(matrix, "quantize_weights")
    if not np.isfinite(matrix.values).all():
        raise ShapeError("quantize_weights: expected finite weights, got others")
    grid = matrix.grid
    block_rows = np.repeat(np.arange(grid.shape[0]), np.diff(matrix.row_ptr))
    height = min(grid.bh, grid.m)  # what lies below W is zero
    largest = np.zeros((grid.shape[0], height), np.float32)
    np.maximum.at(largest, block_rows, abs(matrix.values[:, :height]).max(axis=2, initial=0))
    scales = np.where(largest > 0, np.maximum(largest / np.float32(127), np.float32(_TINY)), np.float32(1))
    values = np.zeros(matrix.values.shape, np.int8)
    scaled = matrix.values[:, :height] / scales[block_rows][:, :, None]
    values[:, :height] = np.clip(np.rint(scaled), -127, 127)
    quantized = Int8BsrMatrix(grid=grid, row_ptr=matrix.row_ptr, col_idx=matrix.col_idx, values=values)
    return quantized, scales.reshape(-1)[: grid.m].copy()
