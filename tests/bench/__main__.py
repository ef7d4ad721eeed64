"""Runs every case and prints goal, median and spread.

    python -m tests.bench          # or: make bench; leave the machine alone meanwhile
    python -m tests.bench --json
    python -m tests.bench networks convolution_against_dense    # some of the groups

Ratios are of calls made in turn in this one process; the spread is first to third quartile.
"""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pysim.config import Accelerator
from pysim.data import load_dataset
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.report.table import format_table
from pysim.runner.methods import finetune_config
from pysim.sim import simulate_gemm, simulate_layer
from pysim.training import Batches, train
from pysim.workload import BlockGrid
from tests.bench.case import Case, make_case, ratios, seconds
from tests.bench.kernels import CASES as KERNEL_CASES


def help_is_instant() -> Iterator[Case]:
    command = [sys.executable, "-c", "from pysim.cli import main; main(['--help'])"]
    samples = seconds(lambda: subprocess.run(command, check=True, capture_output=True), rounds=11)
    yield make_case("pysim --help", "<= 150", "ms", 1e3 * samples)


def _resnet20_layers(block: int) -> list[tuple[BlockGrid, np.ndarray, int]]:
    """The 18 prunable layers at 28 x 28 with random masks of 90 % sparsity."""
    rng = np.random.default_rng(0)
    shapes = [(16, 144, 784)] * 6 + [(32, 144, 196)] + [(32, 288, 196)] * 5
    shapes += [(64, 288, 49)] + [(64, 576, 49)] * 5
    layers = []
    for m, k, n in shapes:
        grid = BlockGrid(m=m, k=k, positions=9, bh=block, bw=block)
        layers.append((grid, rng.random(grid.shape) < 0.1, n))
    return layers


def event_engine_on_resnet20() -> Iterator[Case]:
    machine = Accelerator(name="gemmini-16", rows=16, cols=16, dataflow="ws", skip="gather")
    for block in (1, 4, 16):
        layers = _resnet20_layers(block)
        samples = seconds(
            lambda layers=layers: [simulate_layer(grid, keep, n, machine) for grid, keep, n in layers],
            rounds=31,
        )
        yield make_case(f"event engine, ResNet-20, block {block}", "<= 1", "ms", 1e3 * samples)


def cycle_engine_speed() -> Iterator[Case]:
    """PEs clocked per second; every dataflow streams 784 or 576 operands through a fold."""
    rng = np.random.default_rng(0)
    for dataflow, side, dtype in itertools.product(("ws", "os", "is"), (16, 64), (np.float32, np.int8)):
        m, n = (784, 64) if dataflow == "is" else (64, 784)
        w = rng.integers(-8, 9, (m, 576)).astype(dtype)
        x = rng.integers(-8, 9, (576, n)).astype(dtype)
        machine = Accelerator(rows=side, cols=side, dataflow=dataflow)
        result = simulate_gemm(w, x, block=(4, 4), accelerator=machine, engine="cycle")
        assert (result.output == w.astype(np.int64) @ x.astype(np.int64)).all()
        steps = result.cycles * side * side
        samples = seconds(
            lambda w=w, x=x, machine=machine: simulate_gemm(
                w, x, block=(4, 4), accelerator=machine, engine="cycle"
            ),
            rounds=15,
        )
        goal = ">= 2.5 (AVX-512)" if side == 16 else ">= 5 (AVX-512)"
        name = f"cycle engine, {dataflow}, {side} x {side}, {np.dtype(dtype).name}"
        yield make_case(name, goal, "1e9 PE-steps/s", steps / samples / 1e9)


def cycle_engine_on_resnet20() -> Iterator[Case]:
    """All layers register by register, two at a time: the engine releases the GIL."""
    rng = np.random.default_rng(0)
    operands = [
        (
            grid,
            keep,
            rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32),
            rng.integers(-8, 9, (grid.k, n)).astype(np.float32),
        )
        for grid, keep, n in sorted(
            _resnet20_layers(4), key=lambda layer: -layer[0].m * layer[0].k * layer[2]
        )
    ]
    with ThreadPoolExecutor(2) as pool:
        for skip in ("none", "gather"):
            machine = Accelerator(name="gemmini-16", rows=16, cols=16, dataflow="ws", skip=skip)

            def step(layer, machine=machine):
                grid, keep, w, x = layer
                return simulate_gemm(
                    w,
                    x,
                    block=(4, 4),
                    accelerator=machine,
                    engine="cycle",
                    mask=keep,
                    positions=grid.positions,
                )

            samples = seconds(lambda step=step: list(pool.map(step, operands)), rounds=15)
            yield make_case(f"cycle engine, ResNet-20, {skip}, 2 threads", "<= 100", "ms", 1e3 * samples)


def finetuning_against_a_bare_loop() -> Iterator[Case]:
    """ResNet-20: the loop of ``train`` with block masks against one without, on batches that are ready."""
    whole = load_dataset("synthetic:1x28x28")
    dataset = replace(whole, train_images=whole.train_images[:256], train_labels=whole.train_labels[:256])
    config = finetune_config(epochs=1, seed=0)
    batches = Batches(dataset, crop_pad=config.crop_pad)
    model = build_model("resnet20", InputShape(channels=1, height=28, width=28, num_classes=10))
    masks = element_masks(model, prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9)))
    ready = list(batches.train(config.batch_size, seed=0, epoch=0, flip=True))
    bare_model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(bare_model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def bare() -> None:
        bare_model.train()
        for images, labels in ready:
            loss = cross_entropy(bare_model(images), labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    found = ratios(bare, lambda: train(model, batches, config, masks=masks), calls=1)
    yield make_case("fine-tuning, ResNet-20, 4x4, masks", ">= 0.95", "x bare loop's speed", found)


CASES = (
    help_is_instant,
    event_engine_on_resnet20,
    cycle_engine_speed,
    cycle_engine_on_resnet20,
    *KERNEL_CASES,
    finetuning_against_a_bare_loop,
)


def main() -> None:
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    groups = [group for group in CASES if not wanted or group.__name__ in wanted]
    found = [case for group in groups for case in group()]
    if "--json" in sys.argv[1:]:
        print(json.dumps([asdict(case) for case in found], indent=2))
        return
    rows = [
        [c.name, c.goal, f"{c.quartiles[1]:.2f}", f"{c.quartiles[0]:.2f} .. {c.quartiles[2]:.2f}", c.unit]
        for c in found
    ]
    print(format_table(["case", "goal", "median", "quartiles", "unit"], rows))


if __name__ == "__main__":
    main()
