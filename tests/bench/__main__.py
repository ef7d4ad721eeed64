"""Runs every case and prints goal, median and spread.

    python -m tests.bench          # or: make bench; leave the machine alone meanwhile
    python -m tests.bench --json
    python -m tests.bench networks convolution_against_dense    # some of the groups
    python -m tests.bench --runs 5 --markdown kernels    # goal, best and worst of five runs

Ratios are of calls made in turn in this one process; the spread is first to third quartile.
"""

from __future__ import annotations

import argparse
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


GROUPS = {group.__name__: group for group in CASES}
SETS = {"kernels": KERNEL_CASES, "simulators": SIMULATOR_CASES}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Goals, and what is reached.")
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"default: all of {', '.join([*SETS, *GROUPS])}"
    )
    parser.add_argument("--runs", type=int, default=1, help="times to run everything, one after the other")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one list of cases for each run")
    form.add_argument("--markdown", action="store_true", help="goal, best and worst median of the runs")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.groups if name not in GROUPS and name not in SETS]
    if unknown or options.runs < 1:
        parser.error(f"unknown groups: {', '.join(unknown)}" if unknown else "expected at least one run")
    return options


def text_table(runs: list[list[Case]]) -> str:
    rows = [
        [c.name, c.goal, f"{c.quartiles[1]:.2f}", f"{c.quartiles[0]:.2f} .. {c.quartiles[2]:.2f}", c.unit]
        for run in runs
        for c in run
    ]
    return format_table(["case", "goal", "median", "quartiles", "unit"], rows)


def markdown_table(runs: list[list[Case]]) -> str:
    """The best and the worst of the runs' medians. Where less is better the least is the best."""
    lines = ["| case | goal | best | worst | unit |", "|---|---|---|---|---|"]
    medians: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for case in run:
            medians.setdefault((case.name, case.goal, case.unit), []).append(case.quartiles[1])
    for (name, goal, unit), found in medians.items():
        low, high = f"{min(found):.2f}", f"{max(found):.2f}"
        best, worst = (low, high) if goal.startswith("<") or unit in ("ms", "us") else (high, low)
        lines.append(f"| {name} | {goal} | {best} | {worst} | {unit} |")
    return "\n".join(lines)


def main() -> None:
    options = parse(sys.argv[1:])
    wanted = {
        group.__name__ for name in options.groups for group in SETS.get(name, (GROUPS.get(name),)) if group
    }
    groups = [group for group in CASES if not wanted or group.__name__ in wanted]
    runs = []
    for run in range(options.runs):
        if options.runs > 1:
            print(f"run {run + 1} of {options.runs}", file=sys.stderr, flush=True)
        runs.append([case for group in groups for case in group()])
    if options.json:
        found = [[asdict(case) for case in run] for run in runs]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2))
    else:
        print(markdown_table(runs) if options.markdown else text_table(runs))


if __name__ == "__main__":
    main()
