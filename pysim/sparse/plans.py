"""Plans: a matrix packed once for the kernels, then multiplied any number of times.

Arrays may be numpy or torch (on the CPU); the result is of the input's kind. A plan holds its own copy of the
weights: changing them afterwards changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.bsr import BsrMatrix

Float32Array = npt.NDArray[np.float32]
ArrayT = TypeVar("ArrayT", Float32Array, Tensor)


class SpmmPlan:
    """Y (m, n) = W X (k, n) for any n, with W block-sparse.

    Args:
        matrix: W.
        isa: ``scalar``, ``avx2`` or ``avx512``; default: ``PYSIM_ISA`` if set, else the fastest available.
        threads: At most this many; the bits of the result do not depend on it.

    Raises:
        ConfigError: An index of the matrix is out of place, the instruction set is unknown or not available
            here, or threads is out of range.
    """

    def __init__(self, matrix: BsrMatrix, *, isa: str | None = None, threads: int = 1) -> None:
        self._m = matrix.grid.m
        try:
            self._plan = _core.SpmmPlan(*_parts(matrix), isa=isa or "", threads=threads)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        return self._plan.isa

    def __call__(self, x: ArrayT, out: ArrayT | None = None) -> ArrayT:
        """Multiplies.

        Args:
            x: (k, n) float32; rows contiguous, any distance from row to row.
            out: (m, n) float32 to write to, apart from ``x``; made if absent.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
        """
        if x.ndim != 2:
            raise ShapeError(f"spmm input: expected shape (k, n), got {tuple(x.shape)}")
        result = _empty_like(x, (self._m, x.shape[1])) if out is None else out
        _run(self._plan, x, result)
        return result


class ConvPlan:
    """A block-sparse 2-D convolution on NCHW images, without im2col.

    Args:
        matrices: One per group, each (out channels / groups, kh * kw * in channels / groups), the reduction
            ordered (kh, kw, channel) with ``grid.positions = kh * kw``.
        kernel_size: Height and width.
        stride: Vertical, horizontal.
        padding: Zeros on each side, vertical, horizontal.
        dilation: Vertical, horizontal.
        bias: (out channels,) or None.
        isa: As in ``SpmmPlan``.
        threads: As in ``SpmmPlan``.

    Raises:
        ConfigError: As in ``SpmmPlan``, or a size is out of range.
    """

    def __init__(
        self,
        matrices: Sequence[BsrMatrix],
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        bias: npt.ArrayLike | None = None,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        if not matrices:
            raise ConfigError("convolution: expected at least one group, got none")
        self._matrices = tuple(matrices)
        self._channels = sum(matrix.grid.channels for matrix in matrices)
        self._out_channels = sum(matrix.grid.m for matrix in matrices)
        self._kernel, self._stride, self._padding, self._dilation = kernel_size, stride, padding, dilation
        self._bias = None if bias is None else np.asarray(bias, dtype=np.float32).ravel().tolist()
        self._threads = threads
        try:
            self.isa = _core.resolve_isa(isa or "") if isa != "emulated16" else isa
        except ValueError as error:
            raise ConfigError(str(error)) from error
        # The offsets of a plan hold for one image size.
        self._plans: dict[tuple[int, int], tuple[_core.ConvPlan, int, int]] = {}

    def __call__(self, x: ArrayT, out: ArrayT | None = None) -> ArrayT:
        """Convolves.

        Args:
            x: (N, in channels, H, W) float32, contiguous (NCHW).
            out: (N, out channels, out height, out width) float32, contiguous, apart from ``x``; made if
                absent.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
            ConfigError: The image is too small for the kernel.
        """
        sizes = tuple(x.shape)
        if len(sizes) != 4 or sizes[1] != self._channels:
            raise ShapeError(f"convolution input: expected (N, {self._channels}, H, W), got {sizes}")
        plan, out_height, out_width = self._plan_for(sizes[2], sizes[3])
        shape = (sizes[0], self._out_channels, out_height, out_width)
        result = _empty_like(x, shape) if out is None else out
        _run(plan, x, result)
        return result

    def _plan_for(self, height: int, width: int) -> tuple[_core.ConvPlan, int, int]:
        found = self._plans.get((height, width))
        if found is not None:
            return found
        try:
            plan = _core.ConvPlan(
                [_parts(matrix) for matrix in self._matrices],
                image=(self._channels, height, width),
                kernel=self._kernel,
                stride=self._stride,
                padding=self._padding,
                dilation=self._dilation,
                bias=self._bias,
                isa=self.isa,
                threads=self._threads,
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        out_height, out_width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                (height, width), self._kernel, self._stride, self._padding, self._dilation, strict=True
            )
        )
        self._plans[height, width] = plan, out_height, out_width
        return self._plans[height, width]


def spmm(matrix: BsrMatrix, x: ArrayT, *, isa: str | None = None, threads: int = 1) -> ArrayT:
    """W X once. Whoever multiplies by the same W again should keep a ``SpmmPlan``."""
    return SpmmPlan(matrix, isa=isa, threads=threads)(x)


def _parts(matrix: BsrMatrix) -> _core.BsrParts:
    grid = matrix.grid
    return (
        (grid.m, grid.k, grid.positions, grid.bh, grid.bw),
        matrix.row_ptr,
        matrix.col_idx,
        matrix.values,
    )


def _empty_like(x: ArrayT, shape: tuple[int, ...]) -> ArrayT:
    if isinstance(x, Tensor):
        return torch.empty(shape, dtype=torch.float32)
    return np.empty(shape, dtype=np.float32)


def _run(plan: _core.SpmmPlan | _core.ConvPlan, x: Float32Array | Tensor, out: Float32Array | Tensor) -> None:
    try:
        plan.run(_as_numpy(x, "input"), _as_numpy(out, "output"))
    except (ValueError, TypeError) as error:
        raise ShapeError(str(error)) from error


def _as_numpy(array: Float32Array | Tensor, where: str) -> Float32Array:
    """The same memory as a numpy array. Raises ShapeError for another type, dtype or device."""
    if isinstance(array, Tensor):
        if array.device.type != "cpu" or array.layout != torch.strided:
            raise ShapeError(
                f"{where}: expected a dense tensor on the CPU, got {array.layout} on {array.device}"
            )
        array = array.detach().numpy() if array.requires_grad else array.numpy()
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{where}: expected float32, got {got}")
    return array
