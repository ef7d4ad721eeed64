"""Several networks of one architecture trained side by side, as one network with a leading dimension.

A small network cannot fill a GPU; several at once can. Parameters, buffers, images and labels get a first
dimension of networks, and ``torch.func.vmap`` turns every operation into one over all of them. Nothing in a
step connects two networks: each has its own images, loss, gradient, statistics and momentum.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pysim.errors import ConfigError
from pysim.training.batches import Batches

_PREFIX = "network."


class Stack(nn.Module):
    """Networks as one: its parameters and buffers are theirs, one behind the other.

    Args:
        models: At least one, of one architecture. They are left as they are. What a network keeps outside of
            parameters and buffers is taken from the first.

    Raises:
        ConfigError: Their parameters or buffers are not alike.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        kinds = [{n: (t.shape, t.dtype) for n, t in _tensors(model).items()} for model in models]
        if any(kind != kinds[0] for kind in kinds):
            raise ConfigError("training together: expected networks of one architecture, got several")
        self.network = copy.deepcopy(models[0])
        every = [_tensors(model) for model in models]
        for name, tensor in _tensors(self.network).items():
            # In place, so that a parameter that several modules share stays one.
            tensor.data = torch.stack([tensors[name].detach() for tensors in every])

    def forward(self, images: Tensor) -> Tensor:
        """(S, B, C, H, W) to (S, B, classes): the images of each network through that network.

        Raises:
            ConfigError: ``vmap`` cannot run the network.
        """

        def one(tensors: dict[str, Tensor], own: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self.network, tensors, (own,))
            return outputs

        try:
            outputs: Tensor = vmap(one)(_tensors(self.network), images)
        except RuntimeError as error:
            raise ConfigError(
                f"training together: the network cannot be run several at once: {error}",
                hint="Leave out --seeds-together. Networks that draw random numbers (dropout) or look at "
                "values cannot be.",
            ) from error
        return outputs


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def split(tensors: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The state of a stack as those of its ``count`` networks."""
    return [
        {name.removeprefix(_PREFIX): tensor[i].clone() for name, tensor in tensors.items()}
        for i in range(count)
    ]


def stack_masks(masks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Masks of each network as masks of the stack."""
    return {_PREFIX + name: torch.stack([own[name] for own in masks]) for name in masks[0]}


class StackBatches:
    """For each network the batches that it would get alone, (S, B, C, H, W) and (S, B).

    Args:
        batches: Where the images are.
        seeds: One a network.
    """

    def __init__(self, batches: Batches, seeds: Sequence[int]) -> None:
        self._batches = batches
        self._seeds = tuple(seeds)
        self.device = batches.device
        self.train_count = batches.train_count

    def train(self, batch_size: int, *, seed: int, epoch: int, flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """As in ``Batches``, with the networks' own seeds instead of ``seed``."""
        epochs = [self._batches.train(batch_size, seed=own, epoch=epoch, flip=flip) for own in self._seeds]
        for batch in zip(*epochs, strict=True):
            images, labels = zip(*batch, strict=True)
            yield torch.stack(images), torch.stack(labels)
