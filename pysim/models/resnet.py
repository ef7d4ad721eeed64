"""ResNet for small images (He et al., CVPR 2016, section 4.2): 6n + 2 layers of 16, 32 and 64 channels.

Where the shape changes, the shortcut is a 1 x 1 convolution with batch norm (their option B, as in OpenLTH),
not their parameter-free option A: a shortcut that is a matrix product is work an accelerator must do too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-20, 32, 56 and so on.

    Args:
        depth: 6n + 2 with n at least 1.
        in_channels: Channels of the image.
        num_classes: Outputs.
    """

    def __init__(self, depth: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        per_stage, rest = divmod(depth - 2, 6)
        if rest or per_stage < 1:
            raise ValueError(f"CifarResNet: expected a depth of 6n + 2, got {depth}")
        self.conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks = []
        width = 16
        for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(per_stage):
                blocks.append(_Block(width, channels, first_stride if index == 0 else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        y: Tensor = self.blocks(torch.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(y.mean(dim=(2, 3)))
        return logits
