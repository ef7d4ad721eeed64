"""A small vision transformer (Dosovitskiy et al., ICLR 2021): four pre-norm layers of 64 over 4 x 4 patches.

The mean over patches takes the class token's place. Projections are plain linear layers, so that pruning and
lowering see each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from pysim.errors import ModelError


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).view(n, tokens, 3, self._heads, width // self._heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.proj(y)
        mixed: Tensor = x + self.fc2(gelu(self.fc1(self.norm2(x))))
        return mixed


class SmallViT(nn.Module):
    """Patches, four transformer layers, a classifier.

    Args:
        in_channels: Channels of the image.
        height: Of the image, a multiple of 4 pixels.
        width: Of the image, a multiple of 4 pixels.
        num_classes: Outputs.

    Raises:
        ModelError: A side is not a multiple of 4.
    """

    def __init__(self, in_channels: int, height: int, width: int, num_classes: int) -> None:
        super().__init__()
        patch, features = 4, 64
        if height % patch or width % patch:
            raise ModelError(f"vit: expected images in multiples of {patch} pixels, got {height} x {width}")
        self.patches = nn.Conv2d(in_channels, features, patch, patch)
        self.position = nn.Parameter(torch.empty(1, (height // patch) * (width // patch), features))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.Sequential(*(_Layer(features, 4) for _ in range(4)))
        self.norm = nn.LayerNorm(features)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.fc(self.norm(self.layers(tokens)).mean(dim=1))
        return logits
