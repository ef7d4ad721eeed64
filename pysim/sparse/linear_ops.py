"""``pysim::bsr_linear`` and its gradients as torch operators: torch.compile and torch.export pass through.

On the CPU they run the CPU kernels, on a GPU those of ``pysim.sparse.gpu``.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pysim.sparse.packing import check_devices, gpu_plan, keep, matrices, packed, plain_bias, threads
from pysim.sparse.plans import SpmmPlan
from pysim.workload import BlockGrid

# Bytes of gathered activations that a weight gradient on a GPU may hold at a time.
_GATHERED_BYTES = 2**28


@torch.library.custom_op("pysim::bsr_linear", mutates_args=())
def bsr_linear(
    x: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    bias: Optional[Tensor],  # noqa: UP045  # torch reads the schema from these
    out_features: int,
) -> Tensor:
    """x W^T + bias.

    Args:
        x: (n, in features).
        values: (nnz_blocks, bh, bw).
        row_ptr: (1, block rows + 1) int64.
        col_idx: (nnz_blocks,) int32.
        bias: (out features,) or None.
        out_features: Rows of W.

    Returns:
        (n, out features), contiguous.

    Raises:
        ShapeError: Tensors on several devices, of several or other types, or indices out of place.
        ConfigError: The GPU cannot be used.
    """
    check_devices(x, values, row_ptr, col_idx, bias)
    grid = _linear_grid(values, out_features, x.shape[1])
    if x.device.type == "cpu":
        plan = keep(
            ("linear", grid, threads()),
            (values, row_ptr, col_idx) if bias is None else (values, row_ptr, col_idx, bias),
            lambda: SpmmPlan(
                matrices(grid, values, row_ptr, col_idx)[0], bias=plain_bias(bias), threads=threads()
            ),
        )
        return plan(x.detach().t().contiguous()).t().contiguous()
    return linear_on_gpu(x, values, row_ptr, col_idx, bias, grid)


def linear_on_gpu(
    x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, bias: Tensor | None, grid: BlockGrid
) -> Tensor:
    """x W^T + bias by the GPU kernels; on the CPU by their emulation."""
    plan, _ = gpu_plan(grid, values, row_ptr, col_idx, x.shape[0])
    return plan.multiply(packed(plan, values, bias), x.detach())


def _linear_grid(values: Tensor, out_features: int, in_features: int) -> BlockGrid:
    return BlockGrid(m=out_features, k=in_features, bh=values.shape[1], bw=values.shape[2])


@bsr_linear.register_fake
def _(
    x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, bias: Tensor | None, out_features: int
) -> Tensor:
    return x.new_empty((x.shape[0], out_features))


@torch.library.custom_op("pysim::bsr_linear_input_gradient", mutates_args=())
def bsr_linear_input_gradient(
    dy: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, in_features: int
) -> Tensor:
    """dy W (n, in features) for dy (n, out features)."""
    check_devices(dy, values, row_ptr, col_idx, None)
    grid = _linear_grid(values, dy.shape[1], in_features)
    if dy.device.type == "cpu":
        plan = keep(
            ("linear transposed", grid, threads()),
            (values, row_ptr, col_idx),
            lambda: SpmmPlan(matrices(grid, values, row_ptr, col_idx)[0], transposed=True, threads=threads()),
        )
        return plan(dy.t().contiguous()).t().contiguous()
    return linear_input_gradient_on_gpu(dy, values, row_ptr, col_idx, grid)


def linear_input_gradient_on_gpu(
    dy: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, grid: BlockGrid
) -> Tensor:
    """The same by the GPU kernels on W^T; on the CPU by their emulation."""
    plan, order = gpu_plan(grid, values, row_ptr, col_idx, dy.shape[0], transposed=True)
    return plan.multiply(packed(plan, values, None, order), dy)


@bsr_linear_input_gradient.register_fake
def _(dy: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, in_features: int) -> Tensor:
    return dy.new_empty((dy.shape[0], in_features))


@torch.library.custom_op("pysim::bsr_linear_values_gradient", mutates_args=())
def bsr_linear_values_gradient(
    dy: Tensor, x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor
) -> Tensor:
    """dy^T x at the kept blocks, (nnz_blocks, bh, bw)."""
    check_devices(x, values, row_ptr, col_idx, None)
    grid = _linear_grid(values, dy.shape[1], x.shape[1])
    if x.device.type == "cpu":
        plan = keep(
            ("linear trainable", grid, threads()),
            (values, row_ptr, col_idx),
            lambda: SpmmPlan(matrices(grid, values, row_ptr, col_idx)[0], trainable=True, threads=threads()),
        )
        return plan.weight_gradient(dy.t().contiguous(), x.detach().t().contiguous())
    return gathered_values_gradient(dy, x.detach(), row_ptr, col_idx, grid)


def gathered_values_gradient(
    dy: Tensor, x: Tensor, row_ptr: Tensor, col_idx: Tensor, grid: BlockGrid
) -> Tensor:
    """dy^T x at the kept blocks by torch's batched product of gathered rows; any device."""
    n = x.shape[0]
    rows = torch.repeat_interleave(torch.arange(grid.shape[0], device=x.device), row_ptr[0].diff())
    # Ragged blocks read zeros behind the matrix.
    left = torch.nn.functional.pad(dy.t(), (0, 0, 0, grid.shape[0] * grid.bh - grid.m))
    right = torch.nn.functional.pad(x.t(), (0, 0, 0, grid.shape[1] * grid.bw - grid.k))
    left = left.reshape(grid.shape[0], grid.bh, n)
    right = right.reshape(grid.shape[1], grid.bw, n)
    found = x.new_zeros((len(col_idx), grid.bh, grid.bw))
    each = max(1, _GATHERED_BYTES // max(1, (grid.bh + grid.bw) * n * x.element_size()))
    for begin in range(0, len(col_idx), each):
        part = slice(begin, begin + each)
        found[part] = torch.bmm(left[rows[part]], right[col_idx[part].long()].transpose(1, 2))
    return found


@bsr_linear_values_gradient.register_fake
def _(dy: Tensor, x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    x, values, row_ptr, col_idx, _, _ = inputs
    ctx.save_for_backward(x if values.requires_grad else None, values, row_ptr, col_idx)
    ctx.in_features = x.shape[1]


def _linear_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    x, values, row_ptr, col_idx = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dy = dy.contiguous()
    dx = bsr_linear_input_gradient(dy, values, row_ptr, col_idx, ctx.in_features) if needs[0] else None
    dw = bsr_linear_values_gradient(dy, x, values, row_ptr, col_idx) if needs[1] else None
    return dx, dw, None, None, dy.sum(0) if needs[4] else None, None


bsr_linear.register_autograd(_linear_backward, setup_context=_linear_setup)
