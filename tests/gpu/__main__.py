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
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pysim import runner
from pysim.atomic import write_bytes_atomic
from pysim.errors import PysimError
from pysim.runner.gpu_bench import CLUSTERS
from tests.gpu.goals import BENCHES
from tests.gpu.watch import WITH_CLUSTERS, Report, end_group, watch, watch_bench, watch_tests

# All commands together stay below 8 minutes; what would take longer is left out and named.
_SECONDS = 440
_SANITIZER_TOOLS = ("memcheck", "racecheck")


# A test or a row takes some seconds; what is silent for longer hangs.
_SILENCE = 60.0


def run_tests(found: dict[str, object], deadline: float) -> bool:
    # What follows keeps a third of the time.
    until = deadline - (deadline - time.monotonic()) / 3
    report = watch_tests(["tests/gpu"], silence=_SILENCE, deadline=until)
    found["tests"] = dict(Counter(case["outcome"] for case in report.cases.values()))
    found["failed"] = {name: report.cases[name]["text"] for name in report.failed()}
    found["unfinished"] = report.why
    for name, text in report.cases.items():
        if text["outcome"] == "failed":
            print(f"FAILED {name}\n{text['text']}", file=sys.stderr)
    return not report.failed() and not report.why


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
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            text, _ = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            results[check] = "not finished: out of time"
            continue
        finally:
            end_group(process)
        results[check] = verdict(process.returncode, text)
        print(f"compute-sanitizer {check}: {results[check]}", file=sys.stderr)
    found["sanitizer"] = results
    return not any(text.startswith("status") for text in results.values())


def verdict(status: int, text: str) -> str:
    """What a run of compute-sanitizer shows."""
    if status == 0:
        return "clean"
    if "Device not supported" in text or "does not support the device" in text:
        return f"not run: it does not work on this machine: {text[-500:]}"
    return f"status {status}: {text[-3000:]}"


def run_benches(found: dict[str, object], deadline: float) -> bool:
    """Each type of each table in a process of its own, so that one that fails leaves the others."""
    clusters: Sequence[int] = CLUSTERS
    for name, _, maths in BENCHES:
        for math in maths:
            what = f"{name}, {math}"
            if deadline - time.monotonic() < 30:
                add_bench(found, what, Report(why="no time left"))
                continue
            report = watch_bench(name, math, clusters, silence=_SILENCE, deadline=deadline)
            if any(case.endswith(WITH_CLUSTERS) for case in report.failed()):
                clusters = ()  # once is enough
            add_bench(found, what, report)
    left = deadline - time.monotonic()
    layers = Report(why="no time left")
    if left > 60:
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "lines")
            arguments = ["resnet", str(lines), str(left - 20)]
            layers = watch(arguments, lines, silence=_SILENCE, deadline=deadline)
    add_bench(found, "ResNet layers", layers)
    return not found["failed"] and not found["unfinished"]


def add_bench(found: dict[str, Any], what: str, report: Report) -> None:
    """Puts a report's figures and failures where the JSON keeps them."""
    cases = [case for case in report.cases.values() if "table" in case]
    if cases:
        rows = [row for case in cases for row in case["table"]["rows"]]
        found.setdefault("benches", []).append({"name": what, **cases[0]["table"], "rows": rows})
    layers = [case["layer"] for case in report.cases.values() if "layer" in case]
    found.setdefault("resnet_layers", []).extend(layers)
    goals = [goal for case in cases for goal in case["goals"]]
    found.setdefault("goals", []).extend(goals)
    found.setdefault("failed", {}).update({name: report.cases[name]["text"] for name in report.failed()})
    found.setdefault("unfinished", {}).update({what: report.why} if report.why else {})
    for line in goals:
        print(line, flush=True)


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
    passed = False
    try:
        if what == "test":
            passed = run_tests(found, deadline)
            passed = run_sanitizer(found, deadline) and passed
        else:
            passed = run_benches(found, deadline)
    finally:  # whatever happened, what was found so far is kept
        found["seconds"] = time.monotonic() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, json.dumps(found, indent=2).encode())
    print(f"{path}: {'passed' if passed else 'FAILED'} in {found['seconds']:.0f} s on {found['gpu']}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
