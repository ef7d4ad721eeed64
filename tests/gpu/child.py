"""A process of its own for what may take the GPU's context down with it.

    python -m tests.gpu.child tests LINES DONE PATH...             # one JSON line for each test
    python -m tests.gpu.child bench LINES DONE TABLE MATH CLUSTER... # one line for each block
    python -m tests.gpu.child resnet LINES SECONDS                 # one line for each layer

DONE is a file of names to leave out.

Every line says what begins or what came out of it, as soon as that is known: what reads them knows where a
process died or hung.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pysim import runner
from pysim.report import render_gpu_bench
from pysim.runner import KernelBenchConfig
from pysim.sparse.gpu import Math
from tests.gpu.goals import BENCHES, judge
from tests.gpu.networks import resnet_layers


class Lines:
    """Appends JSON lines to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **line: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def context_is_dead() -> bool:
    """Whether an earlier kernel's error stays, so that everything else would fail as well."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def function_of(nodeid: str) -> str:
    """The test without its parameters."""
    return nodeid.split("[")[0]


class Reporter:
    """A pytest plugin: leaves out what is done, reports each test, and ends the process with the context."""

    def __init__(self, lines: Lines, done: set[str]) -> None:
        self._lines, self._done = lines, done

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._done.isdisjoint({item.nodeid, function_of(item.nodeid)})]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._lines.write(begin=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        text = report.longreprtext[-2000:] if report.failed else ""
        self._lines.write(end=report.nodeid, outcome=report.outcome, text=text)
        if report.failed and context_is_dead():
            os._exit(3)


def run_tests(lines: Lines, done: set[str], paths: list[str]) -> None:
    pytest.main(["-q", "-p", "no:cacheprovider", *paths], plugins=[Reporter(lines, done)])
    lines.write(all=True)


def run_bench(
    lines: Lines,
    done: set[str],
    name: str,
    config: KernelBenchConfig,
    math: Math,
    device: torch.device,
    clusters: list[int],
) -> None:
    """Blocks one after the other; one that fails is reported, and the next is tried."""
    for block in config.blocks:
        what = f"{name}, {math} {block[0]}x{block[1]}"
        if what in done:
            continue
        lines.write(begin=what)
        try:
            one = replace(config, blocks=(block,))
            bench = runner.bench_gpu(one, device, maths=(math,), clusters=clusters)
        except Exception as error:  # whatever it is, the other blocks are still to be measured
            traceback.print_exc()
            lines.write(end=what, outcome="failed", text=f"{type(error).__name__}: {error}")
            if context_is_dead():
                os._exit(3)
            continue
        print(f"\n{name}\n{render_gpu_bench(bench)}", flush=True)
        wrong = [row for row in bench.rows if row.max_error > 1]
        lines.write(
            end=what,
            outcome="failed" if wrong else "passed",
            text=f"an error of {wrong[0].max_error:.3g} times what rounding allows" if wrong else "",
            table=bench.to_json(),
            goals=judge(bench),
        )
    lines.write(all=True)


def run_resnet(lines: Lines, device: torch.device, seconds: float) -> None:
    for name, timing in resnet_layers(device, time.monotonic() + seconds):
        lines.write(end=name, outcome="passed", text="", layer={"layer": name, **asdict(timing)})
    lines.write(all=True)


def main() -> None:
    what, path, *rest = sys.argv[1:]
    lines = Lines(Path(path))
    if what == "resnet":
        run_resnet(lines, runner.gpu_device(), float(rest[0]))
        return
    done = set(Path(rest[0]).read_text().splitlines())
    if what == "tests":
        run_tests(lines, done, rest[1:])
    else:
        name, config, maths = next(bench for bench in BENCHES if bench[0] == rest[1])
        math = next(math for math in maths if math == rest[2])
        run_bench(lines, done, name, config, math, runner.gpu_device(), [int(size) for size in rest[3:]])


if __name__ == "__main__":
    main()
