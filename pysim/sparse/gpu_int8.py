"""Products and convolutions of 8-bit weights and inputs on GPUs, with the bits of the plans of ``int8.py``.

Tensor cores take four bytes of the reduction in one register, a quad, so quads are what blocks keep and what
X is read in: its reduction elements lie together, in fours at multiples of four bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import as_config_error, element_type
from pysim.sparse.bsr import Int8BsrMatrix
from pysim.sparse.gpu import GpuPlan, Packed, conv_source, matrix_source
from pysim.sparse.int8 import InputType, OutputType, check_int8, int8_options
from pysim.sparse.isa import CudaDevice
from pysim.workload import BlockGrid

_QUAD = 4
# Where a source counts reduction elements: k, the strides of n, rows and images, channels.
_ALONG_K = (0, 3, 4, 5, 6)


class GpuInt8Plan:
    """Y = W (X - input zero point) + bias for 8-bit W and X on a GPU; weights and all options are fixed.

    Results have the bits of ``Int8SpmmPlan`` and ``Int8ConvPlan``. X is laid out otherwise than there: (n, k)
    for a product, channels-last for a convolution.

    Args:
        matrices: W; for a convolution one per group. The reduction, or the channels of a group, are a
            multiple of 4. Blocks keep whole quads: those of a width that is no multiple of 4 are cut again in
            columns of 4, with zeros where they keep nothing.
        device: Where the plan goes; ``cpu`` is the emulation.
        input_dtype: This and what follows up to ``relu`` as for ``Int8SpmmPlan``, with the rows of all groups
            in place of m.
        columns: The width that work is spread for; any other works too.
        limits: Stands in for the device's own; for tests.

    Raises:
        ConfigError: As for ``Int8SpmmPlan`` and ``GpuPlan``; or k or channels are no multiple of 4.
    """

    def __init__(
        self,
        matrices: Sequence[Int8BsrMatrix],
        *,
        device: torch.device,
        input_dtype: InputType = "uint8",
        input_zero_point: int = 0,
        bias: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
        output: OutputType = "int32",
        output_zero_point: int = 0,
        relu: bool = False,
        columns: int = 1024,
        limits: CudaDevice | None = None,
    ) -> None:
        if not matrices:
            raise ConfigError("GPU int8 plan: expected at least one matrix, got none")
        for matrix in matrices:
            check_int8(matrix, "GPU int8 plan")
        self.m = sum(matrix.grid.m for matrix in matrices)
        self.k = sum(matrix.grid.k for matrix in matrices)
        self._positions = matrices[0].grid.positions
        self._input, self._output = element_type(input_dtype), element_type(output)
        options = int8_options(
            self.m, input_dtype, input_zero_point, bias, scale, output, output_zero_point, relu
        )
        with as_config_error("GPU int8 plan"):
            self._epilogue = _core.Int8Epilogue([matrix.parts for matrix in matrices], options=options)
        cut = [_in_quads(matrix) for matrix in matrices]
        grid = cut[0].grid
        self._plan = GpuPlan(
            BlockGrid(m=grid.m, k=grid.k // _QUAD, positions=grid.positions, bh=grid.bh, bw=grid.bw // _QUAD),
            [(matrix.row_ptr, matrix.col_idx) for matrix in cut],
            math="i8",
            device=device,
            columns=columns,
            limits=limits,
        )
        quads = np.concatenate([matrix.values.reshape(-1).view(np.int32) for matrix in cut])
        weights = self._plan.pack(torch.from_numpy(quads).to(device)).weights
        self._packed = Packed(weights, torch.from_numpy(self._epilogue.table).to(device))

    @property
    def facts(self) -> dict[str, int]:
        """Sizes of the plan, see ``GpuPlan``; elements of the reduction are quads."""
        return self._plan.facts

    @property
    def last_kernel(self) -> str:
        """Which kernel the last product took."""
        return self._plan.last_kernel

    def multiply(self, x: Tensor) -> Tensor:
        """(X - zero point) W^T + bias for x (n, k), such as tokens.

        Args:
            x: Of the input's type; rows are contiguous and begin at multiples of 4 bytes.

        Returns:
            (n, m) of the output's type, contiguous.

        Raises:
            ShapeError: x has another shape, type, layout or device.
            ConfigError: CUDA refuses.
        """
        self._require(x, "GPU int8 product")
        if x.ndim != 2 or x.shape[1] != self.k:
            raise ShapeError(f"GPU int8 product: expected shape (n, {self.k}), got {tuple(x.shape)}")
        source = _quads_of(x, matrix_source(x), (x.shape[0], 1, 1), "x.contiguous()")
        y = torch.empty((x.shape[0], self.m), dtype=self._output.torch, device=x.device)
        self._plan.run(self._packed, x, source, y, epilogue=self._epilogue)
        return y

    def convolve(
        self,
        x: Tensor,
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        """The convolution of x (N, channels, H, W), channels-last, padded with the input's zero point.

        Returns:
            (N, m, out height, out width) of the output's type, channels-last.

        Raises:
            ShapeError: x has another shape, type, layout or device.
            ConfigError: The image is too small for the kernel, or CUDA refuses.
        """
        self._require(x, "GPU int8 convolution")
        taps = kernel_size[0] * kernel_size[1]
        if x.ndim != 4 or taps != self._positions or x.shape[1] * taps != self.k:
            raise ShapeError(
                f"GPU int8 convolution: expected (N, {self.k // self._positions}, H, W) and "
                f"{self._positions} kernel positions, got {tuple(x.shape)} and {taps}"
            )
        source, size = conv_source(x, kernel_size, stride, padding, dilation)
        fix = "x.contiguous(memory_format=torch.channels_last)"
        source = _quads_of(x, source, (x.shape[3], x.shape[2], x.shape[0]), fix)
        y = torch.empty(
            (x.shape[0], self.m, *size),
            dtype=self._output.torch,
            device=x.device,
            memory_format=torch.channels_last,
        )
        self._plan.run(self._packed, x, source, y, epilogue=self._epilogue)
        return y

    def _require(self, x: Tensor, where: str) -> None:
        device = self._plan.device
        if x.device.type != device.type or device.index not in (None, x.device.index):
            raise ShapeError(f"{where}: expected a tensor on {device}, got one on {x.device}")
        if x.layout != torch.strided or x.dtype != self._input.torch:
            raise ShapeError(f"{where}: expected a dense tensor of {self._input.name}, got {x.dtype}")


def _in_quads(matrix: Int8BsrMatrix) -> Int8BsrMatrix:
    """The same weights in blocks whose width is a multiple of 4."""
    grid = matrix.grid
    if grid.channels % _QUAD:
        what = "reduction elements" if grid.positions == 1 else "channels in every group"
        raise ConfigError(
            f"GPU int8 plan: expected a multiple of 4 {what}, got {grid.channels}",
            hint="Pad the weights with zeros and the inputs with anything.",
        )
    if grid.bw % _QUAD == 0:
        return matrix
    cut = BlockGrid(m=grid.m, k=grid.k, positions=grid.positions, bh=grid.bh, bw=_QUAD)
    return Int8BsrMatrix.from_dense(matrix.to_dense(), cut)


def _quads_of(x: Tensor, source: tuple[int, ...], repeats: tuple[int, int, int], fix: str) -> tuple[int, ...]:
    """The source in quads; ``repeats`` says how often each of its strides but that of k is taken."""
    found = list(source)
    if x.numel() == 0:  # an empty tensor may have any strides
        found[2] = 1
    for place, count in zip((3, 4, 5), repeats, strict=True):
        if count <= 1:
            found[place] = 0
    if found[2] != 1 or any(found[place] % _QUAD for place in _ALONG_K) or x.data_ptr() % _QUAD:
        raise ShapeError(
            "GPU int8: expected reduction elements side by side, in fours that begin at multiples of 4 "
            f"bytes, got strides {x.stride()} at address {x.data_ptr()}",
            hint=f"{fix} is laid out like that.",
        )
    for place in _ALONG_K:
        found[place] //= _QUAD
    return tuple(found)
