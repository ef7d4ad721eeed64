"""A multilayer perceptron with two hidden layers of 256, all matrix products and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """in_features - 256 - 256 - num_classes with ReLU between."""

    def __init__(self, in_features: int, num_classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        x = torch.relu(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits
