"""Networks as lists of products, with random masks that keep a tenth of the blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pysim.workload import BlockGrid, BoolArray, ConvGeometry

KEPT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """W (m, k) of a layer, and what it is multiplied with."""

    grid: BlockGrid
    mask: BoolArray
    n: int
    conv: ConvGeometry | None


def _linear(rng: np.random.Generator, m: int, k: int, n: int, block: int) -> Product:
    grid = BlockGrid(m=m, k=k, bh=block, bw=block)
    return Product(grid=grid, mask=rng.random(grid.shape) < KEPT, n=n, conv=None)


def _conv(
    rng: np.random.Generator, channels: tuple[int, int], side: int, kernel: int, stride: int, block: int
) -> Product:
    padding = kernel // 2
    out = (side + 2 * padding - kernel) // stride + 1
    conv = ConvGeometry(
        batch=1,
        in_channels=channels[0],
        height=side,
        width=side,
        out_height=out,
        out_width=out,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(1, 1),
    )
    positions = kernel * kernel
    grid = BlockGrid(m=channels[1], k=channels[0] * positions, positions=positions, bh=block, bw=block)
    return Product(grid=grid, mask=rng.random(grid.shape) < KEPT, n=out * out, conv=conv)


def resnet20(block: int) -> list[Product]:
    """The 18 prunable convolutions at 28 x 28."""
    rng = np.random.default_rng(0)
    layers = [_conv(rng, (16, 16), 28, 3, 1, block) for _ in range(6)]
    for channels, side in ((16, 28), (32, 14)):
        layers.append(_conv(rng, (channels, 2 * channels), side, 3, 2, block))
        layers += [_conv(rng, (2 * channels, 2 * channels), side // 2, 3, 1, block) for _ in range(5)]
    return layers


def resnet50(block: int) -> list[Product]:
    """All 53 convolutions at 224 x 224 and the classifier, stride in the 3 x 3 ones."""
    rng = np.random.default_rng(0)
    layers = [_conv(rng, (3, 64), 224, 7, 2, block)]
    channels, side = 64, 56
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for unit in range(units):
            stride = 2 if unit == 0 and stage > 0 else 1
            layers.append(_conv(rng, (channels, width), side, 1, 1, block))
            layers.append(_conv(rng, (width, width), side, 3, stride, block))
            layers.append(_conv(rng, (width, 4 * width), side // stride, 1, 1, block))
            if unit == 0:
                layers.append(_conv(rng, (channels, 4 * width), side, 1, stride, block))
            channels, side = 4 * width, side // stride
    return [*layers, _linear(rng, 1000, channels, 1, block)]


def decoder_7b(tokens: int) -> list[Product]:
    """The 225 linear layers of a decoder of 32 blocks, width 4096, in blocks of 16 x 16.

    Source: LLaMA 7B (Touvron et al., 2023): hidden width 4096, feed-forward width 11008, 32000 words.
    """
    rng = np.random.default_rng(0)
    block = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    return [_linear(rng, m, k, tokens, 16) for m, k in [*block * 32, (32000, 4096)]]
