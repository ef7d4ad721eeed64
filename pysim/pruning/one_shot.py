"""One-shot block pruning by mean magnitude, layer by layer. Fine-tuning is training's business.

By default the first convolution, the classifier and 1 x 1 shortcuts stay dense: a percent of the weights, and
the layers that suffer most (see docs/pruning.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, ModelError
from pysim.pruning.scores import kept_count, mean_magnitude, top_blocks
from pysim.workload import BlockGrid, BlockMask

# Names that residual networks give to the path around a block (here, torchvision, OpenLTH).
_SHORTCUT_NAMES = ("shortcut", "downsample")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """What to prune.

    Args:
        block: Height (output channels) and width (input channels at one kernel position), each at least 1.
        sparsity: Share of each prunable layer's blocks to remove, from 0 to below 1.
        prune_all: Also prune the first convolution, the classifier and 1 x 1 shortcuts.

    Raises:
        ConfigError: A field is out of range.
    """

    block: tuple[int, int]
    sparsity: float
    prune_all: bool = False

    def __post_init__(self) -> None:
        if len(self.block) != 2 or min(self.block) < 1:
            raise ConfigError(f"block: expected height and width of at least 1, got {self.block}")
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity: expected from 0 to below 1, got {self.sparsity}")


def _products(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def prunable_weights(model: nn.Module, *, prune_all: bool = False) -> list[str]:
    """Names of the weights that pruning may touch, in the order of the model's modules.

    Raises:
        ModelError: Nothing is left to prune.
    """
    products = _products(model)
    dense: set[str] = set()
    if not prune_all:
        convolutions = [name for name, m in products.items() if isinstance(m, nn.Conv2d)]
        linears = [name for name, m in products.items() if isinstance(m, nn.Linear)]
        dense.update(convolutions[:1], linears[-1:])
        dense.update(
            name
            for name, m in products.items()
            if isinstance(m, nn.Conv2d)
            and m.kernel_size == (1, 1)
            and any(part in _SHORTCUT_NAMES for part in name.split("."))
        )
    names = [f"{name}.weight" for name in products if name not in dense]
    if not names:
        raise ModelError("pruning: no convolution or linear layer is left to prune", hint="Try --prune-all.")
    return names


def weight_matrices(module: nn.Conv2d | nn.Linear) -> npt.NDArray[np.float32]:
    """The module's weight as (groups, m, k), k ordered (kh, kw, cin)."""
    weight = module.weight.detach()
    if isinstance(module, nn.Conv2d):
        groups = module.groups
        rows = weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)
    else:
        rows = weight[None]
    matrices: npt.NDArray[np.float32] = rows.contiguous().numpy()
    return matrices


def _grid(module: nn.Conv2d | nn.Linear, block: tuple[int, int]) -> BlockGrid:
    _, m, k = weight_matrices(module).shape
    positions = module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1
    return BlockGrid(m=m, k=k, positions=positions, bh=block[0], bw=block[1])


def prune_one_shot(model: nn.Module, config: PruneConfig) -> dict[str, BlockMask]:
    """Keeps the blocks of highest mean magnitude in every prunable layer and zeroes the others in place.

    Returns:
        Weight name to its mask; each keeps exactly ``kept_count`` blocks.
    """
    modules = _products(model)
    masks = {}
    for name in prunable_weights(model, prune_all=config.prune_all):
        module = modules[name.removesuffix(".weight")]
        grid = _grid(module, config.block)
        scores = mean_magnitude(weight_matrices(module), grid)
        masks[name] = BlockMask(grid=grid, keep=top_blocks(scores, kept_count(scores.size, config.sparsity)))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in element_masks(model, masks).items():
            parameters[name].mul_(mask)
    return masks


def element_masks(model: nn.Module, masks: Mapping[str, BlockMask]) -> dict[str, Tensor]:
    """Block masks as bool tensors of their weights' shapes, the form that training re-applies."""
    parameters = dict(model.named_parameters())
    elements = {}
    for name, mask in masks.items():
        weight = parameters[name]
        flat = torch.from_numpy(mask.expand().reshape(weight.shape[0], -1))
        if weight.ndim == 4:
            out_channels, channels, height, width = weight.shape
            flat = flat.view(out_channels, height, width, channels).permute(0, 3, 1, 2)
        elements[name] = flat.contiguous(
            memory_format=torch.channels_last if weight.ndim == 4 else torch.contiguous_format
        )
    return elements
