"""make test-cuda and make bench-cuda: everything that needs a GPU, in one command each, without network.

    python -m tests.gpu test OUT.json
    python -m tests.gpu bench OUT.json

Status 0: done and passed; 1: something failed; 2: there is no GPU, and nothing was run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pysim import runner
from pysim.atomic import write_bytes_atomic
from pysim.errors import PysimError
from pysim.report import render_gpu_bench
from tests.gpu.goals import BENCHES, judge
from tests.gpu.networks import resnet_layers

# All commands together stay below 8 minutes; what would take longer is left out and named.
_SECONDS = 440
_SANITIZER_TOOLS = ("memcheck", "racecheck")


class _Outcomes:
    """Counts outcomes and keeps the names of tests that did not pass."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)


def run_tests(found: dict[str, object]) -> bool:
    outcomes = _Outcomes()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "tests/gpu"], plugins=[outcomes])
    found["tests"] = dict(outcomes.counts)
    found["failed"] = outcomes.failed
    return status == 0


def run_sanitizer(found: dict[str, object], deadline: float) -> bool:
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer"
    )
    if tool is None:
        found["sanitizer"] = "not run: there is no compute-sanitizer here"
        print("compute-sanitizer: NOT RUN, it is not here", file=sys.stderr)
        return True
    results = {}
    for check in _SANITIZER_TOOLS:
        left = deadline - time.monotonic()
        if left < 20:
            results[check] = "not run: no time left"
            continue
        command = [
            tool,
            "--tool",
            check,
            "--error-exitcode",
            "9",
            sys.executable,
            "-m",
            "tests.gpu.sanitized",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            results[check] = "not finished: out of time"
            continue
        results[check] = (
            "clean" if done.returncode == 0 else f"status {done.returncode}: {done.stdout[-2000:]}"
        )
    found["sanitizer"] = results
    return not any(text.startswith("status") for text in results.values())


def run_benches(found: dict[str, object], device: torch.device, deadline: float) -> bool:
    tables, left_out, verdicts = [], [], []
    for name, config, maths in BENCHES:
        if deadline - time.monotonic() < 30:
            left_out.append(name)
            continue
        bench = runner.bench_gpu(config, device, maths=maths)
        print(f"\n{name}\n{render_gpu_bench(bench)}", flush=True)
        tables.append({"name": name, **bench.to_json()})
        verdicts += judge(bench)
    for verdict in verdicts:
        print(verdict)
    found["benches"], found["goals"] = tables, verdicts
    if deadline - time.monotonic() > 60:
        found["resnet_layers"] = [
            {"layer": name, **asdict(timing)} for name, timing in resnet_layers(device, deadline)
        ]
    else:
        left_out.append("ResNet layers")
    found["left_out"] = left_out
    return True


def main() -> int:
    what, path = sys.argv[1], Path(sys.argv[2])
    start = time.monotonic()
    try:
        device = runner.gpu_device()
    except PysimError as error:
        print(f"NO GPU TESTS WERE RUN: {error}", file=sys.stderr)
        return 2
    found: dict[str, object] = {
        "what": what,
        "gpu": torch.cuda.get_device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)),
        "torch": str(torch.__version__),
    }
    deadline = start + _SECONDS
    if what == "test":
        passed = run_tests(found)
        passed = run_sanitizer(found, deadline) and passed
    else:
        passed = run_benches(found, device, deadline)
    found["seconds"] = time.monotonic() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, json.dumps(found, indent=2).encode())
    print(f"{path}: {'passed' if passed else 'FAILED'} in {found['seconds']:.0f} s on {found['gpu']}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
