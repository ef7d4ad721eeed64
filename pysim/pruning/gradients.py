"""The gradients that some scores look at. The model is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pysim.errors import ConfigError

Examples = Sequence[tuple[Tensor, Tensor]]
"""Batches of images (B, C, H, W) and labels (B,)."""


def loss_gradients(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Gradient of the mean cross entropy over ``examples``, batch norm on batch statistics, by weight name.

    Raises:
        ConfigError: There are no examples.
    """
    if not examples:
        raise ConfigError("pruning: this score looks at gradients and needs a few training batches, got none")
    copied = copy.deepcopy(model).train()  # running statistics move in the copy alone
    copied.zero_grad()
    count = sum(len(labels) for _, labels in examples)
    device = next(copied.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        for images, labels in examples:
            outputs = copied(images.to(device))
            loss: Tensor = cross_entropy(outputs, labels.to(device), reduction="sum") / count
            loss.backward()
    return _gradients(copied)


def flow_gradients(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Gradient of the summed outputs for an image of ones through the network of absolute weights.

    In double precision: the product over the layers leaves float32's range in deep networks. Running means
    are taken as zero, as they are before training, so that nothing is subtracted from the flow.

    Source: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow,
    NeurIPS 2020.

    Raises:
        ConfigError: There is no example to take the image's shape from.
    """
    if not examples:
        raise ConfigError("pruning: synflow needs the shape of an image, got no training batch")
    copied = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.abs_()
        for module in copied.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.zero_()
    copied.zero_grad()
    shape = examples[0][0].shape[1:]
    device = next(copied.parameters()).device
    flow = copied(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
    flow.backward()
    return _gradients(copied)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def _none(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    return {}


GRADIENTS: dict[str, Callable[[nn.Module, Examples], dict[str, Tensor]]] = {
    "none": _none,
    "loss": loss_gradients,
    "flow": flow_gradients,
}
