"""What may happen between the steps of training: snapshots, and masks that change while weights are learnt.

``GROWING`` lists the methods that prune during training. A hook's whole memory goes through ``state`` and
``load``, so that an interrupted run resumes to the same bits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pysim.pruning import (
    EmptyLayerWarning,
    PruneConfig,
    all_kept,
    block_sparsity,
    cubic,
    element_masks,
    mean_magnitude,
    pack_bits,
    prune_one_shot,
    top_blocks,
    unpack_bits,
)
from pysim.pruning.gradients import Examples
from pysim.pruning.layers import as_matrices, products
from pysim.workload import BlockMask

Masks = Mapping[str, Tensor]
"""Parameter name to a bool tensor of the parameter's shape; False stays zero."""


class StepHook:
    """Told of every training step. This one does nothing; others override what they need."""

    @property
    def masks(self) -> Masks | None:
        """The masks in force; None if the hook has none."""
        return None

    def begin_step(self, model: nn.Module, step: int, total: int) -> None:
        """Called before step ``step`` (0-based) of ``total``."""

    def gradients_ready(self, model: nn.Module, step: int, total: int) -> Masks | None:
        """Called when the step's gradients are there, before they are used; returns masks if they change."""
        return None

    def state(self) -> dict[str, Tensor]:
        """All that must survive an interruption."""
        return {}

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``state`` gave. Raises KeyError or ValueError if it is not that."""


class Snapshot(StepHook):
    """Keeps the weights and statistics as they are before step ``step``, to rewind to."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.tensors: dict[str, Tensor] = {}

    def begin_step(self, model: nn.Module, step: int, total: int) -> None:
        if step == self._step:
            self.tensors = {name: tensor.clone().cpu() for name, tensor in model.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        return self.tensors

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        expected = model.state_dict()
        if tensors and {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in expected.items()}:
            raise ValueError("a snapshot of another model")
        self.tensors = dict(tensors)


class GrowingMasks(StepHook):
    """Masks that change in equal intervals while the first three quarters of the steps last, then stay.

    Args:
        config: What to prune; its sparsity is that of the end.
        examples: Training batches for scores that look at gradients.
        masks: Of earlier pruning, which ``Gradual`` goes on from.
    """

    until = 0.75
    changes = 32

    def __init__(
        self,
        config: PruneConfig,
        examples: Examples = (),
        masks: Mapping[str, BlockMask] | None = None,
    ) -> None:
        self.config = config
        self._examples = examples
        self._earlier = dict(masks or {})
        self.block_masks: dict[str, BlockMask] = {}
        self._elements: Masks | None = None

    @property
    def masks(self) -> Masks | None:
        return self._elements

    def gradients_ready(self, model: nn.Module, step: int, total: int) -> Masks | None:
        last = max(math.floor(self.until * total) - 1, 0)
        interval = max(last // self.changes, 1)
        if step > last or (step % interval and step != last):
            return None
        progress = 1.0 if step == last else step / last
        changed = self.change(model, progress, step // interval)
        if changed is None:
            return None
        self.block_masks = changed
        self._elements = element_masks(model, changed)
        return self._elements

    def change(self, model: nn.Module, progress: float, index: int) -> dict[str, BlockMask] | None:
        """The masks at ``progress`` (0 to 1); 1 is the last change. None leaves them."""
        raise NotImplementedError

    def pruned(
        self,
        model: nn.Module,
        masks: Mapping[str, BlockMask] | None,
        *,
        at_least: bool = False,
        **changes: object,
    ) -> dict[str, BlockMask]:
        """One-shot masks of the present weights, under ``masks``."""
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyLayerWarning)  # said once, of the final masks
            return prune_one_shot(model, config, masks=masks, examples=self._examples, at_least=at_least)

    def state(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(pack_bits(mask.keep)) for name, mask in self.block_masks.items()}

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        kept = all_kept(model, self.config)
        if tensors and set(tensors) != set(kept):
            raise ValueError("masks of other layers")
        self.block_masks = {
            name: BlockMask(grid=kept[name].grid, keep=unpack_bits(bits.numpy(), kept[name].keep.shape))
            for name, bits in tensors.items()
        }
        self._elements = element_masks(model, self.block_masks) if tensors else None


class Gradual(GrowingMasks):
    """Sparsity grows along Zhu and Gupta's cubic, from that of earlier masks; nothing grows back."""

    def change(self, model: nn.Module, progress: float, index: int) -> dict[str, BlockMask]:
        target = self.config.sparsity
        start = block_sparsity(self._earlier)
        sparsity = target if progress == 1.0 else round(cubic(min(start, target), target, progress), 6)
        masks = self.block_masks or self._earlier
        # A layer that earlier masks have left with less than its share makes the total smaller on the way.
        return self.pruned(model, masks, at_least=start <= target, sparsity=sparsity)


class AcDc(GrowingMasks):
    """Compressed and decompressed phases in turn: masks are chosen anew, or lifted; the last is compressed.

    Source: Peste et al., AC/DC, NeurIPS 2021. Every second change lifts all masks.
    """

    changes = 8

    def change(self, model: nn.Module, progress: float, index: int) -> dict[str, BlockMask]:
        if progress == 1.0 or index % 2:
            return self.pruned(model, None)
        return all_kept(model, self.config)


class RigL(GrowingMasks):
    """A sparse start; at every change the weakest blocks go and those of steepest gradient come, as many.

    Starts from random blocks. The share that moves falls from ``drop`` to 0 along a cosine; new blocks start
    at zero.

    Source: Evci et al., Rigging the lottery, ICML 2020, with blocks for weights.
    """

    drop = 0.3

    def change(self, model: nn.Module, progress: float, index: int) -> dict[str, BlockMask] | None:
        if not self.block_masks:
            return self.pruned(model, None, score="random")
        share = self.drop / 2 * (1 + math.cos(math.pi * progress))
        modules = products(model)
        moved = {}
        for name, mask in self.block_masks.items():
            module = modules[name]
            count = min(round(share * mask.blocks_kept), mask.blocks_total - mask.blocks_kept)
            weights = mean_magnitude(as_matrices(module, module.weight, mask.grid.order), mask.grid)
            stay = top_blocks(np.where(mask.keep, weights, -np.inf), mask.blocks_kept - count)
            slope = module.weight.grad
            if slope is None:
                raise ValueError(f"{name}: expected a gradient, got none")
            steep = mean_magnitude(as_matrices(module, slope, mask.grid.order), mask.grid)
            # A block that has just gone may come back, as in the paper; one that stays cannot come twice.
            come = top_blocks(np.where(stay, -np.inf, steep), count)
            moved[name] = BlockMask(grid=mask.grid, keep=stay | come)
        return moved


GROWING: dict[str, Callable[..., GrowingMasks]] = {"gradual": Gradual, "ac-dc": AcDc, "rigl": RigL}
