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

from pysim.report.table import format_table
from tests.bench.case import Case, make_case, seconds
from tests.bench.kernels import CASES as KERNEL_CASES
from tests.bench.simulators import SIMULATOR_CASES
from tests.bench.training import TRAINING_CASES


def help_is_instant() -> Iterator[Case]:
    command = [sys.executable, "-c", "from pysim.cli import main; main(['--help'])"]
    samples = seconds(lambda: subprocess.run(command, check=True, capture_output=True), rounds=11)
    yield make_case("pysim --help", "<= 150", "ms", 1e3 * samples)


CASES = (
    help_is_instant,
    *SIMULATOR_CASES,
    *KERNEL_CASES,
    *TRAINING_CASES,
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
