"""LeNet-5 and LeNet-300-100 (LeCun et al., 1998) as they are built today: ReLU, and max pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from pysim.errors import ModelError


class LeNet5(nn.Module):
    """Two 5 x 5 convolutions and three linear layers.

    Args:
        in_channels: Channels of the image.
        height: Of the image, at least 12 pixels.
        width: Of the image, at least 12 pixels.
        num_classes: Outputs.

    Raises:
        ModelError: The image is smaller than 12 pixels.
    """

    def __init__(self, in_channels: int, height: int, width: int, num_classes: int) -> None:
        super().__init__()
        if min(height, width) < 12:
            raise ModelError(f"lenet5: expected images of at least 12 x 12 pixels, got {height} x {width}")
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        features = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        self.fc1 = nn.Linear(features, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        x = max_pool2d(torch.relu(self.conv1(x)), 2)
        x = max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class LeNet300(nn.Module):
    """LeNet-300-100: in_features - 300 - 100 - num_classes, the small network of the pruning literature."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        x = torch.relu(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits
