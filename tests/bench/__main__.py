"""Runs every case and prints goal, median and spread.

    python -m tests.bench          # or: make bench; leave the machine alone meanwhile
    python -m tests.bench --json
    python -m tests.bench networks convolution_against_dense    # some of the groups

Ratios are of calls made in turn in this one process; the spread is first to third quartile.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from pysim.config import Accelerator
from pysim.report.table import format_table
from pysim.sim import simulate_gemm, simulate_layer
from pysim.workload import BlockGrid
from tests.bench.case import Case, make_case, seconds
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
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.int8):
        w = rng.integers(-8, 9, (64, 576)).astype(dtype)
        x = rng.integers(-8, 9, (576, 784)).astype(dtype)
        for side in (16, 64):
            machine = Accelerator(rows=side, cols=side, dataflow="ws")
            result = simulate_gemm(w, x, block=(4, 4), accelerator=machine, engine="cycle")
            assert (result.output == w.astype(np.int64) @ x.astype(np.int64)).all()
            steps = result.cycles * side * side
            samples = seconds(
                lambda w=w, x=x, machine=machine: simulate_gemm(
                    w, x, block=(4, 4), accelerator=machine, engine="cycle"
                ),
                rounds=7,
            )
            goal = ">= 2.5 (AVX-512)" if side == 16 else ">= 5 (AVX-512)"
            name = f"cycle engine, {side} x {side}, {np.dtype(dtype).name}"
            yield make_case(name, goal, "1e9 PE-steps/s", steps / samples / 1e9)


CASES = (
    help_is_instant,
    event_engine_on_resnet20,
    cycle_engine_speed,
    *KERNEL_CASES,
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
