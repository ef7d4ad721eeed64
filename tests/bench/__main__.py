"""Runs every case and prints goal, median and spread.

    python -m tests.bench          # or: make bench; leave the machine alone meanwhile
    python -m tests.bench --json

Ratios are of calls made in turn in this one process; the spread is first to third quartile.
"""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch.nn.functional import conv2d, cross_entropy

from pysim.config import Accelerator
from pysim.data import load_dataset
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.report.table import format_table
from pysim.runner.methods import finetune_config
from pysim.sim import simulate_gemm, simulate_layer
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan, compress
from pysim.training import Batches, train
from pysim.workload import BlockGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measured figure: its goal as text, and the quartiles of what was seen."""

    name: str
    goal: str
    unit: str
    quartiles: tuple[float, float, float]


def _seconds(call: Callable[[], object], *, rounds: int, calls: int = 1) -> np.ndarray:
    call()
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        samples.append((time.perf_counter() - start) / calls)
    return np.array(samples)


def _case(name: str, goal: str, unit: str, samples: np.ndarray) -> Case:
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return Case(name=name, goal=goal, unit=unit, quartiles=(float(low), float(median), float(high)))


def help_is_instant() -> Iterator[Case]:
    command = [sys.executable, "-c", "from pysim.cli import main; main(['--help'])"]
    samples = _seconds(lambda: subprocess.run(command, check=True, capture_output=True), rounds=11)
    yield _case("pysim --help", "<= 150", "ms", 1e3 * samples)


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
        samples = _seconds(
            lambda layers=layers: [simulate_layer(grid, keep, n, machine) for grid, keep, n in layers],
            rounds=31,
        )
        yield _case(f"event engine, ResNet-20, block {block}", "<= 1", "ms", 1e3 * samples)


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
        samples = _seconds(
            lambda w=w, x=x, machine=machine: simulate_gemm(
                w, x, block=(4, 4), accelerator=machine, engine="cycle"
            ),
            rounds=15,
        )
        goal = ">= 2.5 (AVX-512)" if side == 16 else ">= 5 (AVX-512)"
        name = f"cycle engine, {dataflow}, {side} x {side}, {np.dtype(dtype).name}"
        yield _case(name, goal, "1e9 PE-steps/s", steps / samples / 1e9)


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

            samples = _seconds(lambda step=step: list(pool.map(step, operands)), rounds=15)
            yield _case(f"cycle engine, ResNet-20, {skip}, 2 threads", "<= 100", "ms", 1e3 * samples)


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
                _seconds(lambda: torch.mm(dense, x), rounds=1, calls=calls)[0]  # noqa: B023
                / _seconds(lambda: plan(x), rounds=1, calls=calls)[0]  # noqa: B023
            )
            for _ in range(31)
        ]
        name = f"spmm 768 x 768, n = {n}, 90 %, block {block}, {plan.isa}, 1 thread"
        yield _case(name, f">= {goal} (AVX-512)", "x dense", np.array(ratios))


def _ratios(dense: Callable[[], object], sparse: Callable[[], object], *, calls: int) -> np.ndarray:
    """Dense time over sparse time, round by round, the two called in turn."""
    pairs = [
        (_seconds(dense, rounds=1, calls=calls)[0], _seconds(sparse, rounds=1, calls=calls)[0])
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
            yield _case(name, f">= {goal} (AVX-512)", "x dense", ratios)


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
            yield _case(f"compressed ResNet-20, batch {batch}, {threads} threads", "> 1", "x dense", ratios)


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
    yield _case("fine-tuning, ResNet-20, 4x4, masks", ">= 0.95", "x bare loop's speed", ratios)


CASES = (
    help_is_instant,
    event_engine_on_resnet20,
    cycle_engine_speed,
    cycle_engine_on_resnet20,
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
