"""Plans: a matrix packed once for the kernels, then multiplied any number of times.

Arrays may be numpy or torch (on the CPU); the result is of the input's kind. A plan holds its own copy of the
weights: changing them afterwards changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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

# Image sizes whose offsets a convolution keeps; the oldest goes first.
_MAX_IMAGE_SIZES = 16


class SpmmPlan:
    """Y (m, n) = W X (k, n) + bias + residual, then perhaps ReLU, for any n, with W block-sparse.

    Args:
        matrix: W.
        bias: (m,) or None.
        relu: Whether negative results become zero.
        isa: ``scalar``, ``avx2`` or ``avx512``; default: ``PYSIM_ISA`` if set, else the fastest available.
        threads: At most this many; the bits of the result do not depend on it.

    Raises:
        ConfigError: The bias has another length, the instruction set is unknown or not available here, or
            threads is out of range.
    """

    def __init__(
        self,
        matrix: BsrMatrix,
        *,
        bias: npt.ArrayLike | None = None,
        relu: bool = False,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        _check_matrix(matrix, "spmm")
        self._m = matrix.grid.m
        with _as_config_error("spmm"):
            self._plan = _core.SpmmPlan(
                *matrix.parts,
                bias=_numbers(bias, self._m),
                relu=relu,
                isa=_name(isa),
                threads=_integer(threads, "threads"),
            )

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        return self._plan.isa

    def __call__(self, x: ArrayT, out: ArrayT | None = None, *, residual: ArrayT | None = None) -> ArrayT:
        """Multiplies.

        Args:
            x: (k, n) float32; rows contiguous, any distance from row to row.
            out: (m, n) float32 to write to, apart from the others; made if absent.
            residual: (m, n) float32, added before ReLU.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
        """
        source = _as_numpy(x, "spmm input")
        if source.ndim != 2:
            raise ShapeError(f"spmm input: expected shape (k, n), got {source.shape}")
        result = _empty_like(x, (self._m, source.shape[1])) if out is None else out
        target = _as_numpy(result, "spmm output")
        added = None if residual is None else _as_numpy(residual, "spmm residual")
        try:
            self._plan.run(source, target, added)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
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
        relu: Whether negative results become zero.
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
        relu: bool = False,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        if not matrices:
            raise ConfigError("convolution: expected at least one group, got none")
        for matrix in matrices:
            _check_matrix(matrix, "convolution")
        self._channels = sum(matrix.grid.channels for matrix in matrices)
        with _as_config_error("convolution"):
            self._weights = _core.ConvWeights(
                [matrix.parts for matrix in matrices],
                kernel=_pair(kernel_size, "kernel_size"),
                stride=_pair(stride, "stride"),
                padding=_pair(padding, "padding"),
                dilation=_pair(dilation, "dilation"),
                bias=_numbers(bias, sum(matrix.grid.m for matrix in matrices)),
                relu=relu,
                isa=_name(isa),
                threads=_integer(threads, "threads"),
            )
        # The offsets of a plan hold for one image size; the packed weights are shared.
        self._plans: dict[tuple[int, int], _core.ConvPlan] = {}

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        return self._weights.isa

    def __call__(self, x: ArrayT, out: ArrayT | None = None, *, residual: ArrayT | None = None) -> ArrayT:
        """Convolves.

        Args:
            x: (N, in channels, H, W) float32, contiguous (NCHW).
            out: (N, out channels, out height, out width) float32, contiguous, apart from the others; made if
                absent.
            residual: Of the output's shape, float32, contiguous; added after the bias and before ReLU.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
            ConfigError: The image is too small for the kernel.
        """
        source = _as_numpy(x, "convolution input")
        if source.ndim != 4 or source.shape[1] != self._channels:
            raise ShapeError(f"convolution input: expected (N, {self._channels}, H, W), got {source.shape}")
        plan = self._plan_for(source.shape[2], source.shape[3])
        result = _empty_like(x, tuple(plan.out_shape(source.shape[0]))) if out is None else out
        target = _as_numpy(result, "convolution output")
        added = None if residual is None else _as_numpy(residual, "convolution residual")
        try:
            plan.run(source, target, added)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return result

    def _plan_for(self, height: int, width: int) -> _core.ConvPlan:
        plan = self._plans.get((height, width))
        if plan is None:
            with _as_config_error("convolution"):
                plan = self._weights.plan(height, width)
            if len(self._plans) >= _MAX_IMAGE_SIZES:
                self._plans.pop(next(iter(self._plans)), None)
            self._plans[height, width] = plan
        return plan


def spmm(matrix: BsrMatrix, x: ArrayT, *, isa: str | None = None, threads: int = 1) -> ArrayT:
    """W X once. Whoever multiplies by the same W again should keep a ``SpmmPlan``."""
    return SpmmPlan(matrix, isa=isa, threads=threads)(x)


def _check_matrix(matrix: BsrMatrix, where: str) -> None:
    if not isinstance(matrix, BsrMatrix):
        raise ConfigError(f"{where}: expected BsrMatrix, got {type(matrix).__name__}")


@contextlib.contextmanager
def _as_config_error(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        text = str(error)
        raise ConfigError(text if ": expected" in text else f"{where}: {text}") from error


def _name(isa: str | None) -> str:
    if isa is not None and not isinstance(isa, str):
        raise ConfigError(f"isa: expected a name, got {isa!r}")
    return isa or ""


def _integer(value: int, where: str) -> int:
    """``value``, an int that fits in 32 bits. Raises ConfigError."""
    if not isinstance(value, int) or abs(value) >= 2**31:
        raise ConfigError(f"{where}: expected an integer, got {value!r}")
    return value


def _pair(value: tuple[int, int], where: str) -> tuple[int, int]:
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(isinstance(side, int) and abs(side) < 2**62 for side in value)
    ):
        raise ConfigError(f"{where}: expected two integers, got {value!r}")
    return value[0], value[1]


def _numbers(values: npt.ArrayLike | None, count: int) -> list[float] | None:
    if values is None:
        return None
    try:
        array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"bias: expected {count} numbers, got {values!r}") from error
    numbers: list[float] = array.ravel().tolist()
    return numbers


def _empty_like(x: ArrayT, shape: tuple[int, ...]) -> ArrayT:
    if isinstance(x, Tensor):
        return torch.empty(shape, dtype=torch.float32)
    return np.empty(shape, dtype=np.float32)


def _as_numpy(array: Float32Array | Tensor, where: str) -> Float32Array:
    """The same memory as a numpy array. Raises ShapeError for another type, dtype or device."""
    if isinstance(array, Tensor):
        if array.device.type != "cpu" or array.layout != torch.strided:
            raise ShapeError(
                f"{where}: expected a dense tensor on the CPU, got {array.layout} on {array.device}"
            )
        if array.dtype != torch.float32:
            raise ShapeError(f"{where}: expected float32, got {array.dtype}")
        return array.detach().numpy() if array.requires_grad else array.numpy()
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"{where}: expected a float32 array, got {type(array).__name__}")
    if array.dtype != np.float32:
        raise ShapeError(f"{where}: expected float32, got {array.dtype}")
    return array
