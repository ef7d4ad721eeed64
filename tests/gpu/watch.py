"""Runs a child process, reads what it reports, and ends it when it is silent for too long."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.child import function_of

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0  # imports, before the first line
_END_SECONDS = 20.0  # of a killed process, which its GPU may hold back
WITH_CLUSTERS = " with clusters"
OUT_OF_TIME = "out of time"


@dataclass
class Report:
    """What one child or several said and how the last one ended."""

    cases: dict[str, dict[str, Any]] = field(default_factory=dict)  # name to its outcome, text and figures
    why: str = ""  # empty if it ended by itself after its last case
    died_in: str | None = None  # the case whose process died or hung

    def failed(self) -> list[str]:
        return [name for name, case in self.cases.items() if case["outcome"] == "failed"]


def end_group(process: subprocess.Popen[Any]) -> None:
    """The process and everything that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)


def watch(arguments: list[str], lines: Path, *, silence: float, deadline: float) -> Report:
    """Runs ``python -m tests.gpu.child`` with arguments; lines is where it writes.

    Args:
        arguments: Of the child.
        lines: The file of its JSON lines; need not exist.
        silence: Seconds from one line to the next after which it counts as hung.
        deadline: Of time.monotonic.

    Returns:
        All cases; the one in which a child died or hung has failed, and says so.
    """
    report, begun, last, position, whole = Report(), None, None, 0, False
    process = subprocess.Popen([sys.executable, "-m", "tests.gpu.child", *arguments], start_new_session=True)
    heard = time.monotonic() + _START_SECONDS
    try:
        while True:
            ended = process.poll() is not None  # before the last look: nothing is written after it
            text = lines.read_text() if lines.exists() else ""
            complete = text[position : text.rfind("\n") + 1]
            position += len(complete)
            for line in map(json.loads, complete.splitlines()):
                heard = time.monotonic()
                if "begin" in line:
                    begun = line["begin"]
                elif "end" in line:
                    begun, last = None, line.pop("end")
                    report.cases[last] = line
                else:
                    whole = True
            if ended:
                report.why = "" if whole else f"the process ended with status {process.returncode}"
                break
            now = time.monotonic()
            if now - heard > silence or now > deadline:
                hung = now - heard > silence
                report.why = f"silent for {silence:g} s, so it was ended" if hung else OUT_OF_TIME
                break
            time.sleep(_POLL_SECONDS)
    finally:
        end_group(process)
    if begun is not None:
        report.cases[begun] = {"outcome": "failed", "text": report.why}
    # A child may also end itself behind a case that failed.
    guilty = begun or (last if last in report.failed() else None)
    report.died_in = guilty if report.why not in ("", OUT_OF_TIME) else None
    return report


def watch_tests(paths: list[str], *, silence: float, deadline: float) -> Report:
    """All tests of the paths; after one that takes its process down, another process goes on with the next.

    What is left of a test function is given up when two of its cases have taken their processes down.
    """
    report = Report()
    deaths: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        done, lines = Path(folder, "done"), Path(folder, "lines")
        while True:
            done.write_text("\n".join(report.cases))
            lines.unlink(missing_ok=True)
            arguments = ["tests", str(lines), str(done), *paths]
            found = watch(arguments, lines, silence=silence, deadline=deadline)
            report.cases.update(found.cases)
            report.why = found.why
            if found.why in ("", OUT_OF_TIME) or not found.cases:
                return report
            if found.died_in is None:
                continue
            function = function_of(found.died_in)
            deaths[function] += 1
            if deaths[function] == 2 and function != found.died_in:
                text = "its other cases were not run, as two took their processes down"
                report.cases[function] = {"outcome": "failed", "text": text}


def watch_bench(name: str, math: str, clusters: Sequence[int], *, silence: float, deadline: float) -> Report:
    """One type of one table. A block that takes its process down is tried again without clusters, and so are
    the others behind it."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        done, lines = Path(folder, "done"), Path(folder, "lines")
        while True:
            done.write_text("\n".join(case for case in report.cases if not case.endswith(WITH_CLUSTERS)))
            lines.unlink(missing_ok=True)
            arguments = ["bench", str(lines), str(done), name, math, *map(str, clusters)]
            found = watch(arguments, lines, silence=silence, deadline=deadline)
            report.why = found.why
            if found.died_in is not None and clusters:
                found.cases[found.died_in + WITH_CLUSTERS] = found.cases.pop(found.died_in)
                clusters = ()
            report.cases.update(found.cases)
            if found.why in ("", OUT_OF_TIME) or not found.cases:
                return report
