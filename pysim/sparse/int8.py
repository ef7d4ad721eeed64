"""Products of 8-bit weights and 8-bit inputs, with sums that are exact.

Inputs may be numpy or torch (on the CPU); the result is of the input's kind.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import as_config_error, element_type, integer, isa_name, typed_numpy
from pysim.sparse.bsr import Int8BsrMatrix

InputType = Literal["uint8", "int8"]
OutputType = Literal["int32", "float32", "uint8", "int8"]
AnyArrayT = TypeVar("AnyArrayT", npt.NDArray[np.generic], Tensor)

_INPUT_TYPES = ("uint8", "int8")
_OUTPUT_TYPES = ("int32", "float32", "uint8", "int8")


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
        if not isinstance(matrix, Int8BsrMatrix):
            raise ConfigError(
                f"int8 spmm: expected Int8BsrMatrix, got {type(matrix).__name__}",
                hint="pysim.sparse.quantize_weights makes one of a BsrMatrix.",
            )
        if input_dtype not in _INPUT_TYPES:
            raise ConfigError(f"input_dtype: expected one of {', '.join(_INPUT_TYPES)}, got {input_dtype!r}")
        if output not in _OUTPUT_TYPES:
            raise ConfigError(f"output: expected one of {', '.join(_OUTPUT_TYPES)}, got {output!r}")
        if (scale is None) != (output == "int32"):
            raise ConfigError(f"scale: expected {'none' if output == 'int32' else 'one'} for {output} output")
        m = matrix.grid.m
        sum_bias, real_bias = _biases(bias, m, output)
        self._m, self._input, self._output = m, element_type(input_dtype), element_type(output)
        with as_config_error("int8 spmm"):
            self._plan = _core.Int8SpmmPlan(
                *matrix.parts,
                signed_input=input_dtype == "int8",
                input_zero_point=integer(input_zero_point, "input_zero_point"),
                sum_bias=sum_bias,
                scale=[] if scale is None else _scales(scale, m),
                bias=real_bias,
                output=output,
                output_zero_point=integer(output_zero_point, "output_zero_point"),
                relu=relu,
                isa=isa_name(isa),
                threads=integer(threads, "threads"),
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
        result = self._empty(x, source.shape[1]) if out is None else out
        target: npt.NDArray[np.generic] = typed_numpy(result, "int8 spmm output", self._output)
        try:
            self._plan.run(source, target)
        except (ValueError, TypeError) as error:
            raise ShapeError(str(error)) from error
        return result

    def _empty(self, x: AnyArrayT, n: int) -> AnyArrayT:
        if isinstance(x, Tensor):
            return torch.empty((self._m, n), dtype=self._output.torch)
        return np.empty((self._m, n), dtype=self._output.numpy)


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
