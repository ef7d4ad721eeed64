"""Pruning once: scores, counts, masks, zeros. Schedules repeat it; fine-tuning is training's business.

By default the first convolution, the classifier, 1 x 1 shortcuts and depthwise convolutions stay dense (see
docs/pruning.md).
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pysim.errors import ConfigError, ShapeError
from pysim.pruning.dead import EmptyLayerWarning, dead_parts
from pysim.pruning.gradients import GRADIENTS, Examples
from pysim.pruning.layers import (
    LAYOUTS,
    Layout,
    Product,
    as_matrices,
    element_masks,
    products,
    prunable_weights,
    unit_grid,
    weight_grid,
    weight_groups,
)
from pysim.pruning.scopes import SCOPES, LayerScores
from pysim.pruning.scores import SCORES, Float64Array, ScoreInput, kept_count, top_blocks
from pysim.workload import BlockGrid, BlockMask, BoolArray

MASK_CONTROLS = ("keep", "shuffle", "random")
"""What becomes of the chosen mask: itself; its blocks at random places of their layer; random blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """What to prune.

    Args:
        block: Height (output channels) and width (input channels at one kernel position), each at least 1.
        sparsity: Share of the prunable blocks to remove, from 0 to below 1.
        prune_all: Also prune what stays dense by default.
        score: A name in ``SCORES``.
        scope: A name in ``SCOPES``.
        layout: What a block is, a name in ``LAYOUTS``.
        structured: The blocks of a block row go together; with height 1, whole filters.
        mask: A control, see ``MASK_CONTROLS``.
        only: Patterns of the layers to prune; empty for the default ones.
        keep_dense: Patterns of layers that stay dense.
        seed: Of random scores and controls.

    Raises:
        ConfigError: A field is out of range.
    """

    block: tuple[int, int]
    sparsity: float
    prune_all: bool = False
    score: str = "l1"
    scope: str = "layer"
    layout: Layout = "kh,kw,cin"
    structured: bool = False
    mask: str = "keep"
    only: tuple[str, ...] = ()
    keep_dense: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.block) != 2 or min(self.block) < 1:
            raise ConfigError(f"block: expected height and width of at least 1, got {self.block}")
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity: expected from 0 to below 1, got {self.sparsity}")
        for field, known in (
            ("score", SCORES),
            ("scope", SCOPES),
            ("layout", LAYOUTS),
            ("mask", MASK_CONTROLS),
        ):
            if getattr(self, field) not in known:
                raise ConfigError(
                    f"{field}: expected one of {', '.join(known)}, got {getattr(self, field)!r}"
                )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed: expected from 0 to 2**32 - 1, got {self.seed}")


def prune_one_shot(
    model: nn.Module,
    config: PruneConfig,
    *,
    masks: Mapping[str, BlockMask] | None = None,
    examples: Examples = (),
    at_least: bool = False,
) -> dict[str, BlockMask]:
    """Keeps the best blocks and zeroes the others in place.

    Args:
        model: Any network.
        config: What to prune.
        masks: Of earlier pruning. Only their kept blocks are candidates, so that nothing grows back, except
            under a mask control, which may choose any block. Layers that ``config`` does not touch keep their
            mask.
        examples: A few training batches, for scores that look at gradients.
        at_least: Earlier masks that keep fewer blocks than asked for may do so; otherwise they are refused.

    Returns:
        Weight name to its mask. The kept units (blocks, or block rows if structured) are exactly
        ``kept_count`` of all units: layer by layer with scope ``layer``, in total with the others.

    Raises:
        ConfigError: More blocks are to be kept than earlier masks left, or a score is not finite.
        ModelError: There is nothing to prune.
        ShapeError: Earlier masks are of another model or block size.
    """
    earlier = dict(masks or {})
    modules = products(model)
    current = all_kept(model, config)
    names = list(current)
    for name in names:
        if name in earlier:
            _check_same(name, earlier[name], current[name])
            current[name] = earlier[name]
    check_layout(model, current, config.layout)
    whole = {name: modules[name].weight.detach().clone() for name in names}
    if not at_least:
        _check_shrinks(config, current)
    score = SCORES[config.score]
    for step in range(1, score.rounds + 1):
        layers = _layer_scores(model, config, current, examples)
        counts = SCOPES[config.scope](layers, _round_sparsity(config.sparsity, step, score.rounds))
        current = _best(current, layers, counts)
        apply_block_masks(model, current)
    if config.mask != "keep":
        current = _control(config, current, modules)
    with torch.no_grad():
        for name in names:
            modules[name].weight.copy_(whole[name])
    result = earlier | current
    apply_block_masks(model, result)
    for part in dead_parts(current):
        if part.empty:
            warnings.warn(f"{part.weight}: no block is left", EmptyLayerWarning, stacklevel=2)
    return result


def block_sparsity(masks: Mapping[str, BlockMask]) -> float:
    """Share of the blocks that is pruned, 0 to 1; 0 without masks."""
    total = sum(mask.blocks_total for mask in masks.values())
    return 1 - sum(mask.blocks_kept for mask in masks.values()) / total if total else 0.0


def miscounted_layers(masks: Mapping[str, BlockMask], config: PruneConfig) -> list[str]:
    """Layers that do not keep the count which ``config`` asks for: none, unless something went wrong.

    Scope ``layer`` asks it of each layer; the others ask it in total, so that all layers are in question.
    """
    units = {name: _units(mask, config) for name, mask in masks.items()}
    if config.scope == "layer":
        return [name for name, unit in units.items() if unit.sum() != kept_count(unit.size, config.sparsity)]
    kept = sum(int(unit.sum()) for unit in units.values())
    return (
        [] if kept == kept_count(sum(unit.size for unit in units.values()), config.sparsity) else list(masks)
    )


def all_kept(model: nn.Module, config: PruneConfig) -> dict[str, BlockMask]:
    """Masks of everything that ``config`` may prune, nothing pruned."""
    modules = products(model)
    names = prunable_weights(
        model, prune_all=config.prune_all, only=config.only, keep_dense=config.keep_dense
    )
    return {
        name: BlockMask.all_kept(
            weight_grid(modules[name], config.block, config.layout), weight_groups(modules[name])
        )
        for name in names
    }


def apply_block_masks(model: nn.Module, masks: Mapping[str, BlockMask]) -> None:
    """Zeroes the weights of every block that is not kept, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in element_masks(model, masks).items():
            parameters[name].mul_(mask.to(parameters[name].device))


def check_masks(model: nn.Module, masks: Mapping[str, BlockMask]) -> None:
    """Raises ShapeError unless every mask belongs to a weight of ``model``."""
    modules = products(model)
    for name, mask in masks.items():
        if name not in modules:
            raise ShapeError(f"mask of {name}: the model has no such weight")
        layout: Layout = "oihw" if mask.grid.order == "oihw" else "kh,kw,cin"
        grid = weight_grid(modules[name], (mask.grid.bh, mask.grid.bw), layout)
        _check_same(name, mask, BlockMask.all_kept(grid, weight_groups(modules[name])))


def check_layout(model: nn.Module, masks: Mapping[str, BlockMask], layout: Layout) -> None:
    """Raises ShapeError unless the masks of ``model`` keep and prune what is a block in ``layout``."""
    modules = products(model)
    for name, mask in masks.items():
        expected = weight_grid(modules[name], (mask.grid.bh, mask.grid.bw), layout).order
        if mask.grid.order != expected:
            raise ShapeError(f"mask of {name}: expected the order {expected}, got {mask.grid.order}")
        if layout == "kernel":
            kernels = _by_position(mask.keep, mask.grid)
            if (kernels != kernels[:, :, :1]).any():
                raise ShapeError(f"mask of {name}: expected whole kernels, got some positions of one")


def _check_same(name: str, mask: BlockMask, expected: BlockMask) -> None:
    if mask.grid != expected.grid or mask.keep.shape != expected.keep.shape:
        raise ShapeError(
            f"mask of {name}: expected {_describe(expected)}, got {_describe(mask)}",
            hint="Masks of one block size and layout cannot be pruned further at another.",
        )


def _describe(mask: BlockMask) -> str:
    g = mask.grid
    order = "" if g.order == "kh,kw,cin" else f" in order {g.order}"
    return f"{len(mask.keep)} x ({g.m}, {g.k}) of {g.positions} positions in blocks of {g.bh} x {g.bw}{order}"


def _units(mask: BlockMask, config: PruneConfig) -> BoolArray:
    """What is kept or goes as one: a block, a block's kernels (groups, rows, 1, columns), or a block row."""
    if config.structured:
        return np.logical_or.reduce(mask.keep, axis=2, keepdims=True)
    if config.layout == "kernel":
        return np.logical_or.reduce(_by_position(mask.keep, mask.grid), axis=2, keepdims=True)
    return mask.keep


def _by_position(keep: BoolArray, grid: BlockGrid) -> BoolArray:
    """(groups, block rows, positions, block columns of one)."""
    return keep.reshape(*keep.shape[:2], grid.positions, -1)


def _within(mask: BlockMask, units: BoolArray) -> BlockMask:
    """The kept blocks of ``mask`` that belong to the units which are True."""
    if units.ndim == 4:
        keep = (_by_position(mask.keep, mask.grid) & units).reshape(mask.keep.shape)
    else:
        keep = mask.keep & units
    return BlockMask(grid=mask.grid, keep=keep)


def _check_shrinks(config: PruneConfig, current: Mapping[str, BlockMask]) -> None:
    units = [_units(mask, config) for mask in current.values()]
    sizes = [unit.size for unit in units] if config.scope == "layer" else [sum(unit.size for unit in units)]
    asked = sum(kept_count(size, config.sparsity) for size in sizes)
    alive = sum(int(unit.sum()) for unit in units)
    if asked > alive and config.mask == "keep":
        raise ConfigError(
            f"sparsity {config.sparsity}: expected at least that of the model's masks, which keep {alive} of "
            f"{sum(unit.size for unit in units)} blocks; pruned blocks do not grow back",
            hint="Ask for more sparsity, or start from dense weights.",
        )


def _round_sparsity(sparsity: float, step: int, rounds: int) -> float:
    """Exponential, as SynFlow's: in each round the same share of what is left goes."""
    return sparsity if step == rounds else 1 - (1 - sparsity) ** (step / rounds)


def layer_rng(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one layer: they do not depend on which other layers there are."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _layer_scores(
    model: nn.Module, config: PruneConfig, current: Mapping[str, BlockMask], examples: Examples
) -> list[LayerScores]:
    modules = products(model)
    score = SCORES[config.score]
    gradients = GRADIENTS[score.gradients](model, examples)
    layers = []
    for name, mask in current.items():
        module = modules[name]
        gradient = gradients.get(name)
        grid = unit_grid(mask.grid, config.layout)
        inputs = ScoreInput(
            weights=as_matrices(module, module.weight, grid.order),
            gradients=None if gradient is None else as_matrices(module, gradient, grid.order),
            grid=grid,
            rng=layer_rng(config.seed, name),
        )
        values = score.value(inputs)
        if not np.isfinite(values).all():
            raise ConfigError(f"pruning: the {config.score} score of {name} is not finite")
        layers.append(_layer(values, mask, module, config))
    return layers


def _layer(values: Float64Array, mask: BlockMask, module: Product, config: PruneConfig) -> LayerScores:
    """Of ``values`` for what ``unit_grid`` cuts."""
    units = _units(mask, config)
    if config.structured:
        sizes = unit_grid(mask.grid, config.layout).sizes()
        values = (values * sizes).sum(axis=2, keepdims=True) / sizes.sum(axis=1, keepdims=True)
    scores = np.where(units, values.reshape(units.shape), -np.inf)
    return LayerScores(scores=scores, dims=tuple(module.weight.shape))


def _best(
    current: Mapping[str, BlockMask], layers: Sequence[LayerScores], counts: Sequence[int]
) -> dict[str, BlockMask]:
    return {
        name: _within(mask, top_blocks(layer.scores, count))
        for (name, mask), layer, count in zip(current.items(), layers, counts, strict=True)
    }


def _control(
    config: PruneConfig, chosen: Mapping[str, BlockMask], modules: Mapping[str, Product]
) -> dict[str, BlockMask]:
    """The mask that stands in for the chosen one, any block being a candidate."""
    free = {name: BlockMask.all_kept(mask.grid, len(mask.keep)) for name, mask in chosen.items()}
    layers = []
    for name, mask in free.items():
        shape = (len(mask.keep), *unit_grid(mask.grid, config.layout).shape)
        numbers = layer_rng(config.seed, f"control {name}").random(shape)
        layers.append(_layer(numbers, mask, modules[name], config))
    kept = [int(_units(mask, config).sum()) for mask in chosen.values()]
    counts = kept if config.mask == "shuffle" else SCOPES[config.scope](layers, config.sparsity)
    return _best(free, layers, counts)
