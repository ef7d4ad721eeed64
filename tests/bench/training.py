"""Fine-tuning against a bare PyTorch loop on the same network: under masks, and on block-sparse layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pysim.data import load_dataset
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.runner.methods import finetune_config
from pysim.runner.sparse_training import sparse_twin
from pysim.training import Batches, TrainConfig, train
from pysim.workload import BlockMask
from tests.bench.case import Case, make_case, ratios

IMAGES = 256


def _problem() -> tuple[nn.Module, dict[str, BlockMask], Batches, TrainConfig]:
    """ResNet-20, 90 % of its 4x4 blocks pruned, and four batches of images."""
    whole = load_dataset("synthetic:1x28x28")
    few = replace(whole, train_images=whole.train_images[:IMAGES], train_labels=whole.train_labels[:IMAGES])
    config = finetune_config(epochs=1, seed=0)
    model = build_model("resnet20", InputShape(channels=1, height=28, width=28, num_classes=10))
    masks = prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9))
    return model, masks, Batches(few, crop_pad=config.crop_pad), config


def _bare_loop(model: nn.Module, batches: Batches, config: TrainConfig) -> Callable[[], None]:
    """What one would write without pysim: no masks, no schedule, batches that are ready."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    ready: list[tuple[Tensor, Tensor]] = list(batches.train(config.batch_size, seed=0, epoch=0, flip=True))

    def run() -> None:
        model.train()
        for images, labels in ready:
            loss = cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def finetuning_against_a_bare_loop() -> Iterator[Case]:
    model, masks, batches, config = _problem()
    bare = _bare_loop(model, batches, config)
    elements = element_masks(model, masks)
    found = ratios(bare, lambda: train(model, batches, config, masks=elements), calls=1)
    yield make_case("fine-tuning, ResNet-20, 4x4, masks", ">= 0.95", "x bare loop's speed", found)


def sparse_training_against_a_bare_loop() -> Iterator[Case]:
    """``--sparse-training``, on one thread and on two. docs/pruning.md says where a step's time goes."""
    model, masks, batches, config = _problem()
    bare = _bare_loop(model, batches, config)
    twin, _ = sparse_twin(model, masks, batches.train_head(1))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = ratios(bare, lambda: train(twin, batches, config, channels_last=False), calls=1)
            name = f"fine-tuning, ResNet-20, 4x4 at 90 %, sparse, threads {threads}"
            yield make_case(name, ">= 1.5", "x bare loop's speed", found)
    finally:
        torch.set_num_threads(before)


TRAINING_CASES = (finetuning_against_a_bare_loop, sparse_training_against_a_bare_loop)
