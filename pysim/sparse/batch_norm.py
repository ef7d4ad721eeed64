"""Batch norm for training beside block-sparse layers: one native call with the sum and the ReLU behind it.

PyTorch's own is slower on contiguous images, which the kernels need, than on channels-last ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pysim import _core

_MAX_THREADS = 256


class FusedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``, then perhaps a sum, then perhaps ReLU: relu(norm(x) + residual).

    State, arguments and statistics are those of ``nn.BatchNorm2d``; results differ from its by rounding. The
    native call is for training on float32 images on the CPU, and what it returns is contiguous, whatever the
    layout of x. Everything else, evaluation among it, goes through PyTorch.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> FusedBatchNorm2d:
        """The same layer, which shares its parameters and statistics with ``norm``."""
        fused = cls.__new__(cls)
        nn.Module.__init__(fused)
        fused.__dict__ = {**norm.__dict__}
        return fused

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """Normalises.

        Args:
            x: (N, channels, H, W).
            residual: Of x's shape, or None; added behind the norm.
            relu: Whether negative results become zero.

        Returns:
            Of x's shape.

        Raises:
            ValueError: As ``nn.BatchNorm2d``.
        """
        if not self._is_native(x, residual):
            y = super().forward(x)
            y = y if residual is None else y + residual
            return torch.relu(y) if relu else y
        y, mean, variance = _Norm.apply(x, self.weight, self.bias, residual, relu, self.eps)  # type: ignore[no-untyped-call]
        self._follow(mean, variance)
        return y  # type: ignore[no-any-return]

    def _is_native(self, x: Tensor, residual: Tensor | None) -> bool:
        uses_batch = self.training or self.running_mean is None
        images = (x,) if residual is None else (x, residual)
        numbers = tuple(part for part in (self.weight, self.bias, self.running_mean) if part is not None)
        return (
            uses_batch
            and x.ndim == 4
            and x.shape[1] == self.num_features
            and x.numel() > self.num_features
            and (residual is None or residual.shape == x.shape)
            and all(part.dtype == torch.float32 and part.device.type == "cpu" for part in (*images, *numbers))
            and not torch.compiler.is_compiling()
        )

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics as ``nn.BatchNorm2d`` does."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        factor = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        self.running_mean.mul_(1 - factor).add_(mean, alpha=factor)
        self.running_var.mul_(1 - factor).add_(variance, alpha=factor)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        relu: bool,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # A convolution of one channel returns channels-last images for contiguous ones.
        x, added = x.contiguous(), None if residual is None else residual.contiguous()
        y, mean, inverse, variance = _core.batch_norm(
            x, weight, bias, added, relu=relu, epsilon=epsilon, isa="", threads=_threads()
        )
        ctx.relu = relu
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(x, y if relu and residual is not None else None, weight, bias, mean, inverse)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: object) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, y, weight, bias, mean, inverse = ctx.saved_tensors
        dy = dy.contiguous()
        dx, dweight, dbias, masked = _core.batch_norm_gradient(
            dy, x, y, weight, bias, mean, inverse, relu=ctx.relu, isa="", threads=_threads()
        )
        needs = ctx.needs_input_grad
        return (
            dx if needs[0] else None,
            dweight if needs[1] else None,
            dbias if needs[2] else None,
            (dy if masked is None else masked) if needs[3] else None,
            None,
            None,
        )


def _threads() -> int:
    return min(torch.get_num_threads(), _MAX_THREADS)
