"""The two stages that take minutes, dense network and pruned network, each kept in the cache by content.

A cached stage is found again only if every setting, the data, the dense weights, the version of torch and the
code of the parts that train are the same.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pysim.data import Dataset, load_dataset
from pysim.errors import DataError, PysimError
from pysim.models import InputShape, build_model, pretrained_path
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.store import cache_folder, content_key, data_identity, file_digest, source_digest
from pysim.training import (
    Batches,
    Progress,
    TrainConfig,
    evaluate,
    load_tensors,
    load_weights,
    reestimate_batch_norm,
    save_tensors,
    train,
)
from pysim.workload import BlockGrid, BlockMask

# A change in any of these may change what training returns.
_TRAINING_CODE = ("data", "models", "pruning", "training")


def finetune_config(epochs: int, seed: int) -> TrainConfig:
    """How a pruned network is trained on: in smaller steps and more of them than a dense one from scratch.

    docs/decisions.md has the comparison.
    """
    return TrainConfig(epochs=epochs, batch_size=64, peak_lr=0.02, seed=seed)


class Source:
    """A data set that is read only when something needs its images.

    Args:
        spec: As in ``load_dataset``.
        pad_to: Pad the images to this size in pixels; None leaves them.
    """

    def __init__(self, spec: str, pad_to: int | None) -> None:
        self.spec = spec
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
        return Batches(self.dataset, crop_pad=TrainConfig(epochs=0).crop_pad)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNetwork:
    """A trained network before pruning.

    Args:
        model: In evaluation mode.
        key: Identifies weights, data and code.
        accuracy: On the test images, percent.
        origin: Where the weights come from, one sentence.
    """

    model: nn.Module
    key: str
    accuracy: float
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedNetwork:
    """A pruned and fine-tuned network.

    Args:
        model: In evaluation mode.
        masks: Weight name to block mask, for the weights that pruning may touch.
        before_finetune: Accuracy after pruning and batch norm re-estimation, percent.
        accuracy: After fine-tuning, percent.
    """

    model: nn.Module
    masks: Mapping[str, BlockMask]
    before_finetune: float
    accuracy: float


def _common_fields() -> dict[str, str]:
    return {"torch": importlib.metadata.version("torch"), "code": source_digest(_TRAINING_CODE)}


def _cache_path(key: str) -> Path:
    return cache_folder() / "training" / f"{key}.safetensors"


def dense_network(
    name: str,
    source: Source,
    *,
    checkpoint: Path | None,
    epochs: int,
    seed: int,
    use_cache: bool,
    progress: Progress,
) -> DenseNetwork:
    """The dense network: from ``checkpoint``, else the shipped weights, else trained here for ``epochs``.

    Raises:
        DataError: The checkpoint is broken or is another network's.
        ModelError: The model is unknown.
    """
    shape = _input_shape(source.dataset)
    torch.manual_seed(seed)
    model = build_model(name, shape).eval()
    weights = checkpoint or pretrained_path(name, source.dataset.name)
    config = TrainConfig(epochs=epochs, seed=seed)
    fields = {
        "stage": "dense",
        "model": name,
        "data": source.identity,
        "weights": None if weights is None else file_digest(weights),
        "training": None if weights is not None else asdict(config),
        **_common_fields(),
    }
    key = content_key(fields)
    path = _cache_path(key)
    if weights is not None:
        load_weights(model, weights)
    cached = _load_stage(path, use_cache)
    if cached is not None:
        tensors, note = cached
        if weights is None:
            model.load_state_dict(tensors)
        accuracy = _percent(path, note, "accuracy")
    else:
        if weights is None:
            train(model, source.batches, config, progress=progress)
        accuracy = evaluate(model, source.batches, what="testing the dense network", progress=progress)
        state = model.state_dict() if weights is None else {}
        save_tensors(path, state, {"accuracy": accuracy, "fields": fields})
    origin = f"trained here for {epochs} epochs"
    if weights is not None:
        origin = str(weights) if checkpoint is not None else "shipped checkpoint"
    return DenseNetwork(model=model, key=key, accuracy=accuracy, origin=origin)


def pruned_network(
    dense: DenseNetwork,
    source: Source,
    prune: PruneConfig,
    finetune: TrainConfig,
    *,
    use_cache: bool,
    progress: Progress,
) -> PrunedNetwork:
    """Prunes a copy of ``dense`` in one shot and fine-tunes it.

    Raises:
        ModelError: There is nothing to prune.
    """
    fields = {
        "stage": "pruned",
        "dense": dense.key,
        "data": source.identity,
        "prune": {**asdict(prune), "block": list(prune.block)},
        "finetune": asdict(finetune),
        **_common_fields(),
    }
    path = _cache_path(content_key(fields))
    model = copy.deepcopy(dense.model)
    cached = _load_stage(path, use_cache)
    if cached is not None:
        tensors, note = cached
        masks = _unpack_masks(path, tensors, note)
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_MASK)}
        model.load_state_dict(state)
        before = _percent(path, note, "before_finetune")
        accuracy = _percent(path, note, "accuracy")
    else:
        label = f"block {prune.block[0]}x{prune.block[1]}: "

        def labelled(what: str, done: int, total: int) -> None:
            progress(label + what, done, total)

        masks = prune_one_shot(model, prune)
        reestimate_batch_norm(model, source.batches)
        before = evaluate(model, source.batches, what="testing before fine-tuning", progress=labelled)
        train(model, source.batches, finetune, masks=element_masks(model, masks), progress=labelled)
        accuracy = evaluate(model, source.batches, progress=labelled)
        packed, grids = _pack_masks(masks)
        note = {"accuracy": accuracy, "before_finetune": before, "masks": grids, "fields": fields}
        save_tensors(path, model.state_dict() | packed, note)
    model.eval()
    return PrunedNetwork(model=model, masks=masks, before_finetune=before, accuracy=accuracy)


def _input_shape(dataset: Dataset) -> InputShape:
    height, width = dataset.image_size
    return InputShape(channels=dataset.channels, height=height, width=width, num_classes=dataset.num_classes)


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


_MASK = "mask."


def _pack_masks(masks: Mapping[str, BlockMask]) -> tuple[dict[str, Tensor], dict[str, object]]:
    packed = {_MASK + name: torch.from_numpy(np.packbits(mask.keep)) for name, mask in masks.items()}
    grids: dict[str, object] = {
        name: {"groups": len(mask.keep), **asdict(mask.grid)} for name, mask in masks.items()
    }
    return packed, grids


def _unpack_masks(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, object]
) -> dict[str, BlockMask]:
    grids = note.get("masks")
    masks = {}
    try:
        if not isinstance(grids, dict):
            raise TypeError(f"expected an object, got {type(grids).__name__}")
        for name, fields in grids.items():
            grid = BlockGrid(**{field: fields[field] for field in ("m", "k", "positions", "bh", "bw")})
            shape = (fields["groups"], *grid.shape)
            bits = np.unpackbits(tensors[_MASK + name].numpy(), count=math.prod(shape))
            masks[name] = BlockMask(grid=grid, keep=bits.astype(np.bool_).reshape(shape))
    except (KeyError, TypeError, ValueError, PysimError) as error:
        raise DataError(f"{path}: its masks cannot be read: {error}", hint=f"Remove {path}.") from error
    return masks
