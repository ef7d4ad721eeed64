"""Retraining on the kept blocks alone: pruned layers become pysim's block-sparse ones meanwhile.

What is pruned is then neither multiplied nor given a gradient. Layers that cannot be replaced stay dense
under their mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pysim.sparse import BsrConv2d, BsrLinear, compress, training_form
from pysim.workload import BlockMask


def sparse_twin(
    model: nn.Module, masks: Mapping[str, BlockMask], image: Tensor
) -> tuple[nn.Module, dict[str, BlockMask]]:
    """A copy with block-sparse layers and native batch norm, and the masks of layers that could not be replaced.

    Args:
        model: On the CPU, float32.
        masks: By weight's name.
        image: An input, which shows which layers are called.
    """
    twin = training_form(compress(model, image, masks=masks, only_if_faster=False).model, image)
    dense = {name: mask for name, mask in masks.items() if not _is_sparse(twin, name)}
    return twin, dense


def take_back(model: nn.Module, twin: nn.Module) -> None:
    """Puts what ``twin`` has learnt into ``model``, zeros where it has no blocks."""
    learnt = twin.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("weight") and _is_sparse(twin, name):
                tensor.copy_(_module(twin, name).weight)
            else:
                tensor.copy_(learnt[name])


def _module(model: nn.Module, weight: str) -> nn.Module:
    return model.get_submodule(weight.rpartition(".")[0])


def _is_sparse(model: nn.Module, weight: str) -> bool:
    return isinstance(_module(model, weight), BsrConv2d | BsrLinear)
