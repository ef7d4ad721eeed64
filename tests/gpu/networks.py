"""The layers of ResNet-20, and of ResNet-50's 3 x 3 and 1 x 1 shapes, timed on a GPU at 90 % sparsity."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import nn

from pysim.lowering import trace
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.result import KernelTiming
from pysim.runner.gpu_timing import time_layers_on

# Channels in and out, kernel, image: the repeated layers of ResNet-50 at 224 x 224.
RESNET50 = (
    (64, 64, 3, 56),
    (128, 128, 3, 28),
    (256, 256, 3, 14),
    (512, 512, 3, 7),
    (256, 64, 1, 56),
    (1024, 256, 1, 14),
)


def resnet_layers(
    device: torch.device, deadline: float, batch: int = 32, image_size: int = 32
) -> Iterator[tuple[str, KernelTiming]]:
    """Stops at the deadline of time.monotonic."""
    torch.manual_seed(0)
    shape = InputShape(channels=3, height=image_size, width=image_size, num_classes=10)
    models: list[tuple[str, nn.Module, tuple[int, ...]]] = [
        ("resnet20", build_model("resnet20", shape), (batch, 3, image_size, image_size))
    ]
    models += [
        (
            f"resnet50 {i}-{o} {k}x{k} at {size}",
            nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2)),
            (batch, i, size, size),
        )
        for i, o, k, size in RESNET50
    ]
    for name, model, size in models:
        for block in ((4, 4), (16, 16)):
            if time.monotonic() > deadline:
                return
            pruned = model.eval()
            config = PruneConfig(block=block, sparsity=0.9, prune_all=True)
            masks = prune_one_shot(pruned, config)
            image = torch.randn(size)
            workload, _ = trace(pruned, image)
            names = frozenset(layer.name for layer in workload.layers)
            _, activations = trace(pruned, image, keep_activations=names)
            weights = dict(pruned.named_parameters())
            timings = time_layers_on(device, workload.layers, weights, activations, masks)
            for layer, timing in zip(workload.layers, timings, strict=True):
                if timing is not None and timing.isa != "torch":
                    yield (
                        f"{name}, {layer.name}, {block[0]}x{block[1]}, {layer.m} x {layer.k} x {layer.n}",
                        timing,
                    )
