"""The ways to prune, as plans: which levels, from which weights, retrained how. ``METHODS`` is the one list.

A level prunes and then retrains. Retraining is fine-tuning (small steps, few epochs) or the dense network's
own schedule, from its start or from the step that is rewound to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from pysim.errors import ConfigError
from pysim.pruning import PruneConfig, level_sparsities
from pysim.training import TrainConfig

Init = Literal["keep", "rewind", "reinit"]
INITS: tuple[Init, ...] = ("keep", "rewind", "reinit")
"""Weights that retraining starts from: those there are; those of the rewinding step; fresh ones."""


DENSE_LR = 0.15
"""Highest learning rate of a dense network's schedule: for networks with batch norm. Others need less."""


def finetune_config(epochs: int, seed: int, *, bf16: bool = False) -> TrainConfig:
    """How a pruned network is trained on: in smaller steps and more of them than a dense one from scratch.

    docs/decisions.md has the comparison.
    """
    return TrainConfig(epochs=epochs, batch_size=64, peak_lr=0.02, seed=seed, bf16=bf16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to prune.

    Args:
        summary: One line for lists.
        iterative: A level for every ``level_rate`` of what remains, instead of one.
        init: Weights that each level's retraining starts from.
        retrain: Fine-tuning, or the dense network's schedule.
        growing: Masks that change during training, a name in ``pysim.training.GROWING``.
        untrained: Starts from a network as it was initialised.
    """

    summary: str
    iterative: bool = False
    init: Init = "keep"
    retrain: Literal["finetune", "schedule"] = "finetune"
    growing: str | None = None
    untrained: bool = False


METHODS: dict[str, Method] = {
    "one-shot": Method(summary="prune once, fine-tune"),
    "gradual": Method(summary="sparsity grows along a cubic while fine-tuning", growing="gradual"),
    "imp": Method(
        summary="level by level; after each, weights and schedule rewind to an early step",
        iterative=True,
        init="rewind",
        retrain="schedule",
    ),
    "imp-finetune": Method(summary="level by level; fine-tune after each", iterative=True),
    "lr-rewind": Method(
        summary="level by level; after each, only the learning rate rewinds",
        iterative=True,
        retrain="schedule",
    ),
    "at-init": Method(summary="prune before training, then train", untrained=True, retrain="schedule"),
    "ac-dc": Method(
        summary="dense and compressed phases in turn, from untrained weights",
        untrained=True,
        retrain="schedule",
        growing="ac-dc",
    ),
    "rigl": Method(
        summary="sparse from the start; blocks move to where gradients are steep",
        untrained=True,
        retrain="schedule",
        growing="rigl",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Prune once, retrain once.

    Args:
        prune: What to prune, with this level's sparsity.
        retrain: How to train then.
        init: Weights that training starts from.
        start_step: Step of the schedule that training starts at.
        growing: Masks change during training instead of before.
        sparse: Retrain on pysim's block-sparse layers.
    """

    prune: PruneConfig
    retrain: TrainConfig
    init: Init = "keep"
    start_step: int = 0
    growing: str | None = None
    sparse: bool = False

    def to_json(self) -> dict[str, object]:
        """Every field, for content keys."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a method does for one block size and seed.

    Args:
        levels: In order; each starts from what the one before left.
        dense_epochs: Training before the first level.
        from_scratch: The dense network must be trained here, not loaded.
        snapshot_step: Step of dense training whose weights are kept; None if none are needed.
    """

    levels: tuple[Level, ...]
    dense_epochs: int
    from_scratch: bool
    snapshot_step: int | None


def make_plan(
    method: str,
    prune: PruneConfig,
    *,
    init: Init | None,
    epochs: int,
    dense_epochs: int,
    dense_lr: float,
    rewind_step: int,
    level_rate: float,
    seed: int,
    sparse_training: bool = False,
    bf16: bool = False,
) -> Plan:
    """The levels of ``method``.

    Args:
        method: A name in ``METHODS``.
        prune: What to prune in the end. A mask control concerns the last level alone.
        init: Control: weights that the last level's retraining starts from; None for the method's own.
        epochs: Of fine-tuning.
        dense_epochs: Of the dense network's schedule.
        dense_lr: Its highest learning rate.
        rewind_step: Step of that schedule which weights or learning rate rewind to.
        level_rate: Share of what remains that a level of an iterative method removes.
        seed: Of the order of images.
        sparse_training: Retrain on pysim's block-sparse layers.
        bf16: Train in bfloat16.

    Raises:
        ConfigError: The method is unknown, or a control or a way to train makes no sense with it.
    """
    if method not in METHODS:
        raise ConfigError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    way = METHODS[method]
    if way.growing is not None and (init not in (None, "keep") or prune.mask != "keep"):
        raise ConfigError(f"method {method}: has no mask before training that --init or --mask could control")
    if way.untrained and init == "rewind":
        raise ConfigError(f"method {method}: expected --init keep or reinit, got rewind: nothing was trained")
    if way.growing == "rigl" and prune.layout == "kernel":
        raise ConfigError("method rigl: expected layout kh,kw,cin or oihw: it moves blocks one by one")
    if sparse_training and prune.layout == "oihw":
        raise ConfigError("sparse-training: expected layout kh,kw,cin or kernel, got oihw")
    if sparse_training and way.growing is not None:
        raise ConfigError(f"sparse-training: expected masks that stay, but those of {method} change")
    if sparse_training and bf16:
        raise ConfigError("sparse-training: expected float32, which pysim's kernels compute in, got bf16")
    finetune = finetune_config(epochs, seed, bf16=bf16)
    schedule = TrainConfig(epochs=dense_epochs, peak_lr=dense_lr, seed=seed, bf16=bf16)
    if way.growing is not None and (finetune if way.retrain == "finetune" else schedule).epochs == 0:
        raise ConfigError(f"method {method}: expected at least 1 epoch of training, got 0")
    sparsities = level_sparsities(prune.sparsity, level_rate) if way.iterative else (prune.sparsity,)
    levels = []
    for index, sparsity in enumerate(sparsities):
        last = index == len(sparsities) - 1
        start = init if last and init is not None else way.init
        by_schedule = start != "keep" or way.retrain == "schedule"
        levels.append(
            Level(
                prune=replace(prune, sparsity=sparsity, mask=prune.mask if last else "keep"),
                retrain=schedule if by_schedule else finetune,
                init=start,
                start_step=rewind_step if by_schedule and start != "reinit" and not way.untrained else 0,
                growing=way.growing,
                sparse=sparse_training,
            )
        )
    rewinds = any(level.init == "rewind" for level in levels)
    return Plan(
        levels=tuple(levels),
        dense_epochs=0 if way.untrained else dense_epochs,
        from_scratch=way.untrained or rewinds,
        snapshot_step=rewind_step if rewinds else None,
    )
