"""Retraining on the kept blocks alone: pruned layers become pysim's block-sparse ones meanwhile.

What is pruned is then neither multiplied nor given a gradient. Layers that cannot be replaced stay dense
under their mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pysim.sparse import BsrConv2d, BsrLinear, compress, training_form
from pysim.sparse.compression import shared_parameters, why_not
from pysim.workload import BlockMask

# Dense convolutions of at most so many weights run on the kernels too, all blocks kept: their weights stay in
# a first-level cache, and images need not change their layout for them and back.
_FEW_WEIGHTS = 1 << 12
_SLAB = (4, 1)


def sparse_twin(
    model: nn.Module, masks: Mapping[str, BlockMask], image: Tensor
) -> tuple[nn.Module, dict[str, BlockMask]]:
    """A copy in the form that trains fastest, and the masks of the layers that could not be replaced.

    Pruned layers are block-sparse; small convolutions run on the same kernels, batch norm is native.

    Args:
        model: On the CPU, float32.
        masks: By weight's name.
        image: An input, which shows which layers are called.
    """
    twin = compress(model, image, masks=masks, only_if_faster=False).model
    dense = {name: mask for name, mask in masks.items() if not _is_sparse(twin, name)}
    _replace_small_convolutions(twin, dense)
    return training_form(twin, image), dense


def take_back(model: nn.Module, twin: nn.Module) -> None:
    """Puts what ``twin`` has learnt into ``model``, zeros where it has no blocks."""
    learnt = twin.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("weight") and _is_sparse(twin, name):
                tensor.copy_(_module(twin, name).weight)
            else:
                tensor.copy_(learnt[name])


def _replace_small_convolutions(twin: nn.Module, masked: Mapping[str, BlockMask]) -> None:
    shared = shared_parameters(twin)
    for name, layer in list(twin.named_modules()):
        if (
            not name
            or not isinstance(layer, nn.Conv2d)
            or f"{name}.weight" in masked
            or why_not(layer, shared, called=True) is not None
            or layer.weight.numel() > _FEW_WEIGHTS
        ):
            continue
        grid = BsrConv2d.from_dense(layer, _SLAB).grid
        keep = np.ones((layer.groups, *grid.shape), dtype=np.bool_)
        kernel = BsrConv2d.from_dense(layer, _SLAB, keep)
        kernel.values.requires_grad_(layer.weight.requires_grad)
        if kernel.bias is not None and layer.bias is not None:
            kernel.bias.requires_grad_(layer.bias.requires_grad)
        parent, _, own = name.rpartition(".")
        setattr(twin.get_submodule(parent), own, kernel)


def _module(model: nn.Module, weight: str) -> nn.Module:
    return model.get_submodule(weight.rpartition(".")[0])


def _is_sparse(model: nn.Module, weight: str) -> bool:
    return isinstance(_module(model, weight), BsrConv2d | BsrLinear)
