"""The two stages that take minutes, dense network and pruned network, each kept in the cache by content.

A cached stage is found again only if every setting, the data, the dense weights, the version of torch and the
code of the parts that train are the same.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pysim.data import Dataset, load_dataset
from pysim.errors import ConfigError, DataError, ModelError
from pysim.models import InputShape, build_model, is_user_model, pretrained_path, user_model_digest
from pysim.pruning import (
    SCORES,
    EmptyLayerWarning,
    PruneConfig,
    describe_masks,
    element_masks,
    prune_one_shot,
)
from pysim.runner.methods import DENSE_LR, Level
from pysim.runner.sparse_training import sparse_twin, take_back
from pysim.store import cache_folder, content_key, data_identity, file_digest, source_digest
from pysim.training import (
    GROWING,
    Batches,
    GrowingMasks,
    Progress,
    Snapshot,
    TrainConfig,
    evaluate,
    exclusive_state,
    find_device,
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
)
from pysim.workload import BlockMask

# A change in any of these may change what training returns.
_TRAINING_CODE = ("data", "models", "pruning", "training")


# Scores that look at gradients see this many training images.
_EXAMPLE_BATCHES, _EXAMPLE_SIZE = 4, 64
# Fresh weights for --init reinit: far from the seeds that people type.
_REINIT_SEED = 1_000_003
_SNAPSHOT = "snapshot."


class Source:
    """A data set that is read only when something needs its images.

    Args:
        spec: As in ``load_dataset``.
        pad_to: Pad the images to this size in pixels; None leaves them.
        device: Where networks are trained and tested on them.

    Raises:
        ConfigError: There is no such device.
    """

    def __init__(self, spec: str, pad_to: int | None, device: str = "cpu") -> None:
        self.spec = spec
        self.device = find_device(device)
        self._pad_to = pad_to

    @cached_property
    def identity(self) -> dict[str, str | int | None]:
        return {
            "spec": self.spec.partition(":")[0],
            "content": data_identity(self.spec),
            "pad_to": self._pad_to,
        }

    @cached_property
    def dataset(self) -> Dataset:
        dataset = load_dataset(self.spec)
        return dataset if self._pad_to is None else dataset.padded(self._pad_to)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.dataset, crop_pad=TrainConfig(epochs=0).crop_pad, device=self.device)

    def first_image(self) -> Tensor:
        """The first test image as a batch of one, on the CPU."""
        images, _ = next(self.batches.test(1))
        return images.cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNetwork:
    """A network before pruning.

    Args:
        name: As in ``build_model``.
        model: In evaluation mode.
        key: Identifies weights, data and code.
        accuracy: On the test images, percent.
        origin: Where the weights come from, one sentence.
        seed: Of the weights.
        snapshot: Weights and statistics at the step to rewind to; empty if none was asked for.
        masks: Of earlier pruning, if the weights come from a pruned network's file.
    """

    name: str
    model: nn.Module
    key: str
    accuracy: float
    origin: str
    seed: int
    snapshot: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, BlockMask] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedNetwork:
    """A pruned and retrained network.

    Args:
        model: In evaluation mode.
        key: Identifies how it came about.
        masks: Weight name to block mask, for the weights that pruning may touch.
        before_finetune: Accuracy after pruning and batch norm re-estimation, percent; that of the end if
            masks grew while weights were learnt.
        accuracy: After retraining, percent.
    """

    model: nn.Module
    key: str
    masks: Mapping[str, BlockMask]
    before_finetune: float
    accuracy: float


def _common_fields() -> dict[str, str]:
    return {"torch": importlib.metadata.version("torch"), "code": source_digest(_TRAINING_CODE)}


def _cache_path(key: str) -> Path:
    return cache_folder() / "training" / f"{key}.safetensors"


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


def fresh_model(name: str, dataset: Dataset, seed: int) -> nn.Module:
    """The network with the weights that ``seed`` gives, checked against the images.

    Raises:
        ModelError: The model is unknown or cannot take the images or tell the classes apart.
    """
    height, width = dataset.image_size
    shape = InputShape(channels=dataset.channels, height=height, width=width, num_classes=dataset.num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(name, shape).eval()
    if is_user_model(name):
        _check_fits(name, model, dataset)
    return model


def _check_fits(name: str, model: nn.Module, dataset: Dataset) -> None:
    height, width = dataset.image_size
    images = torch.zeros(2, dataset.channels, height, width)
    what = f"model {name!r} on images of {dataset.channels}x{height}x{width}"
    hint = "Give the shape of the model's input with --input 1xCxHxW, or other --data."
    try:
        with torch.inference_mode():
            output = model(images)
    except Exception as error:  # foreign code
        raise ModelError(f"{what}: {type(error).__name__}: {error}", hint=hint) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < dataset.num_classes:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"{what}: expected outputs of shape (2, at least {dataset.num_classes}), got {got}", hint=hint
        )


def dense_network(
    name: str,
    source: Source,
    *,
    checkpoint: Path | None,
    epochs: int,
    seed: int,
    use_cache: bool,
    progress: Progress,
    peak_lr: float = DENSE_LR,
    from_scratch: bool = False,
    snapshot_step: int | None = None,
    bf16: bool = False,
) -> DenseNetwork:
    """The dense network: from ``checkpoint``, else the shipped weights, else trained here for ``epochs``.

    Args:
        name: As in ``build_model``.
        source: The data.
        checkpoint: Weights to take; those of a pruned network's file come with their masks.
        epochs: Of training from scratch; 0 leaves the network as it was initialised.
        seed: Of weights and training.
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
    model = fresh_model(name, source.dataset, seed)
    weights = checkpoint or (None if from_scratch else pretrained_path(name, source.dataset.name))
    if weights is not None and snapshot_step is not None:
        raise ConfigError(
            "rewinding: expected a network trained here, got a checkpoint without early weights"
        )
    config = TrainConfig(epochs=epochs, peak_lr=peak_lr, seed=seed, bf16=bf16)
    fields = {
        "stage": "dense",
        "model": name,
        "source": user_model_digest(name) if is_user_model(name) else None,
        "data": source.identity,
        "weights": None if weights is None else file_digest(weights),
        "training": None if weights is not None else asdict(config),
        "snapshot_step": snapshot_step,
        "device": source.device.type,
        **_common_fields(),
    }
    key = content_key(fields)
    path = _cache_path(key)
    masks: Mapping[str, BlockMask] = {}
    if checkpoint is not None and is_pruned_file(checkpoint):
        masks = load_pruned(checkpoint, name, model).masks
    elif weights is not None:
        load_weights(model, weights)
    snapshot: Mapping[str, Tensor] = {}
    cached = _load_stage(path, use_cache)
    if cached is not None:
        tensors, note = cached
        if weights is None:
            model.load_state_dict({n: t for n, t in tensors.items() if not n.startswith(_SNAPSHOT)})
        snapshot = {n.removeprefix(_SNAPSHOT): t for n, t in tensors.items() if n.startswith(_SNAPSHOT)}
        accuracy = _percent(path, note, "accuracy")
    else:
        hook = Snapshot(-1 if snapshot_step is None else snapshot_step)
        with _saving(path, use_cache) as state:
            if weights is None and epochs:
                train(
                    model,
                    source.batches,
                    config,
                    hook=hook,
                    state_path=state,
                    keep_state=True,
                    identity=key,
                    progress=progress,
                )
                snapshot = hook.tensors
            accuracy = evaluate(model, source.batches, what="testing the dense network", progress=progress)
            tensors = dict(model.state_dict()) if weights is None else {}
            tensors |= {_SNAPSHOT + n: tensor for n, tensor in snapshot.items()}
            save_tensors(path, tensors, {"accuracy": accuracy, "fields": fields})
    if snapshot_step is not None and not snapshot:
        steps = -(-source.batches.train_count // config.batch_size) * epochs
        raise ConfigError(f"rewind-step: expected below the {steps} steps of training, got {snapshot_step}")
    origin = f"trained here for {epochs} epochs"
    if weights is not None:
        origin = str(weights) if checkpoint is not None else "shipped checkpoint"
    return DenseNetwork(
        name=name,
        model=model,
        key=key,
        accuracy=accuracy,
        origin=origin,
        seed=seed,
        snapshot=snapshot,
        masks=masks,
    )


def pruned_network(
    dense: DenseNetwork,
    source: Source,
    level: Level,
    *,
    previous: PrunedNetwork | None = None,
    use_cache: bool,
    progress: Progress,
) -> PrunedNetwork:
    """Prunes a copy of ``previous``, or of ``dense``, and retrains it.

    Raises:
        ModelError: There is nothing to prune.
    """
    fields = {
        "stage": "pruned",
        "dense": dense.key,
        "previous": None if previous is None else previous.key,
        "data": source.identity,
        "level": level.to_json(),
        "device": source.device.type,
        **_common_fields(),
    }
    key = content_key(fields)
    path = _cache_path(key)
    model = copy.deepcopy(dense.model if previous is None else previous.model)
    cached = _load_stage(path, use_cache)
    if cached is not None:
        tensors, note = cached
        state, masks = split_masks(path, tensors, note.get("masks"))
        model.load_state_dict(state)
        untuned = _percent(path, note, "before_finetune")
        accuracy = _percent(path, note, "accuracy")
    else:
        label = f"block {level.prune.block[0]}x{level.prune.block[1]}: "

        def labelled(what: str, done: int, total: int) -> None:
            progress(label + what, done, total)

        earlier = dense.masks if previous is None else previous.masks
        masks = {}
        before: float | None = None
        hook: GrowingMasks | None = None
        if level.growing is None:
            masks, before = _prune(model, dense, source, level, earlier, labelled)
        else:
            hook = GROWING[level.growing](level.prune, _examples(source, level.prune), earlier)
        trained, held = model, masks
        if level.sparse:
            trained, held = sparse_twin(model, masks, source.first_image())
        with _saving(path, use_cache) as state_path:
            train(
                trained,
                source.batches,
                level.retrain,
                masks=element_masks(model, held),
                hook=hook,
                start_step=level.start_step,
                state_path=state_path,
                keep_state=True,
                identity=key,
                channels_last=not level.sparse,
                progress=labelled,
            )
            if level.sparse:
                take_back(model, trained)
            masks = masks if hook is None else hook.block_masks
            accuracy = evaluate(model, source.batches, progress=labelled)
            untuned = accuracy if before is None else before
            note = {
                "accuracy": accuracy,
                "before_finetune": untuned,
                "masks": describe_masks(masks),
                "fields": fields,
            }
            save_tensors(path, model.state_dict() | mask_tensors(masks), note)
    model.eval()
    return PrunedNetwork(model=model, key=key, masks=masks, before_finetune=untuned, accuracy=accuracy)


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


def network_from_file(
    name: str, path: Path, source: Source, progress: Progress
) -> tuple[DenseNetwork, PrunedNetwork, PruneConfig]:
    """A pruned network as its file has it, tested anew; nothing is pruned or trained.

    The dense network's accuracy is the one that the file remembers, or the pruned one's if there was none.

    Raises:
        DataError: The file is damaged, or not of this model.
    """
    model = fresh_model(name, source.dataset, 0)
    file = load_pruned(path, name, model)
    accuracy = evaluate(model, source.batches, progress=progress)
    dense = file.facts.get("dense_accuracy")
    key = content_key({"stage": "file", "file": file_digest(path)})
    return (
        DenseNetwork(
            name=name,
            model=model,
            key=key,
            accuracy=float(dense) if isinstance(dense, int | float) and 0 <= dense <= 100 else accuracy,
            origin=str(path),
            seed=0,
        ),
        PrunedNetwork(model=model, key=key, masks=file.masks, before_finetune=accuracy, accuracy=accuracy),
        file.prune,
    )


def _load_stage(path: Path, use_cache: bool) -> tuple[dict[str, Tensor], dict[str, object]] | None:
    """What the cache holds at ``path``; None if nothing, or nothing readable, is there."""
    if not use_cache or not path.is_file():
        return None
    try:
        return load_tensors(path)
    except DataError:
        return None  # written over by what is computed now


def _percent(path: Path, note: Mapping[str, object], field: str) -> float:
    value = note.get(field)
    if not isinstance(value, float) or not 0 <= value <= 100:
        raise DataError(f"{path}: expected {field} in percent, got {value!r}", hint=f"Remove {path}.")
    return value
