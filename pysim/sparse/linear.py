"""``nn.Linear`` with a block-sparse weight."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pysim.errors import ConfigError, ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.layer import BsrModule, cut, float32, plain
from pysim.sparse.linear_ops import bsr_linear
from pysim.sparse.plans import SpmmPlan
from pysim.workload import BlockGrid, BoolArray


class BsrLinear(BsrModule):
    """``nn.Linear`` with a block-sparse weight.

    Args:
        matrix: W (out_features, in_features).
        bias: (out_features,) or None; copied.

    Raises:
        ConfigError: The matrix has kernel positions.
        ShapeError: The bias has another shape.
    """

    def __init__(self, matrix: BsrMatrix, bias: Tensor | None = None) -> None:
        if matrix.grid.positions != 1:
            raise ConfigError(f"BsrLinear: expected one kernel position, got {matrix.grid.positions}")
        super().__init__([matrix], bias)
        self.out_features, self.in_features = matrix.grid.m, matrix.grid.k

    @classmethod
    def from_dense(cls, linear: nn.Linear, block: tuple[int, int], keep: BoolArray | None = None) -> Self:
        """The kept blocks of ``linear``.

        Args:
            linear: float32 on the CPU; copied.
            block: Height (output features) and width (input features).
            keep: (1, block rows, block columns) as in ``BlockMask``; default: blocks that are not all zero.

        Raises:
            ShapeError: The weight is not float32 on the CPU, or ``keep`` has another shape.
        """
        grid = BlockGrid(m=linear.out_features, k=linear.in_features, bh=block[0], bw=block[1])
        rows = float32(linear.weight)[None]
        module = cls(cut(rows, grid, keep)[0], linear.bias)
        return module.train(linear.training)

    @property
    def weight(self) -> Tensor:
        """W (out_features, in_features), dense, a copy; for code that looks at a linear layer's weight."""
        return torch.from_numpy(self.matrices()[0].to_dense()).to(self.values)

    def to_dense(self) -> nn.Linear:
        """The same layer with a dense weight."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None).to(self.values)
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features).

        Raises:
            ShapeError: Input and weight are not on one device and of one type, or the type is not float32
                (on a GPU also float16 and bfloat16), or the width is another.
            ConfigError: The GPU cannot be used; the message says why.
        """
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeError(f"BsrLinear: expected shape (..., {self.in_features}), got {tuple(x.shape)}")
        tokens = x.reshape(-1, self.in_features)
        if self._as_operator(x):
            y: Tensor = bsr_linear(
                tokens, self.values, self.row_ptr, self.col_idx, self.bias, self.out_features
            )
        elif self._needs_gradients(x):
            y = _LinearFunction.apply(tokens, self.values, self.bias, self)  # type: ignore[no-untyped-call]
        else:
            y = self.multiply(tokens.t().contiguous(), trainable=False).t().contiguous()
        return y.view(*x.shape[:-1], self.out_features)

    def multiply(self, columns: Tensor, *, trainable: bool) -> Tensor:
        """W X + bias for X (in_features, n)."""
        plan = self._plan(
            "trainable" if trainable else "plain",
            lambda matrices, threads: SpmmPlan(
                matrices[0], bias=plain(self.bias), trainable=trainable, threads=threads
            ),
        )
        return plan(columns)

    def gradients(
        self, dy: Tensor, columns: Tensor | None, *, needs_input: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """(W^T dY, dW) for dY (out_features, n); dW is None without ``columns``."""
        dx = None
        if needs_input:
            backward = self._plan(
                "transposed",
                lambda matrices, threads: SpmmPlan(matrices[0], transposed=True, threads=threads),
            )
            dx = backward(dy)
        if columns is None:
            return dx, None
        plan = self._plan(
            "trainable",
            lambda matrices, threads: SpmmPlan(
                matrices[0], bias=plain(self.bias), trainable=True, threads=threads
            ),
        )
        return dx, plan.weight_gradient(dy, columns)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, "
            f"block={self.grid.bh}x{self.grid.bw}, density={self.density:.3f}"
        )


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, module: BsrLinear) -> Tensor:  # noqa: ANN401
        columns = x.t().contiguous()
        ctx.module = module
        ctx.save_for_backward(columns if values.requires_grad else None, values)
        return module.multiply(columns, trainable=True).t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # noqa: ANN401
        columns, _ = ctx.saved_tensors  # raises if the values were changed since
        needs_x, needs_values, needs_bias, _ = ctx.needs_input_grad
        dx, dw = ctx.module.gradients(
            dy.t().contiguous(), columns if needs_values else None, needs_input=needs_x
        )
        return None if dx is None else dx.t(), dw, dy.sum(0) if needs_bias else None, None
