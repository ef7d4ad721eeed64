"""The two stages that take minutes, dense network and pruned network, each kept in the cache by content.

A cached stage is found again only if every setting, the data, the dense weights, the version of torch and the
code of the parts that train are the same. A stage is done for several seeds at once where they are trained
side by side: sums are then rounded otherwise, so all of these seeds are part of each one's key.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, DataError
from pysim.models import is_user_model, pretrained_path, user_model_digest
from pysim.pruning import (
    SCORES,
    EmptyLayerWarning,
    PruneConfig,
    describe_masks,
    element_masks,
    prune_one_shot,
)
from pysim.runner.methods import DENSE_LR, Level
from pysim.runner.networks import DenseNetwork, PrunedNetwork, Source, fresh_model
from pysim.runner.sparse_training import sparse_twin, take_back
from pysim.store import cache_folder, content_key, file_digest, source_digest
from pysim.training import (
    GROWING,
    GrowingMasks,
    Masks,
    Progress,
    Snapshot,
    TrainConfig,
    evaluate,
    exclusive_state,
    is_pruned_file,
    load_pruned,
    load_tensors,
    load_weights,
    mask_tensors,
    reestimate_batch_norm,
    remove_state,
    save_tensors,
    split_masks,
    train,
    train_together,
    training_threads,
)
from pysim.workload import BlockMask

# A change in any of these may change what training returns.
_TRAINING_CODE = ("data", "models", "pruning", "training")


# Scores that look at gradients see this many training images.
_EXAMPLE_BATCHES, _EXAMPLE_SIZE = 4, 64
# Fresh weights for --init reinit: far from the seeds that people type.
_REINIT_SEED = 1_000_003
_SNAPSHOT = "snapshot."

_Content = tuple[dict[str, Tensor], dict[str, object]]
"""A stage as the cache holds it: tensors and a note."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a stage of one seed depends on, and where the cache keeps it."""

    fields: Mapping[str, object]
    key: str
    path: Path


def _stage(source: Source, together: Sequence[int], fields: Mapping[str, object]) -> _Stage:
    """``together``: the seeds that are trained side by side."""
    whole = {
        **fields,
        "data": source.identity,
        "device": source.device.type,
        "threads": source.threads,
        "together": list(together) if len(together) > 1 else None,
        "torch": importlib.metadata.version("torch"),
        "code": source_digest(_TRAINING_CODE),
    }
    key = content_key(whole)
    return _Stage(whole, key, cache_folder() / "training" / f"{key}.safetensors")


@contextlib.contextmanager
def _saving(path: Path, use_cache: bool) -> Iterator[Path | None]:
    """Where training under this cache path saves itself until what it leads to is written there.

    None if another process trains the same: this one then trains without saving itself.
    """
    with exclusive_state(path.with_suffix(".state")) as state:
        if state is not None and not use_cache:
            remove_state(state)
        yield state
        if state is not None:
            remove_state(state)


def _load(stages: Sequence[_Stage], use_cache: bool) -> list[_Content]:
    """What the cache holds of ``stages``; nothing unless all of them are there and readable."""
    found = []
    for stage in stages:
        if not use_cache or not stage.path.is_file():
            return []
        try:
            found.append(load_tensors(stage.path))
        except DataError:
            return []  # written over by what is computed now
    return found


def dense_networks(
    name: str,
    source: Source,
    *,
    checkpoint: Path | None,
    epochs: int,
    seeds: Sequence[int],
    use_cache: bool,
    progress: Progress,
    peak_lr: float = DENSE_LR,
    from_scratch: bool = False,
    snapshot_step: int | None = None,
    bf16: bool = False,
) -> list[DenseNetwork]:
    """The dense networks: from ``checkpoint``, else the shipped weights, else trained here for ``epochs``.

    Args:
        name: As in ``build_model``.
        source: The data.
        checkpoint: Weights to take; those of a pruned network's file come with their masks.
        epochs: Of training from scratch; 0 leaves the network as it was initialised.
        seeds: Of weights and training, one a network; several are trained side by side.
        use_cache: Whether finished or interrupted training may be taken from the cache.
        progress: Told how far each stage is.
        peak_lr: Highest learning rate of that training.
        from_scratch: Do not take the shipped weights.
        snapshot_step: Keep weights and statistics as they are before this step of training from scratch.
        bf16: Train in bfloat16.

    Raises:
        ConfigError: A snapshot is asked for and nothing is trained from scratch.
        DataError: The checkpoint is broken or is another network's.
        ModelError: The model is unknown.
    """
    weights = checkpoint or (None if from_scratch else pretrained_path(name, source.dataset.name))
    if weights is not None and snapshot_step is not None:
        raise ConfigError(
            "rewinding: expected a network trained here, got a checkpoint without early weights"
        )
    models = [fresh_model(name, source.dataset, seed) for seed in seeds]
    configs = [TrainConfig(epochs=epochs, peak_lr=peak_lr, seed=seed, bf16=bf16) for seed in seeds]
    fields = {
        "stage": "dense",
        "model": name,
        "source": user_model_digest(name) if is_user_model(name) else None,
        "weights": None if weights is None else file_digest(weights),
        "snapshot_step": snapshot_step,
    }
    together = seeds if weights is None else ()
    stages = [
        _stage(source, together, fields | {"training": None if weights is not None else asdict(config)})
        for config in configs
    ]
    masks: Mapping[str, BlockMask] = {}
    for model in models:
        if checkpoint is not None and is_pruned_file(checkpoint):
            masks = load_pruned(checkpoint, name, model).masks
        elif weights is not None:
            load_weights(model, weights)
    found = _load(stages, use_cache)
    if not found:
        with _saving(stages[0].path, use_cache) as state, training_threads(source.threads):
            snapshots: Sequence[Mapping[str, Tensor]] = [{} for _ in models]
            if weights is None and epochs:
                snapshots = _train(
                    models,
                    source,
                    configs,
                    masks=[{} for _ in models],
                    snapshot_step=snapshot_step,
                    state=state,
                    identity=stages[0].key,
                    progress=progress,
                )
            for model, stage, early in zip(models, stages, snapshots, strict=True):
                if weights is not None and found:  # the same network for every seed
                    found.append(found[0])
                    continue
                accuracy = evaluate(
                    model, source.batches, what="testing the dense network", progress=progress
                )
                tensors = dict(model.state_dict()) if weights is None else {}
                tensors |= {_SNAPSHOT + n: tensor for n, tensor in early.items()}
                found.append((tensors, _save(stage, tensors, {"accuracy": accuracy})))
    origin = f"trained here for {epochs} epochs"
    if weights is not None:
        origin = str(weights) if checkpoint is not None else "shipped checkpoint"
    networks = []
    for seed, model, stage, (tensors, note) in zip(seeds, models, stages, found, strict=True):
        snapshot = {n.removeprefix(_SNAPSHOT): t for n, t in tensors.items() if n.startswith(_SNAPSHOT)}
        if snapshot_step is not None and not snapshot:
            steps = -(-source.batches.train_count // configs[0].batch_size) * epochs
            raise ConfigError(
                f"rewind-step: expected below the {steps} steps of training, got {snapshot_step}"
            )
        if weights is None:
            model.load_state_dict({n: t for n, t in tensors.items() if not n.startswith(_SNAPSHOT)})
        networks.append(
            DenseNetwork(
                name=name,
                model=model,
                key=stage.key,
                accuracy=_percent(stage.path, note, "accuracy"),
                origin=origin,
                seed=seed,
                snapshot=snapshot,
                masks=masks,
                threads=_threads(stage.path, note) if weights is None and epochs else None,
            )
        )
    return networks


def pruned_networks(
    dense: Sequence[DenseNetwork],
    source: Source,
    levels: Sequence[Level],
    *,
    previous: Sequence[PrunedNetwork] | None = None,
    use_cache: bool,
    progress: Progress,
) -> list[PrunedNetwork]:
    """Prunes copies of ``previous``, or of ``dense``, and retrains them; several are trained side by side.

    Args:
        dense: One a seed.
        source: The data.
        levels: One a seed; they differ in the seed alone.
        previous: What the level before left.
        use_cache: Whether finished or interrupted training may be taken from the cache.
        progress: Told how far each stage is.

    Raises:
        ModelError: There is nothing to prune.
    """
    level, seeds = levels[0], [network.seed for network in dense]
    stages = [
        _stage(
            source,
            seeds,
            {
                "stage": "pruned",
                "dense": network.key,
                "previous": None if previous is None else previous[i].key,
                "level": levels[i].to_json(),
            },
        )
        for i, network in enumerate(dense)
    ]
    models = [copy.deepcopy(network.model) for network in previous or dense]
    found = _load(stages, use_cache)
    if not found:
        label = f"block {level.prune.block[0]}x{level.prune.block[1]}: "

        def labelled(what: str, done: int, total: int) -> None:
            progress(label + what, done, total)

        earlier = [network.masks for network in previous or dense]
        masks: list[Mapping[str, BlockMask]] = [{} for _ in models]
        before: list[float] = []
        hook: GrowingMasks | None = None
        with _saving(stages[0].path, use_cache) as state, training_threads(source.threads):
            if level.growing is None:
                for i, model in enumerate(models):
                    masks[i], tested = _prune(model, dense[i], source, levels[i], earlier[i], labelled)
                    before.append(tested)
            else:
                hook = GROWING[level.growing](level.prune, _examples(source, level.prune), earlier[0])
            trained, held = models, masks
            if level.sparse:
                twin, left = sparse_twin(models[0], masks[0], source.first_image())
                trained, held = [twin], [left]
            _train(
                trained,
                source,
                [own.retrain for own in levels],
                masks=[element_masks(model, own) for model, own in zip(models, held, strict=True)],
                hook=hook,
                start_step=level.start_step,
                state=state,
                identity=stages[0].key,
                channels_last=not level.sparse,
                progress=labelled,
            )
            if level.sparse:
                take_back(models[0], trained[0])
            if hook is not None:
                masks = [hook.block_masks]
            for i, model in enumerate(models):
                accuracy = evaluate(model, source.batches, progress=labelled)
                note: dict[str, object] = {
                    "accuracy": accuracy,
                    "before_finetune": before[i] if before else accuracy,
                    "masks": describe_masks(masks[i]),
                }
                tensors = model.state_dict() | mask_tensors(masks[i])
                found.append((tensors, _save(stages[i], tensors, note)))
    networks = []
    for model, stage, (tensors, kept) in zip(models, stages, found, strict=True):
        weights, own_masks = split_masks(stage.path, tensors, kept.get("masks"))
        model.load_state_dict(weights)
        networks.append(
            PrunedNetwork(
                model=model.eval(),
                key=stage.key,
                masks=own_masks,
                before_finetune=_percent(stage.path, kept, "before_finetune"),
                accuracy=_percent(stage.path, kept, "accuracy"),
                threads=_threads(stage.path, kept),
            )
        )
    return networks


def _train(
    models: Sequence[nn.Module],
    source: Source,
    configs: Sequence[TrainConfig],
    *,
    masks: Sequence[Masks],
    identity: str,
    state: Path | None,
    progress: Progress,
    hook: GrowingMasks | None = None,
    snapshot_step: int | None = None,
    start_step: int = 0,
    channels_last: bool = True,
) -> Sequence[Mapping[str, Tensor]]:
    """One network by itself or several side by side; returns what they were before ``snapshot_step``."""
    probe = source.threads == "probe"
    if len(models) > 1:
        return train_together(
            models,
            source.batches,
            configs,
            masks=masks,
            snapshot_step=snapshot_step,
            start_step=start_step,
            state_path=state,
            keep_state=True,
            identity=identity,
            probe_threads=probe,
            progress=progress,
        )
    snapshot = Snapshot(-1 if snapshot_step is None else snapshot_step)
    train(
        models[0],
        source.batches,
        configs[0],
        masks=masks[0],
        hook=hook or snapshot,
        start_step=start_step,
        state_path=state,
        keep_state=True,
        identity=identity,
        channels_last=channels_last,
        probe_threads=probe,
        progress=progress,
    )
    return [snapshot.tensors]


def _save(stage: _Stage, tensors: Mapping[str, Tensor], found: Mapping[str, object]) -> dict[str, object]:
    """Writes a finished stage to the cache; returns its note."""
    note = {**found, "threads": torch.get_num_threads(), "fields": stage.fields}
    save_tensors(stage.path, dict(tensors), note)
    return note


def _prune(
    model: nn.Module,
    dense: DenseNetwork,
    source: Source,
    level: Level,
    earlier: Mapping[str, BlockMask],
    progress: Progress,
) -> tuple[dict[str, BlockMask], float]:
    """Masks, the accuracy with nothing but them, and in ``model`` the weights to retrain from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyLayerWarning)  # results say it, cached ones too
        masks = prune_one_shot(model, level.prune, masks=earlier, examples=_examples(source, level.prune))
    reestimate_batch_norm(model, source.batches)
    before = evaluate(model, source.batches, what="testing before fine-tuning", progress=progress)
    if level.init == "rewind":
        model.load_state_dict(dict(dense.snapshot))
    elif level.init == "reinit":
        other_seed = (dense.seed + _REINIT_SEED) % 2**32
        model.load_state_dict(fresh_model(dense.name, source.dataset, other_seed).state_dict())
    return masks, before  # training applies the masks before its first step


def _examples(source: Source, prune: PruneConfig) -> list[tuple[Tensor, Tensor]]:
    if SCORES[prune.score].gradients == "none":
        return []
    return source.batches.examples(_EXAMPLE_BATCHES, _EXAMPLE_SIZE)


def _percent(path: Path, note: Mapping[str, object], field: str) -> float:
    value = note.get(field)
    if not isinstance(value, float) or not 0 <= value <= 100:
        raise DataError(f"{path}: expected {field} in percent, got {value!r}", hint=f"Remove {path}.")
    return value


def _threads(path: Path, note: Mapping[str, object]) -> int:
    value = note.get("threads")
    if type(value) is not int or value < 1:
        raise DataError(f"{path}: expected a number of threads, got {value!r}", hint=f"Remove {path}.")
    return value
