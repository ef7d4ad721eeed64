"""Fuzzes targets one after the other, each in a process of its own: python -m tests.fuzz [NAME ...]"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parent
REGRESSIONS = FOLDER / "regressions"
_WORK = FOLDER.parent.parent / "build" / "fuzz"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in TARGETS]
    if unknown:
        parser.error(f"expected some of {', '.join(TARGETS)}, got {unknown[0]}")
    blind = importlib.util.find_spec("atheris") is None
    if blind:
        print("atheris is not here: mutations without coverage", flush=True)
    findings = sum(not _fuzz(name, given.seconds, blind) for name in given.names or TARGETS)
    if findings:
        sys.exit(f"{findings} targets have findings: fix the reader; make test replays the files from now on")


def _fuzz(name: str, seconds: int, blind: bool) -> bool:
    """Fuzzes a target and says how it went. Returns whether nothing was found."""
    found = _WORK / "found" / name
    before = set(found.glob("*"))
    command = [sys.executable, "-m", "tests.fuzz.one", name, "--seconds", str(seconds)]
    command += ["--corpus", str(_WORK / "corpus" / name), "--found", str(found), *["--blind"][: int(blind)]]
    log = _WORK / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=FOLDER.parent.parent)
    text = log.read_text(errors="replace")
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    covered = re.findall(r"cov: (\d+)", text)
    new = sorted(set(found.glob("*")) - before)
    counts = f"{int(runs[1]):>9,} inputs" if runs else "        ? inputs"
    counts += f", {covered[-1]:>5} branches" if covered else ""
    if done.returncode == 0 and not new:
        print(f"{name:<20} {counts}", flush=True)
        return True
    print(f"{name:<20} {counts}, FINDING: {_reason(text)}; {log}", flush=True)
    for path in new:
        (REGRESSIONS / name).mkdir(parents=True, exist_ok=True)
        kept = REGRESSIONS / name / path.name
        kept.write_bytes(path.read_bytes())
        print(f"  kept as {kept}", flush=True)
    return False


def _reason(text: str) -> str:
    """The exception, or what libFuzzer says."""
    said = re.findall(r"^(?:\w+(?:\.\w+)*(?:Error|Exception)\b.*|.*ERROR: libFuzzer.*)$", text, re.MULTILINE)
    return said[0][:200] if said else "see the log"


if __name__ == "__main__":
    main()
