"""Products and convolutions of 8-bit weights and inputs, with sums that are exact.

Inputs may be numpy or torch (on the CPU); the result is of the input's kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import (
    ElementType,
    as_config_error,
    element_type,
    integer,
    isa_name,
    pair,
    typed_numpy,
)
from pysim.sparse.bsr import Int8BsrMatrix

InputType = Literal["uint8", "int8"]
OutputType = Literal["int32", "float32", "uint8", "int8"]
AnyArrayT = TypeVar("AnyArrayT", npt.NDArray[np.generic], Tensor)

_INPUT_TYPES = ("uint8", "int8")
_OUTPUT_TYPES = ("int32", "float32", "uint8", "int8")
# Image sizes whose plans a convolution keeps; the oldest goes first.
_MAX_IMAGE_SIZES = 16


class Int8SpmmPlan:
    """Y (m, n) = W (X (k, n) - input zero point) + bias for 8-bit W and X, for any n, with W block-sparse.

    Sums are integers of 32 bits and exact. As int32 they are written as they are. Else each becomes
    v = float(sum) * scale, plus the bias if that is a float; every step is rounded to float32, to nearest
    even. For float32 output Y is v; for 8-bit output it is v rounded to nearest even plus the output zero
    point, kept within the type's range. ReLU comes last and keeps what is above the output zero point.

    Args:
        matrix: W.
        input_dtype: ``uint8`` or ``int8``.
        input_zero_point: The input that stands for zero.
        bias: (m,); integers are added to the sums, floats after the scaling.
        scale: (m,) or one number, finite: what one unit of a sum is worth in units of the output. For int32
            output None.
        output: ``int32``, ``float32``, ``uint8`` or ``int8``.
        output_zero_point: The output that stands for zero, for 8-bit output.
        relu: Whether results below zero become zero.
        isa: ``scalar``, ``avx2``, ``avx_vnni`` or ``avx512_vnni``; ``avx512`` means the last where it is
            available and ``avx2`` elsewhere. Default: ``PYSIM_ISA`` if set, else the fastest available.
        threads: At most this many; the result does not depend on it.

    Raises:
        ConfigError: An argument has another length or type, is out of range, or some input could make a sum
            leave 32 bits; or as in ``SpmmPlan``.
    """

    def __init__(
        self,
        matrix: Int8BsrMatrix,
        *,
        input_dtype: InputType = "uint8",
        input_zero_point: int = 0,
        bias: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
        output: OutputType = "int32",
        output_zero_point: int = 0,
        relu: bool = False,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        check_int8(matrix, "int8 spmm")
        m = matrix.grid.m
        options = int8_options(m, input_dtype, input_zero_point, bias, scale, output, output_zero_point, relu)
        self._m, self._input, self._output = m, element_type(input_dtype), element_type(output)
        with as_config_error("int8 spmm"):
            self._plan = _core.Int8SpmmPlan(
                *matrix.parts, options=options, isa=isa_name(isa), threads=integer(threads, "threads")
            )

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        return self._plan.isa

    def __call__(self, x: AnyArrayT, out: AnyArrayT | None = None) -> AnyArrayT:
        """Multiplies.

        Args:
            x: (k, n) of the input's type; rows contiguous, any distance from row to row.
            out: (m, n) of the output's type to write to, apart from ``x``; made if absent.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
        """
        source: npt.NDArray[np.generic] = typed_numpy(x, "int8 spmm input", self._input)
        if source.ndim != 2:
            raise ShapeError(f"int8 spmm input: expected shape (k, n), got {source.shape}")
        result = _empty(x, (self._m, source.shape[1]), self._output) if out is None else out
        target: npt.NDArray[np.generic] = typed_numpy(result, "int8 spmm output", self._output)
        try:
            self._plan.run(source, target)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return result


class Int8ConvPlan:
    """A block-sparse 2-D convolution of 8-bit NCHW images, padded with the input's zero point.

    Args:
        matrices: One per group, as for ``ConvPlan``, of 8-bit weights.
        kernel_size: Height and width.
        stride: Vertical, horizontal.
        padding: Of zeros on each side, vertical, horizontal.
        dilation: Vertical, horizontal.
        input_dtype: This and what follows as for ``Int8SpmmPlan``, with out channels in place of m.

    Raises:
        ConfigError: As for ``Int8SpmmPlan``; sizes are checked at the first image.
    """

    def __init__(
        self,
        matrices: Sequence[Int8BsrMatrix],
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        input_dtype: InputType = "uint8",
        input_zero_point: int = 0,
        bias: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
        output: OutputType = "int32",
        output_zero_point: int = 0,
        relu: bool = False,
        isa: str | None = None,
        threads: int = 1,
    ) -> None:
        if not matrices:
            raise ConfigError("int8 convolution: expected at least one group, got none")
        for matrix in matrices:
            check_int8(matrix, "int8 convolution")
        self._matrices = tuple(matrices)
        self._window = (
            pair(kernel_size, "kernel_size"),
            pair(stride, "stride"),
            pair(padding, "padding"),
            pair(dilation, "dilation"),
        )
        features = sum(matrix.grid.m for matrix in matrices)
        self._options = int8_options(
            features, input_dtype, input_zero_point, bias, scale, output, output_zero_point, relu
        )
        self._channels = sum(matrix.grid.channels for matrix in matrices)
        self._input, self._output = element_type(input_dtype), element_type(output)
        self._isa, self._threads = isa_name(isa), integer(threads, "threads")
        self._plans: dict[tuple[int, int], _core.Int8ConvPlan] = {}

    def __call__(self, x: AnyArrayT, out: AnyArrayT | None = None) -> AnyArrayT:
        """Convolves. The weights are packed at the first image of a size, and the last 16 sizes are kept.

        Args:
            x: (N, in channels, H, W) of the input's type, contiguous (NCHW).
            out: (N, out channels, out height, out width) of the output's type, contiguous, apart from ``x``;
                made if absent.

        Raises:
            ShapeError: An array has the wrong type, shape, layout or device, or the two overlap.
            ConfigError: The image is too small for the kernel; or as for ``Int8SpmmPlan``.
        """
        source: npt.NDArray[np.generic] = typed_numpy(x, "int8 convolution input", self._input)
        if source.ndim != 4 or source.shape[1] != self._channels:
            raise ShapeError(
                f"int8 convolution input: expected (N, {self._channels}, H, W), got {source.shape}"
            )
        plan = self._plan_for(source.shape[2], source.shape[3])
        result = _empty(x, tuple(plan.out_shape(source.shape[0])), self._output) if out is None else out
        target: npt.NDArray[np.generic] = typed_numpy(result, "int8 convolution output", self._output)
        try:
            plan.run(source, target)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return result

    def _plan_for(self, height: int, width: int) -> _core.Int8ConvPlan:
        plan = self._plans.get((height, width))
        if plan is None:
            kernel, stride, padding, dilation = self._window
            with as_config_error("int8 convolution"):
                plan = _core.Int8ConvPlan(
                    [matrix.parts for matrix in self._matrices],
                    size=(height, width),
                    kernel=kernel,
                    stride=stride,
                    padding=padding,
                    dilation=dilation,
                    options=self._options,
                    isa=self._isa,
                    threads=self._threads,
                )
            if len(self._plans) >= _MAX_IMAGE_SIZES:
                self._plans.pop(next(iter(self._plans)), None)
            self._plans[height, width] = plan
        return plan


def check_int8(matrix: Int8BsrMatrix, where: str) -> None:
    """Raises ConfigError for anything else, such as a matrix of floats."""
    if not isinstance(matrix, Int8BsrMatrix):
        raise ConfigError(
            f"{where}: expected Int8BsrMatrix, got {type(matrix).__name__}",
            hint="pysim.sparse.quantize_weights makes one of a BsrMatrix.",
        )


def _empty(like: AnyArrayT, shape: tuple[int, ...], kind: ElementType) -> AnyArrayT:
    if isinstance(like, Tensor):
        return torch.empty(shape, dtype=kind.torch)
    return np.empty(shape, dtype=kind.numpy)


def int8_options(
    m: int,
    input_dtype: str,
    input_zero_point: int,
    bias: npt.ArrayLike | None,
    scale: npt.ArrayLike | None,
    output: str,
    output_zero_point: int,
    relu: bool,
) -> _core.Int8Options:
    """The arguments of ``Int8SpmmPlan`` as the core takes them. Raises ConfigError."""
    if input_dtype not in _INPUT_TYPES:
        raise ConfigError(f"input_dtype: expected one of {', '.join(_INPUT_TYPES)}, got {input_dtype!r}")
    if output not in _OUTPUT_TYPES:
        raise ConfigError(f"output: expected one of {', '.join(_OUTPUT_TYPES)}, got {output!r}")
    if (scale is None) != (output == "int32"):
        raise ConfigError(f"scale: expected {'none' if output == 'int32' else 'one'} for {output} output")
    sum_bias, real_bias = _biases(bias, m, output)
    return (
        input_dtype == "int8",
        integer(input_zero_point, "input_zero_point"),
        sum_bias,
        [] if scale is None else _scales(scale, m),
        real_bias,
        output,
        integer(output_zero_point, "output_zero_point"),
        bool(relu),
    )


def _biases(bias: npt.ArrayLike | None, m: int, output: str) -> tuple[list[int], list[float]]:
    """What is added to the sums, and what after the scaling; one of them is empty."""
    if bias is None:
        return [], []
    array = np.asarray(bias)
    if array.shape != (m,):
        raise ConfigError(f"bias: expected shape ({m},), got {array.shape}")
    if array.dtype.kind in "iu":
        if abs(array.astype(object)).max() >= 2**31:
            raise ConfigError("bias: expected integers of 32 bits, got larger ones")
        return array.tolist(), []
    if array.dtype.kind != "f":
        raise ConfigError(f"bias: expected integers or floats, got {array.dtype}")
    if output == "int32":
        raise ConfigError("bias: expected integers for int32 output, got floats")
    return [], array.astype(np.float32).tolist()


def _scales(scale: npt.ArrayLike, m: int) -> list[float]:
    try:
        with np.errstate(over="ignore"):  # the core refuses what becomes infinite
            array = np.asarray(scale, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"scale: expected {m} numbers or one, got {scale!r}") from error
    if array.shape not in ((), (m,)):
        raise ConfigError(f"scale: expected shape ({m},) or one number, got {array.shape}")
    scales: list[float] = np.broadcast_to(array, (m,)).tolist()
    return scales
