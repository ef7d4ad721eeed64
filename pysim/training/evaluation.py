"""Accuracy on the test images, and batch norm's statistics anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pysim.training.batches import Batches

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """The default progress callback: says nothing."""


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    batch_size: int = 500,
    what: str = "testing",
    progress: Progress = no_progress,
) -> float:
    """Accuracy on the test images, in percent; on the device of ``batches``, then back on the CPU."""
    model.eval().to(batches.device)
    correct = seen = 0
    with torch.inference_mode():
        for images, labels in batches.test(batch_size):
            correct += int((model(images).argmax(dim=1) == labels).sum())
            seen += len(labels)
            progress(what, seen, batches.test_count)
    model.to("cpu")
    return 100.0 * correct / seen


def reestimate_batch_norm(
    model: nn.Module, batches: Batches, *, images: int = 2048, batch_size: int = 256
) -> None:
    """Replaces every batch norm's running statistics by plain means over the first training images.

    Pruning changes the statistics that batch norm has learnt; without this the first accuracy after pruning
    says more about them than about the mask.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    saved = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches that follow
    device = batches.device
    model.train().to(device)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # of dropout, which is active with the norms
        for chunk in batches.train_head(images).split(batch_size):
            model(chunk)
    model.eval().to("cpu")
    for norm, momentum in saved:
        norm.momentum = momentum
