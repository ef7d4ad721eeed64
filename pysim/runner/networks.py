"""What the stages work on: data on a device, networks before and after pruning, networks from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pysim.data import Dataset, load_dataset
from pysim.errors import ModelError
from pysim.models import InputShape, build_model, is_user_model
from pysim.pruning import PruneConfig
from pysim.store import content_key, data_identity, file_digest
from pysim.training import (
    Batches,
    Progress,
    Threads,
    TrainConfig,
    check_threads,
    evaluate,
    find_device,
    load_pruned,
)
from pysim.workload import BlockMask


class Source:
    """A data set that is read only when something needs its images.

    Args:
        spec: As in ``load_dataset``.
        pad_to: Pad the images to this size in pixels; None leaves them.
        device: Where networks are trained and tested on them.
        threads: With how many CPU threads.

    Raises:
        ConfigError: There is no such device, or the number of threads is out of range.
    """

    def __init__(self, spec: str, pad_to: int | None, device: str = "cpu", threads: Threads = None) -> None:
        self.spec = spec
        self.device = find_device(device)
        check_threads(threads)
        self.threads = threads
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
        threads: That trained it; None if it was not trained here.
    """

    name: str
    model: nn.Module
    key: str
    accuracy: float
    origin: str
    seed: int
    snapshot: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, BlockMask] = field(default_factory=dict)
    threads: int | None = None


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
        threads: That retrained it; None if it comes from a file.
    """

    model: nn.Module
    key: str
    masks: Mapping[str, BlockMask]
    before_finetune: float
    accuracy: float
    threads: int | None = None


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
