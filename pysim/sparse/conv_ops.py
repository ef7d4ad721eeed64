"""``pysim::bsr_conv2d`` and its gradients as torch operators: torch.compile and torch.export pass through.

On the CPU they run the CPU kernels. On a GPU the product runs on those of ``pysim.sparse.gpu`` and the
gradients on torch's dense convolution.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pysim.sparse.gpu import conv_size
from pysim.sparse.packing import check_devices, gpu_plan, keep, matrices, packed, plain_bias, threads
from pysim.sparse.plans import ConvPlan
from pysim.workload import BlockGrid


@torch.library.custom_op("pysim::bsr_conv2d", mutates_args=())
def bsr_conv2d(
    x: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    out_channels: int,
    window: list[int],
) -> Tensor:
    """A block-sparse convolution.

    Args:
        x: (N, channels, H, W).
        values: (nnz_blocks, bh, bw) of all groups.
        row_ptr: (groups, block rows + 1) int64, counting from zero in each group.
        col_idx: (nnz_blocks,) int32.
        bias: (out channels,) or None.
        out_channels: Of all groups.
        window: Kernel, stride, padding, dilation, each vertical and horizontal.

    Returns:
        (N, out channels, out height, out width): contiguous on the CPU, channels-last on a GPU.

    Raises:
        ShapeError: As ``bsr_linear``.
        ConfigError: The image is too small for the kernel, or the GPU cannot be used.
    """
    check_devices(x, values, row_ptr, col_idx, bias)
    grid = _conv_grid(values, out_channels, x.shape[1], len(row_ptr), window)
    if x.device.type == "cpu":
        return _cpu_conv(grid, values, row_ptr, col_idx, bias, window)(x.detach().contiguous())
    return conv_on_gpu(x, values, row_ptr, col_idx, bias, grid, window)


def conv_on_gpu(
    x: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    bias: Tensor | None,
    grid: BlockGrid,
    window: list[int],
) -> Tensor:
    """The convolution by the GPU kernels; on the CPU by their emulation."""
    kernel, stride, padding, dilation = _pairs(window)
    size = conv_size((x.shape[2], x.shape[3]), kernel, stride, padding, dilation)
    plan, _ = gpu_plan(grid, values, row_ptr, col_idx, x.shape[0] * size[0] * size[1])
    return plan.convolve(
        packed(plan, values, bias),
        x.detach(),
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def _pairs(window: list[int]) -> list[tuple[int, int]]:
    return [(window[i], window[i + 1]) for i in range(0, 8, 2)]


def _conv_grid(values: Tensor, out_channels: int, channels: int, groups: int, window: list[int]) -> BlockGrid:
    taps = window[0] * window[1]
    return BlockGrid(
        m=out_channels // groups,
        k=taps * (channels // groups),
        positions=taps,
        bh=values.shape[1],
        bw=values.shape[2],
    )


def _cpu_conv(
    grid: BlockGrid,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    bias: Tensor | None,
    window: list[int],
    *,
    trainable: bool = False,
) -> ConvPlan:
    kernel, stride, padding, dilation = _pairs(window)
    return keep(
        ("conv", grid, tuple(window), threads(), trainable, bias is None),
        (values, row_ptr, col_idx) if bias is None else (values, row_ptr, col_idx, bias),
        lambda: ConvPlan(
            matrices(grid, values, row_ptr, col_idx),
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=plain_bias(bias),
            trainable=trainable,
            threads=threads(),
        ),
    )


@bsr_conv2d.register_fake
def _(
    x: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    bias: Tensor | None,
    out_channels: int,
    window: list[int],
) -> Tensor:
    kernel, stride, padding, dilation = _pairs(window)
    size = [
        (s + 2 * p - d * (k - 1) - 1) // step + 1
        for s, k, step, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    layout = torch.channels_last if x.device.type == "cuda" else torch.contiguous_format
    return torch.empty(
        (x.shape[0], out_channels, *size), dtype=x.dtype, device=x.device, memory_format=layout
    )


@torch.library.custom_op("pysim::bsr_conv2d_input_gradient", mutates_args=())
def bsr_conv2d_input_gradient(
    dy: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, in_shape: list[int], window: list[int]
) -> Tensor:
    """The gradient of the input, (N, channels, H, W) = in_shape."""
    check_devices(dy, values, row_ptr, col_idx, None)
    grid = _conv_grid(values, dy.shape[1], in_shape[1], len(row_ptr), window)
    if dy.device.type == "cpu":
        plan = _cpu_conv(grid, values, row_ptr, col_idx, None, window, trainable=True)
        return plan.input_gradient(dy.contiguous(), (in_shape[2], in_shape[3]))
    weight = dense_kernel(values, row_ptr, col_idx, grid, window)
    x = dy.new_empty(in_shape)
    return dense_conv_gradients(dy, x, weight, len(row_ptr), window, (True, False))[0].contiguous()


@bsr_conv2d_input_gradient.register_fake
def _(
    dy: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, in_shape: list[int], window: list[int]
) -> Tensor:
    return dy.new_empty(in_shape)


@torch.library.custom_op("pysim::bsr_conv2d_values_gradient", mutates_args=())
def bsr_conv2d_values_gradient(
    dy: Tensor, x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, window: list[int]
) -> Tensor:
    """The gradient of the kept blocks, (nnz_blocks, bh, bw)."""
    check_devices(x, values, row_ptr, col_idx, None)
    grid = _conv_grid(values, dy.shape[1], x.shape[1], len(row_ptr), window)
    if x.device.type == "cpu":
        plan = _cpu_conv(grid, values, row_ptr, col_idx, None, window, trainable=True)
        return torch.cat(plan.weight_gradient(dy.contiguous(), x.detach().contiguous()))
    weight = dense_kernel(values, row_ptr, col_idx, grid, window)
    gradient = dense_conv_gradients(dy, x.detach(), weight, len(row_ptr), window, (False, True))[1]
    return kept_blocks(gradient, row_ptr, col_idx, grid)


@bsr_conv2d_values_gradient.register_fake
def _(dy: Tensor, x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, window: list[int]) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _block_places(row_ptr: Tensor, grid: BlockGrid) -> Tensor:
    """Group and block row of every block, as one index."""
    groups, edges = row_ptr.shape
    ids = torch.arange(groups * (edges - 1), device=row_ptr.device)
    return torch.repeat_interleave(ids, row_ptr.diff(dim=1).reshape(-1))


def dense_kernel(
    values: Tensor, row_ptr: Tensor, col_idx: Tensor, grid: BlockGrid, window: list[int]
) -> Tensor:
    """The kept blocks as (out channels, channels / groups, kh, kw); any device."""
    groups, (rows, cols) = len(row_ptr), grid.shape
    blocks = values.new_zeros((groups * rows, cols, grid.bh, grid.bw))
    blocks[_block_places(row_ptr, grid), col_idx.long()] = values.detach()
    whole = blocks.reshape(groups, rows, grid.positions, cols // grid.positions, grid.bh, grid.bw)
    whole = whole.permute(0, 1, 4, 2, 3, 5).reshape(groups, rows * grid.bh, grid.positions, -1)
    weight = whole[:, : grid.m, :, : grid.channels].reshape(groups * grid.m, window[0], window[1], -1)
    return weight.permute(0, 3, 1, 2).contiguous()


def kept_blocks(weight: Tensor, row_ptr: Tensor, col_idx: Tensor, grid: BlockGrid) -> Tensor:
    """dense_kernel's inverse: the kept blocks of (out channels, channels / groups, kh, kw)."""
    groups, (rows, cols) = len(row_ptr), grid.shape
    per = cols // grid.positions
    whole = weight.permute(0, 2, 3, 1).reshape(groups, grid.m, grid.positions, grid.channels)
    more = (0, per * grid.bw - grid.channels, 0, 0, 0, rows * grid.bh - grid.m)
    whole = torch.nn.functional.pad(whole, more)
    blocks = whole.reshape(groups, rows, grid.bh, grid.positions, per, grid.bw).permute(0, 1, 3, 4, 2, 5)
    blocks = blocks.reshape(groups * rows, cols, grid.bh, grid.bw)
    return blocks[_block_places(row_ptr, grid), col_idx.long()]


def dense_conv_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, groups: int, window: list[int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight by torch's dense convolution; those not wanted are undefined."""
    _, stride, padding, dilation = _pairs(window)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False]
    )
    return dx, dw


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    x, values, row_ptr, col_idx, _, _, window = inputs
    ctx.save_for_backward(x if values.requires_grad else None, values, row_ptr, col_idx)
    ctx.in_shape, ctx.window = list(x.shape), window


def _conv_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    x, values, row_ptr, col_idx = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dx = dw = None
    if needs[0]:
        dx = bsr_conv2d_input_gradient(dy, values, row_ptr, col_idx, ctx.in_shape, ctx.window)
    if needs[1]:
        dw = bsr_conv2d_values_gradient(dy, x, values, row_ptr, col_idx, ctx.window)
    return dx, dw, None, None, dy.sum((0, 2, 3)) if needs[4] else None, None, None


bsr_conv2d.register_autograd(_conv_backward, setup_context=_conv_setup)
