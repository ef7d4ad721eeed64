"""Plans: a matrix packed once for the kernels, then multiplied any number of times.

Arrays may be numpy or torch (on the CPU); the result is of the input's kind. A plan holds its own copy of the
weights: changing them afterwards changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy.typing as npt

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import (
    ArrayT,
    as_config_error,
    as_numpy,
    check_matrix,
    empty_like,
    integer,
    isa_name,
    numbers,
    pair,
)
from pysim.sparse.bsr import BsrMatrix


class SpmmPlan:
    """Y (m, n) = W X (k, n) + bias + residual, then perhaps ReLU, for any n, with W block-sparse.

    Args:
        matrix: W.
        bias: (m,) or None.
        relu: Whether negative results become zero.
        trainable: Whether ``weight_gradient`` will be called.
        transposed: Multiply by W^T instead: m and k change places below.
        weight_dtype: How the plan keeps its weights: ``float32``, or ``bfloat16`` for half the memory. Those
            are rounded to nearest even; the result is that of the rounded weights in float32.
        isa: ``scalar``, ``avx2`` or ``avx512``; default: ``PYSIM_ISA`` if set, else the fastest available.
        threads: At most this many; the bits of the result do not depend on it.

    Raises:
        ConfigError: The bias has another length, the weight type or the instruction set is unknown or not
            available here, or threads is out of range.
    """

    def __init__(
        self,
        matrix: BsrMatrix,
        *,
        bias: npt.ArrayLike | None = None,
        relu: bool = False,
        trainable: bool = False,
        transposed: bool = False,
        weight_dtype: str = "float32",
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        check_matrix(matrix, "spmm")
        if trainable and transposed:
            raise ConfigError("spmm: expected at most one of trainable and transposed, got both")
        if weight_dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"weight_dtype: expected float32 or bfloat16, got {weight_dtype!r}")
        self._m = matrix.grid.k if transposed else matrix.grid.m
        self._values_shape = matrix.values.shape if trainable else None
        with as_config_error("spmm"):
            self._plan = _core.SpmmPlan(
                *matrix.parts,
                bias=numbers(bias, self._m),
                relu=relu,
                trainable=trainable,
                transposed=transposed,
                bfloat16=weight_dtype == "bfloat16",
                isa=isa_name(isa),
                threads=integer(threads, "threads"),
            )
        self._run = self._plan.run

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
        try:
            return self._run(x, out, residual)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error

    def weight_gradient(self, dy: ArrayT, x: ArrayT) -> ArrayT:
        """dY X^T at the kept blocks only: the gradient of the stored weights, for dY that of Y before ReLU.

        Args:
            dy: (m, n) float32; rows contiguous.
            x: (k, n) float32; rows contiguous.

        Returns:
            (nnz_blocks, bh, bw), zero where a ragged block leaves W.

        Raises:
            ConfigError: The plan is not trainable.
            ShapeError: As in a call.
        """
        if self._values_shape is None:
            raise ConfigError("spmm: expected a plan made with trainable=True")
        values = empty_like(x, self._values_shape)
        try:
            self._plan.weight_gradient(dy, x, as_numpy(values, "spmm weight gradient"))
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return values


class ConvPlan:
    """A block-sparse 2-D convolution on images, without im2col.

    Images are (N, channels, H, W), contiguous in that order or in torch's channels-last order; a result has
    its input's.

    Args:
        matrices: One per group, each (out channels / groups, kh * kw * in channels / groups), the reduction
            ordered (kh, kw, channel) with ``grid.positions = kh * kw``.
        kernel_size: Height and width.
        stride: Vertical, horizontal.
        padding: Zeros on each side, vertical, horizontal.
        dilation: Vertical, horizontal.
        bias: (out channels,) or None.
        relu: Whether negative results become zero.
        trainable: Whether ``weight_gradient`` or ``input_gradient`` will be called.
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
        trainable: bool = False,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        if not matrices:
            raise ConfigError("convolution: expected at least one group, got none")
        for matrix in matrices:
            check_matrix(matrix, "convolution")
        self._channels = sum(matrix.grid.channels for matrix in matrices)
        with as_config_error("convolution"):
            self._weights = _core.ConvWeights(
                [matrix.parts for matrix in matrices],
                kernel=pair(kernel_size, "kernel_size"),
                stride=pair(stride, "stride"),
                padding=pair(padding, "padding"),
                dilation=pair(dilation, "dilation"),
                bias=numbers(bias, sum(matrix.grid.m for matrix in matrices)),
                relu=relu,
                trainable=trainable,
                isa=isa_name(isa),
                threads=integer(threads, "threads"),
            )
        self._values_shapes = [matrix.values.shape for matrix in matrices] if trainable else None
        self._run = self._weights.run

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        return self._weights.isa

    def __call__(self, x: ArrayT, out: ArrayT | None = None, *, residual: ArrayT | None = None) -> ArrayT:
        """Convolves.

        Args:
            x: (N, in channels, H, W) float32.
            out: (N, out channels, out height, out width) float32, apart from the others; made if absent.
            residual: Of the output's shape, float32; added after the bias and before ReLU.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
            ConfigError: The image is too small for the kernel.
        """
        try:
            while (y := self._run(x, out, residual)) is None:
                self._prepare(x.shape)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return y

    def weight_gradient(self, dy: ArrayT, x: ArrayT) -> list[ArrayT]:
        """The gradient of the stored weights, for ``dy`` that of the output before ReLU.

        Args:
            dy: (N, out channels, out height, out width) float32, contiguous.
            x: (N, in channels, H, W) float32.

        Returns:
            For each group (nnz_blocks, bh, bw), zero where a ragged block leaves W.

        Raises:
            ConfigError: The plan is not trainable.
            ShapeError: As in a call.
        """
        if self._values_shapes is None:
            raise ConfigError("convolution: expected a plan made with trainable=True")
        return self.gradients(dy, x, inputs=False)[1]

    def input_gradient(self, dy: ArrayT, size: tuple[int, int]) -> ArrayT:
        """The gradient of the input, for ``dy`` that of the output before ReLU.

        Args:
            dy: (N, out channels, out height, out width) float32, contiguous.
            size: Height and width of the input.

        Returns:
            (N, in channels, H, W).

        Raises:
            ConfigError: The plan is not trainable, or the image is too small for the kernel.
            ShapeError: As in a call.
        """
        height, width = pair(size, "size")
        dx, _ = self._gradients(dy, None, (height, width), inputs=True)
        assert dx is not None
        return dx

    def gradients(self, dy: ArrayT, x: ArrayT, *, inputs: bool = True) -> tuple[ArrayT | None, list[ArrayT]]:
        """Both gradients in one call, which copies ``dy`` once.

        Args:
            dy: As in ``weight_gradient``.
            x: As in ``weight_gradient``.
            inputs: Whether that of the input is wanted.

        Returns:
            What ``input_gradient`` returns, or None, and what ``weight_gradient`` returns.

        Raises:
            ConfigError: As these.
            ShapeError: As these.
        """
        if getattr(x, "ndim", 4) != 4:
            raise ShapeError(f"convolution input: expected 4 dimensions, got {x.ndim}")
        return self._gradients(dy, x, (x.shape[2], x.shape[3]), inputs=inputs)

    def with_values(self, values: ArrayT) -> ConvPlan:
        """A plan for other values of the same kept blocks, which is quicker to make than the first.

        Args:
            values: (nnz_blocks, bh, bw) float32, of all groups one after the other.

        Raises:
            ConfigError: The plan is not trainable.
            ShapeError: The values have another shape or type.
        """
        self._check_trainable()
        other = copy(self)
        try:
            other._weights = self._weights.with_values(values)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        other._run = other._weights.run
        return other

    def _check_trainable(self) -> None:
        if self._values_shapes is None:
            raise ConfigError("convolution: expected a plan made with trainable=True")

    def _gradients(
        self, dy: ArrayT, x: ArrayT | None, size: tuple[int, int], *, inputs: bool
    ) -> tuple[ArrayT | None, list[ArrayT]]:
        self._check_trainable()
        assert self._values_shapes is not None
        if dy.ndim != 4:
            raise ShapeError(f"convolution output gradient: expected 4 dimensions, got {dy.ndim}")
        dx = empty_like(dy, (dy.shape[0], self._channels, *size)) if inputs else None
        values = [] if x is None else [empty_like(dy, shape) for shape in self._values_shapes]
        targets = [as_numpy(part, "convolution weight gradient") for part in values]
        try:
            while not self._weights.gradients(dy, x, *size, dx, targets):
                self._prepare((0, 0, *size))
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return dx, values

    def _prepare(self, shape: Sequence[int]) -> None:
        """Makes the plan for images of a size that is not among the latest."""
        with as_config_error("convolution"):
            self._weights.prepare(shape[2], shape[3])


def spmm(matrix: BsrMatrix, x: ArrayT, *, isa: str | None = None, threads: int = 1) -> ArrayT:
    """W X once. Whoever multiplies by the same W again should keep a ``SpmmPlan``."""
    return SpmmPlan(matrix, isa=isa, threads=threads)(x)
