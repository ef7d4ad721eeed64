"""Training several networks side by side in one process: the one loop over a stack of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from pysim.errors import ConfigError
from pysim.training.batches import Batches
from pysim.training.evaluation import Progress, no_progress
from pysim.training.hooks import Masks, Snapshot
from pysim.training.loop import TrainConfig, train
from pysim.training.stack import Stack, StackBatches, split, stack_masks


def train_together(
    models: Sequence[nn.Module],
    batches: Batches,
    configs: Sequence[TrainConfig],
    *,
    masks: Sequence[Masks] = (),
    snapshot_step: int | None = None,
    start_step: int = 0,
    state_path: Path | None = None,
    save_every: int = 100,
    keep_state: bool = False,
    identity: str = "",
    probe_threads: bool = False,
    progress: Progress = no_progress,
) -> list[dict[str, Tensor]]:
    """Trains every model in place as ``train`` would, but for the rounding of sums, all in each step.

    Each has its own seed: order of images, crops, flips; its own masks, statistics and momentum. Masks stay.

    Args:
        models: Of one architecture; left on the CPU in evaluation mode.
        batches: The data, for all.
        configs: One a model; they differ in the seed alone.
        masks: One a model, of the same weights; empty if nothing is held at zero.
        snapshot_step: Keep weights and statistics as they are before this step.
        start_step: As in ``train``.
        state_path: As in ``train``; the state of all.
        save_every: As in ``train``.
        keep_state: As in ``train``.
        identity: As in ``train``.
        probe_threads: As in ``train``.
        progress: Called after every step of all.

    Returns:
        What each model was before ``snapshot_step``; nothing if there is no such step.

    Raises:
        ConfigError: The models are not alike, the settings differ in more than the seed, a network draws
            random numbers or cannot be run by ``vmap``, or what ``train`` refuses.
        DataError: As in ``train``.
    """
    if not models or len(configs) != len(models) or len(masks) not in (0, len(models)):
        raise ConfigError(
            f"training together: expected as many settings and masks as networks, at least one, got "
            f"{len(models)}, {len(configs)} and {len(masks)}"
        )
    if len({replace(config, seed=0) for config in configs}) > 1:
        raise ConfigError("training together: expected settings that differ in the seed alone")
    seeds = [config.seed for config in configs]
    stack = Stack(models)
    snapshot = Snapshot(-1 if snapshot_step is None else snapshot_step)
    train(
        stack,
        StackBatches(batches, seeds),
        configs[0],
        masks=stack_masks(masks) if masks else None,
        hook=snapshot,
        start_step=start_step,
        state_path=state_path,
        save_every=save_every,
        keep_state=keep_state,
        identity=f"{identity}, seeds {seeds}",
        channels_last=False,  # of four dimensions; weights have five here
        probe_threads=probe_threads,
        progress=progress,
    )
    for model, state in zip(models, split(stack.state_dict(), len(models)), strict=True):
        model.load_state_dict(state)
        model.eval()
    return split(snapshot.tensors, len(models))
