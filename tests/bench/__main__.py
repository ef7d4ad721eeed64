"""Runs every case and prints goal, median and spread.

    python -m tests.bench          # or: make bench; leave the machine alone meanwhile
    python -m tests.bench --json

Ratios are of calls made in turn in this one process; the spread is first to third quartile.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch.nn.functional import conv2d, cross_entropy

from pysim.data import load_dataset
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.report.table import format_table
from pysim.runner.methods import finetune_config
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan, compress
from pysim.training import Batches, train
from pysim.workload import BlockGrid
from tests.bench.case import Case, case_of, seconds
from tests.bench.simulators import SIMULATOR_CASES


def help_is_instant() -> Iterator[Case]:
    command = [sys.executable, "-c", "from pysim.cli import main; main(['--help'])"]
    samples = seconds(lambda: subprocess.run(command, check=True, capture_output=True), rounds=11)
    yield case_of("pysim --help", "<= 150", "ms", 1e3 * samples)


def spmm_against_dense() -> Iterator[Case]:
    goals = {(64, 1): 4.3, (64, 2): 7, (64, 4): 9.5, (64, 8): 10, (64, 16): 10.5, (1, 4): 11, (1, 16): 14}
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for (n, block), goal in goals.items():
        grid = BlockGrid(m=768, k=768, bh=block, bw=block)
        w = rng.standard_normal((768, 768)).astype(np.float32) * grid.expand(rng.random(grid.shape) < 0.1)
        x = torch.from_numpy(rng.standard_normal((768, n)).astype(np.float32))
        dense = torch.from_numpy(w)
        plan = SpmmPlan(BsrMatrix.from_dense(w, grid), threads=1)
        torch.testing.assert_close(plan(x), dense @ x, rtol=1e-4, atol=1e-4)
        calls = 50 if n == 1 else 5
        ratios = [
            float(
                seconds(lambda: torch.mm(dense, x), rounds=1, calls=calls)[0]  # noqa: B023
                / seconds(lambda: plan(x), rounds=1, calls=calls)[0]  # noqa: B023
            )
            for _ in range(31)
        ]
        name = f"spmm 768 x 768, n = {n}, 90 %, block {block}, {plan.isa}, 1 thread"
        yield case_of(name, f">= {goal} (AVX-512)", "x dense", np.array(ratios))


def _ratios(dense: Callable[[], object], sparse: Callable[[], object], *, calls: int) -> np.ndarray:
    """Dense time over sparse time, round by round, the two called in turn."""
    pairs = [
        (seconds(dense, rounds=1, calls=calls)[0], seconds(sparse, rounds=1, calls=calls)[0])
        for _ in range(31)
    ]
    return np.array([d / s for d, s in pairs])


def convolution_against_dense() -> Iterator[Case]:
    """The 3 x 3 layers of ResNet-20 at 28 x 28, against eager conv2d."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for channels, side in ((16, 28), (32, 14), (64, 7)):
        for batch, goal in ((1, 9), (8, 6.5)):
            grid = BlockGrid(m=channels, k=9 * channels, positions=9, bh=4, bw=4)
            rows = rng.standard_normal((channels, 9 * channels)).astype(np.float32)
            rows *= grid.expand(rng.random(grid.shape) < 0.1)
            weight = torch.from_numpy(rows.reshape(channels, 3, 3, channels).transpose(0, 3, 1, 2).copy())
            x = torch.from_numpy(rng.standard_normal((batch, channels, side, side)).astype(np.float32))
            plan = ConvPlan([BsrMatrix.from_dense(rows, grid)], kernel_size=(3, 3), padding=(1, 1))
            torch.testing.assert_close(plan(x), conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
            with torch.inference_mode():
                ratios = _ratios(
                    lambda: conv2d(x, weight, padding=1),  # noqa: B023
                    lambda: plan(x),  # noqa: B023
                    calls=20,
                )
            name = f"conv {channels} x {side} x {side}, batch {batch}, 90 %, block 4, {plan.isa}, 1 thread"
            yield case_of(name, f">= {goal} (AVX-512)", "x dense", ratios)


def compressed_resnet20() -> Iterator[Case]:
    """The whole network, ReLU, batch norm and all."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = build_model("resnet20", InputShape(channels=1, height=28, width=28, num_classes=10)).eval()
        prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9))
        for batch in (1, 16):
            x = torch.randn(batch, 1, 28, 28)
            small = compress(model, x).model
            with torch.inference_mode():
                torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
                ratios = _ratios(lambda: model(x), lambda: small(x), calls=3)  # noqa: B023
            yield case_of(f"compressed ResNet-20, batch {batch}, {threads} threads", "> 1", "x dense", ratios)


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

    ratios = _ratios(bare, lambda: train(model, batches, config, masks=masks), calls=1)
    yield case_of("fine-tuning, ResNet-20, 4x4, masks", ">= 0.95", "x bare loop's speed", ratios)


CASES = (
    help_is_instant,
    *SIMULATOR_CASES,
    spmm_against_dense,
    convolution_against_dense,
    compressed_resnet20,
    finetuning_against_a_bare_loop,
)


def main() -> None:
    found = [case for group in CASES for case in group()]
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
