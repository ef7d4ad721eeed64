"""Which weights pruning may touch, and each of them as the matrices that blocks are cut from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, ModelError
from pysim.sparse import BsrMatrix
from pysim.workload import BlockGrid, BlockMask, Order

Layout = Literal["kh,kw,cin", "kernel", "oihw"]
LAYOUTS: dict[Layout, str] = {
    "kh,kw,cin": "output by input channels at one kernel position; the reduction's channels fastest",
    "kernel": "output by input channels, all kernel positions together",
    "oihw": "outputs by elements in PyTorch's order of a weight; can be trained, not simulated",
}
"""What a block is. Every file of masks names it: masks are not interchangeable."""

# Names that residual networks give to the path around a block (here, torchvision, OpenLTH).
_SHORTCUT_NAMES = ("shortcut", "downsample")

Product = nn.Conv2d | nn.Linear
FloatArray = npt.NDArray[np.floating[Any]]


def products(model: nn.Module) -> dict[str, Product]:
    """Every convolution and linear layer by the name of its weight, in the order of the model's modules."""
    return {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def prunable_weights(
    model: nn.Module, *, prune_all: bool = False, only: Sequence[str] = (), keep_dense: Sequence[str] = ()
) -> list[str]:
    """Names of the weights that pruning may touch, in the order of the model's modules.

    Args:
        model: Any network.
        prune_all: Also the first convolution, the last linear layer, 1 x 1 shortcuts and depthwise
            convolutions, which otherwise stay dense.
        only: Patterns such as ``blocks.*.conv1``; if given, exactly the layers that match one, whatever
            the defaults say. A pattern is compared with the layer's and the weight's whole name.
        keep_dense: Patterns of layers that stay dense in any case.

    Raises:
        ConfigError: A pattern matches no layer.
        ModelError: Nothing is left to prune, or one of these weights is shared by several layers.
    """
    layers = products(model)
    chosen = _matching(only, layers, "only") if only else set(layers)
    if not (only or prune_all):
        chosen -= _dense_by_default(layers)
    chosen -= _matching(keep_dense, layers, "keep-dense")
    names = [name for name in layers if name in chosen]
    if not names:
        raise ModelError("pruning: no convolution or linear layer is left to prune", hint="Try --prune-all.")
    for name in names:
        same = [
            other.removesuffix(".weight") for other in layers if layers[other].weight is layers[name].weight
        ]
        if len(same) > 1:
            raise ModelError(
                f"pruning: expected layers with weights of their own, but {' and '.join(same)} share one",
                hint="Leave them dense: " + " ".join(f"--keep-dense {other}" for other in same),
            )
    return names


def _matching(patterns: Sequence[str], names: Collection[str], option: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = {
            n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n.removesuffix(".weight"), pattern)
        }
        if not hits:
            raise ConfigError(
                f"--{option} {pattern}: expected the name of a layer, none matches",
                hint="Layers: " + ", ".join(name.removesuffix(".weight") for name in names),
            )
        found |= hits
    return found


def _dense_by_default(layers: Mapping[str, Product]) -> set[str]:
    convolutions = [name for name, m in layers.items() if isinstance(m, nn.Conv2d)]
    linears = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    return {
        *convolutions[:1],
        *linears[-1:],
        *(name for name, m in layers.items() if isinstance(m, nn.Conv2d) and _is_path(name, m)),
    }


def _is_path(name: str, module: nn.Conv2d) -> bool:
    """A 1 x 1 shortcut, or a depthwise convolution (whose blocks are single weights)."""
    shortcut = module.kernel_size == (1, 1) and any(part in _SHORTCUT_NAMES for part in name.split("."))
    return shortcut or 1 < module.groups == module.in_channels


def as_matrices(module: Product, values: Tensor, order: Order = "kh,kw,cin") -> FloatArray:
    """``values``, of the shape of the module's weight, as (groups, m, k), k in the order of a grid."""
    values = values.detach().cpu()
    if isinstance(module, nn.Conv2d):
        groups = module.groups
        ordered = values if order == "oihw" else values.permute(0, 2, 3, 1)
        rows = ordered.reshape(groups, values.shape[0] // groups, -1)
    else:
        rows = values[None]
    matrices: FloatArray = rows.contiguous().numpy()
    return matrices


def bsr_matrices(model: nn.Module, masks: Mapping[str, BlockMask]) -> dict[str, list[BsrMatrix]]:
    """Every masked weight as block-sparse matrices, one for each group, ready for kernels and export.

    Raises:
        ConfigError: Blocks straddle kernel positions.
    """
    modules = products(model)
    return {
        name: [
            BsrMatrix.from_dense(w, mask.grid, keep)
            for w, keep in zip(as_matrices(modules[name], modules[name].weight), mask.keep, strict=True)
        ]
        for name, mask in masks.items()
    }


def weight_grid(module: Product, block: tuple[int, int], layout: Layout = "kh,kw,cin") -> BlockGrid:
    """How each group of the module's weight is cut into the blocks of its mask.

    With layout ``kernel`` these are the blocks at one kernel position each, which are kept or go together.
    Where there is one kernel position only, all layouts are the same.
    """
    positions = module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    rows = module.weight.shape[0] // groups
    k = module.weight[0].numel()
    order: Order = "oihw" if layout == "oihw" and positions > 1 else "kh,kw,cin"
    return BlockGrid(m=rows, k=k, positions=positions, bh=block[0], bw=block[1], order=order)


def unit_grid(grid: BlockGrid, layout: Layout) -> BlockGrid:
    """How a weight is cut into what is scored, and kept or pruned, as one."""
    if layout != "kernel" or grid.positions == 1:
        return grid
    return replace(grid, bw=grid.bw * grid.positions, order="oihw")


def weight_groups(module: Product) -> int:
    """Matrix products that the module's weight stands for."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


def element_masks(model: nn.Module, masks: Mapping[str, BlockMask]) -> dict[str, Tensor]:
    """Block masks as bool tensors of their weights' shapes, the form that training re-applies."""
    parameters = dict(model.named_parameters())
    elements = {}
    for name, mask in masks.items():
        weight = parameters[name]
        flat = torch.from_numpy(mask.expand().reshape(weight.shape[0], -1))
        if weight.ndim == 4 and mask.grid.order == "oihw":
            flat = flat.view(weight.shape)
        elif weight.ndim == 4:
            out_channels, channels, height, width = weight.shape
            flat = flat.view(out_channels, height, width, channels).permute(0, 3, 1, 2)
        elements[name] = flat.contiguous(
            memory_format=torch.channels_last if weight.ndim == 4 else torch.contiguous_format
        )
    return elements
