"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016): 6n + 4 layers of 16k, 32k and 64k channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    """Batch norm and ReLU come before each convolution; the shortcut, too, starts behind them."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(x))
        around = x if self.shortcut is None else self.shortcut(y)
        out: Tensor = around + self.conv2(torch.relu(self.bn2(self.conv1(y))))
        return out


class WideResNet(nn.Module):
    """WRN-depth-width, as in WRN-16-4.

    Args:
        depth: 6n + 4 with n at least 1.
        width: The factor k, at least 1.
        in_channels: Channels of the image.
        num_classes: Outputs.
    """

    def __init__(self, depth: int, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        per_stage, rest = divmod(depth - 4, 6)
        if rest or per_stage < 1 or width < 1:
            raise ValueError(f"WideResNet: expected a depth of 6n + 4 and a width, got {depth} and {width}")
        self.conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        blocks = []
        before = 16
        for channels, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for index in range(per_stage):
                blocks.append(_Block(before, channels, first_stride if index == 0 else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        y = torch.relu(self.bn(self.blocks(self.conv(x))))
        logits: Tensor = self.fc(y.mean(dim=(2, 3)))
        return logits
