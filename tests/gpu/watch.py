"""Runs a child process, reads what it reports, and ends it when it is silent for too long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05


@dataclass
class Report:
    """What one child or several said and how the last one ended."""

    cases: dict[str, dict[str, Any]] = field(default_factory=dict)  # name to its outcome, text and figures
    why: str = ""  # empty if it ended by itself after its last case

    def failed(self) -> list[str]:
        return [name for name, case in self.cases.items() if case["outcome"] == "failed"]


def end_group(process: subprocess.Popen[Any]) -> None:
    """The process and everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def watch(arguments: list[str], lines: Path, *, silence: float, deadline: float) -> Report:
    """Runs ``python -m tests.gpu.child`` with arguments; lines is where it writes.

    Args:
        arguments: Of the child.
        lines: The file of its JSON lines; need not exist.
        silence: Seconds without a new line after which it counts as hung.
        deadline: Of time.monotonic.

    Returns:
        All cases; the one in which a child died or hung has failed, and says so.
    """
    report, begun, position, whole = Report(), None, 0, False
    process = subprocess.Popen([sys.executable, "-m", "tests.gpu.child", *arguments], start_new_session=True)
    heard = time.monotonic()
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
                    begun = None
                    report.cases[line.pop("end")] = line
                else:
                    whole = True
            if ended:
                report.why = "" if whole else f"the process ended with status {process.returncode}"
                break
            now = time.monotonic()
            if now - heard > silence or now > deadline:
                hung = now - heard > silence
                report.why = f"silent for {silence:g} s, so it was ended" if hung else "out of time"
                break
            time.sleep(_POLL_SECONDS)
    finally:
        end_group(process)
    if begun is not None:
        report.cases[begun] = {"outcome": "failed", "text": report.why}
    return report


def watch_tests(paths: list[str], *, silence: float, deadline: float) -> Report:
    """All tests of the paths; after one that takes its process down, another process goes on with the next."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        done, lines = Path(folder, "done"), Path(folder, "lines")
        while True:
            done.write_text("\n".join(report.cases))
            lines.unlink(missing_ok=True)
            found = watch(
                ["tests", str(lines), str(done), *paths], lines, silence=silence, deadline=deadline
            )
            report.cases.update(found.cases)
            report.why = found.why
            if not found.why or not found.cases or found.why == "out of time":
                return report
