"""``nn.Conv2d`` with a block-sparse weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from pysim.errors import ConfigError, ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.conv_ops import bsr_conv2d
from pysim.sparse.layer import BsrModule, cut, float32, plain
from pysim.sparse.plans import ConvPlan
from pysim.workload import BlockGrid, BoolArray


class BsrConv2d(BsrModule):
    """``nn.Conv2d`` with a block-sparse weight.

    Args:
        matrices: One per group, as in ``ConvPlan``.
        kernel_size: Height and width.
        stride: Vertical, horizontal.
        padding: On each side, vertical, horizontal; or (left, right, top, bottom).
        dilation: Vertical, horizontal.
        padding_mode: What stands in the padding, as in ``nn.Conv2d``.
        bias: (out channels,) or None; copied.

    Raises:
        ConfigError: A size is out of range, or the matrices do not fit the kernel.
        ShapeError: The bias has another shape.
    """

    def __init__(
        self,
        matrices: Sequence[BsrMatrix],
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, ...] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        bias: Tensor | None = None,
    ) -> None:
        super().__init__(matrices, bias)
        sides = (padding[1], padding[1], padding[0], padding[0]) if len(padding) == 2 else tuple(padding)
        if len(sides) != 4:
            raise ConfigError(f"BsrConv2d: expected padding of two or four integers, got {padding}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ConfigError(f"BsrConv2d: expected a padding mode of torch, got {padding_mode!r}")
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.padding, self.padding_mode = sides, padding_mode
        self.in_channels = self.groups * self.grid.channels
        self.out_channels = self.groups * self.grid.m
        # What the kernel pads itself: equal zeros on both sides. Everything else is padded before.
        equal = padding_mode == "zeros" and sides[0] == sides[1] and sides[2] == sides[3]
        self._kernel_padding = (sides[2], sides[0]) if equal else (0, 0)
        self._pads_before = not equal and any(sides)
        self._conv_plan(trainable=False)  # refuses what the kernel cannot do

    @classmethod
    def from_dense(cls, conv: nn.Conv2d, block: tuple[int, int], keep: BoolArray | None = None) -> Self:
        """The kept blocks of ``conv``.

        Args:
            conv: float32 on the CPU; copied.
            block: Height (output channels) and width (input channels at one kernel position).
            keep: (groups, block rows, block columns) as in ``BlockMask``; default: blocks that are not all
                zero.

        Raises:
            ShapeError: The weight is not float32 on the CPU, or ``keep`` has another shape.
        """
        weight = float32(conv.weight)
        out, channels, height, width = weight.shape
        rows = weight.transpose(0, 2, 3, 1).reshape(conv.groups, out // conv.groups, -1)
        grid = BlockGrid(
            m=out // conv.groups,
            k=height * width * channels,
            positions=height * width,
            bh=block[0],
            bw=block[1],
        )
        module = cls(
            cut(rows, grid, keep),
            kernel_size=(height, width),
            stride=_two(conv.stride),
            padding=_sides(conv),
            dilation=_two(conv.dilation),
            padding_mode=conv.padding_mode,
            bias=conv.bias,
        )
        return module.train(conv.training)

    @property
    def weight(self) -> Tensor:
        """(out channels, in channels / groups, kh, kw), dense, a copy."""
        rows = np.stack([matrix.to_dense() for matrix in self.matrices()])
        dense = rows.reshape(self.out_channels, *self.kernel_size, -1).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(dense)).to(self.values)

    def to_dense(self) -> nn.Module:
        """The same layer with a dense weight: an ``nn.Conv2d``, behind a padding layer if sides differ."""
        left, right, top, bottom = self.padding
        equal = left == right and top == bottom
        conv = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            (top, left) if equal else 0,
            self.dilation,
            self.groups,
            self.bias is not None,
            self.padding_mode if equal else "zeros",
        ).to(self.values)
        with torch.no_grad():
            conv.weight.copy_(self.weight)
            if self.bias is not None and conv.bias is not None:
                conv.bias.copy_(self.bias)
        if equal:
            return conv.train(self.training)
        layers = {"zeros": nn.ZeroPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
        layer = layers.get(self.padding_mode, nn.CircularPad2d)
        return nn.Sequential(layer((left, right, top, bottom)), conv).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in channels, H, W) or (in channels, H, W), to as many dimensions.

        The result has its input's memory format: contiguous, or channels-last.

        Raises:
            ShapeError: Input and weight are not on one device and of one type, or the type is not float32
                (on a GPU also float16 and bfloat16), or the number of channels is another.
            ConfigError: The image is too small for the kernel, or the GPU cannot be used.
        """
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ShapeError(f"BsrConv2d: expected shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        image = x if x.ndim == 4 else x[None]
        if self._pads_before:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            image = pad(image, self.padding, mode=mode)
        if self._as_operator(image):
            y: Tensor = bsr_conv2d(
                image,
                self.values,
                self.row_ptr,
                self.col_idx,
                self.bias,
                self.out_channels,
                [*self.kernel_size, *self.stride, *self._kernel_padding, *self.dilation],
            )
        elif self._needs_gradients(image):
            y = _ConvFunction.apply(image, self.values, self.bias, self)  # type: ignore[no-untyped-call]
        else:
            y = self._conv_plan(trainable=False)(_dense_image(image))
        return y if x.ndim == 4 else y[0]

    def _conv_plan(self, *, trainable: bool) -> ConvPlan:
        return self._plan(
            "trainable" if trainable else "plain",
            lambda matrices, threads: ConvPlan(
                matrices,
                kernel_size=self.kernel_size,
                stride=self.stride,
                padding=self._kernel_padding,
                dilation=self.dilation,
                bias=plain(self.bias),
                trainable=trainable,
                threads=threads,
            ),
            ConvPlan.with_values if trainable else None,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"bias={self.bias is not None}, block={self.grid.bh}x{self.grid.bw}, density={self.density:.3f}"
        )


class _ConvFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, module: BsrConv2d) -> Tensor:  # noqa: ANN401
        image = _dense_image(x)
        ctx.module, ctx.size = module, (x.shape[2], x.shape[3])
        ctx.save_for_backward(image if values.requires_grad else None, values)
        return module._conv_plan(trainable=True)(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # noqa: ANN401
        image, _ = ctx.saved_tensors  # raises if the values were changed since
        needs_x, needs_values, needs_bias, _ = ctx.needs_input_grad
        dy = dy.contiguous()
        plan = ctx.module._conv_plan(trainable=True)
        dx = dvalues = None
        if needs_values:
            dx, parts = plan.gradients(dy, image, inputs=needs_x)
            dvalues = parts[0] if len(parts) == 1 else torch.cat(parts)
        elif needs_x:
            dx = plan.input_gradient(dy, ctx.size)
        return dx, dvalues, dy.sum((0, 2, 3)) if needs_bias else None, None


def _dense_image(x: Tensor) -> Tensor:
    """Contiguous, in the order of axes that it has if the kernel reads that, else in torch's usual one."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _two(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


def _sides(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), with torch's meaning of "same": the odd one goes right and below."""
    if conv.padding == "valid":
        return 0, 0, 0, 0
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        top, left = whole[0] // 2, whole[1] // 2
        return left, whole[1] - left, top, whole[0] - top
    vertical, horizontal = int(conv.padding[0]), int(conv.padding[1])
    return horizontal, horizontal, vertical, vertical
