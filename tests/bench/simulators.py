"""Speed and memory of the two engines, beside their goals and the recorded rates of other simulators."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from pysim.config import Accelerator, load_accelerator
from pysim.sim import simulate_gemm, simulate_layer
from tests.bench.case import Case, make_case, seconds
from tests.bench.networks import Product, decoder_7b, resnet20, resnet50

# Recorded once on the machine of the README, not run here.
SCALESIM_RESNET20_SECONDS = 22.0  # SCALE-Sim 3.0.0, the fastest of 22 to 31 s over dataflows.
STONNE_MACS_PER_SECOND = 1.2e6  # The fastest of 0.2 to 1.2 million.
ONNXIM_MACS_PER_SECOND = 826e6  # The fastest.


def _simulate(layers: list[Product], machine: Accelerator) -> Callable[[], object]:
    return lambda: [simulate_layer(p.grid, p.mask, p.n, machine, conv=p.conv) for p in layers]


def event_engine() -> Iterator[Case]:
    """Networks on a Gemmini with and without memory, 90 % of the blocks pruned."""
    gemmini = load_accelerator("gemmini-16")
    networks = [
        *((f"ResNet-20, block {block}", resnet20(block), "<= 1", 15) for block in (1, 4, 16)),
        ("ResNet-50 at 224 x 224, block 4", resnet50(4), "<= 10", 3),
        ("ResNet-50 at 224 x 224, block 16", resnet50(16), "<= 10", 3),
        ("225 products of a 7B decoder, 128 tokens, block 16", decoder_7b(128), "<= 1000", 1),
    ]
    for (name, layers, goal, rounds), memory in itertools.product(networks, (None, gemmini.memory)):
        machine = replace(gemmini, skip="gather", memory=memory)
        samples = seconds(_simulate(layers, machine), rounds=rounds)
        yield make_case(
            f"event engine, {name}, {'memory' if memory else 'no memory'}", goal, "ms", 1e3 * samples
        )


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
        samples = seconds(
            lambda w=w, x=x, machine=machine: simulate_gemm(
                w, x, block=(4, 4), accelerator=machine, engine="cycle"
            ),
            rounds=15,
        )
        name = f"cycle engine, {dataflow}, {side} x {side}, {np.dtype(dtype).name}"
        goal = ">= 2.5 (AVX-512)" if side == 16 else ">= 5 (AVX-512)"
        yield make_case(name, goal, "1e9 PE-steps/s", result.cycles * side * side / samples / 1e9)
        rate = result.macs / samples
        yield make_case(f"{name}, MACs of STONNE", ">= 100", "x", rate / STONNE_MACS_PER_SECOND)
        yield make_case(f"{name}, MACs of ONNXim", ">= 1", "x", rate / ONNXIM_MACS_PER_SECOND)


def cycle_engine_on_resnet20() -> Iterator[Case]:
    """All layers register by register, two at a time: the engine releases the GIL."""
    rng = np.random.default_rng(0)
    operands = [
        (
            p,
            rng.integers(-8, 9, (p.grid.m, p.grid.k)).astype(np.float32),
            rng.integers(-8, 9, (p.grid.k, p.n)).astype(np.float32),
        )
        for p in sorted(resnet20(4), key=lambda p: -p.grid.m * p.grid.k * p.n)
    ]
    gemmini = load_accelerator("gemmini-16")
    with ThreadPoolExecutor(2) as pool:
        for skip, memory in itertools.product(("none", "gather"), (None, gemmini.memory)):
            machine = replace(gemmini, skip=skip, memory=memory)

            def step(layer, machine=machine):
                p, w, x = layer
                return simulate_gemm(
                    w,
                    x,
                    block=(4, 4),
                    accelerator=machine,
                    engine="cycle",
                    mask=p.mask,
                    positions=p.grid.positions,
                    conv=p.conv,
                )

            samples = seconds(lambda step=step: list(pool.map(step, operands)), rounds=15)
            name = f"cycle engine, ResNet-20, {skip}, {'memory' if memory else 'no memory'}, 2 threads"
            yield make_case(name, "<= 100", "ms", 1e3 * samples)
            if skip == "none" and memory is None:
                ratio = SCALESIM_RESNET20_SECONDS / samples
                yield make_case(f"{name}, SCALE-Sim 3.0.0", ">= 200", "x faster", ratio)


_PEAK = """
import sys
from dataclasses import replace
from pysim.config import load_accelerator
from pysim.sim import list_timeline, simulate_layer
from tests.bench.networks import resnet50
machine = replace(load_accelerator("gemmini-16"), skip=sys.argv[1])
for p in resnet50(4):
    if sys.argv[2] == "0":
        simulate_layer(p.grid, p.mask, p.n, machine, conv=p.conv)
    else:
        list_timeline(p.grid, p.mask, p.n, machine, conv=p.conv, max_rows=int(sys.argv[2]))
# Not ru_maxrss, which begins with what the parent had.
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""


def memory_of_resnet50() -> Iterator[Case]:
    """Peak resident memory of a process that simulates every layer of ResNet-50, Python and all."""
    for skip, rows in itertools.product(("none", "gather"), (0, 1_000_000, 2**40)):
        command = [sys.executable, "-c", _PEAK, skip, str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        trace = "no timeline" if rows == 0 else "timeline uncut" if rows > 10**6 else "timeline"
        name = f"event engine, ResNet-50 at 224 x 224, {skip}, memory, {trace}"
        yield make_case(name, "<= 200", "MiB", np.array([float(done.stdout)]))


SIMULATOR_CASES = (event_engine, cycle_engine_speed, cycle_engine_on_resnet20, memory_of_resnet50)
