"""Depthwise separable convolutions in the manner of MobileNet (Howard et al., 2017), for small images.

Not the paper's network: 3 x 3 depthwise then 1 x 1 pointwise as there, but seven such pairs, up to 256
channels, and only two of them with stride 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PAIRS = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1))


class _Separable(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(y)))


class SmallMobileNet(nn.Module):
    """A convolution, seven depthwise separable pairs, a classifier.

    Args:
        in_channels: Channels of the image.
        num_classes: Outputs.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = 32
        self.conv = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        pairs = []
        for channels, stride in _PAIRS:
            pairs.append(_Separable(width, channels, stride))
            width = channels
        self.pairs = nn.Sequential(*pairs)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        y = self.pairs(torch.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(y.mean(dim=(2, 3)))
        return logits
