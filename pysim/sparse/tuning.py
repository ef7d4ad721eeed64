"""The sparsity from which block-sparse products were faster on this machine, as ``pysim tune`` measured it.

What was measured is kept under pysim's cache, named by everything that it depends on: CPU, instruction set,
threads, torch and the compiled kernels. On another machine, or after an update, nothing is found.
"""

from __future__ import annotations

import functools
import json
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pysim import _core
from pysim.atomic import write_bytes_atomic
from pysim.errors import DataError, PysimWarning, printable
from pysim.result import TUNING_SCHEMA, BreakEven, Tuning
from pysim.store import cache_folder, content_key, file_digest

_MOST_BYTES = 1 << 16
# Columns of X that were measured stand for all up to the next; fewer than the first stand for nothing.
HEIGHTS = (1, 2, 4, 8, 16)
COLUMNS = (1, 16, 64, 512)


def describe_machine(threads: int) -> dict[str, str | int]:
    """Everything that a break-even depends on."""
    return {
        "cpu": _cpu_name(),
        "isa": _core.resolve_isa(""),
        "threads": threads,
        "torch": str(torch.__version__),
        "kernels": _kernels(),
    }


def tuning_path(threads: int) -> Path:
    """Where the break-evens of this machine are kept, or would be."""
    return cache_folder() / "tune" / f"{content_key(describe_machine(threads))}.json"


def save_tuning(tuning: Tuning, threads: int) -> Path:
    """Writes it in one step. Raises OSError."""
    path = tuning_path(threads)
    write_bytes_atomic(path, (json.dumps(tuning.to_json(), indent=1, allow_nan=False) + "\n").encode())
    return path


def load_tuning(threads: int) -> Tuning | None:
    """What was measured on this machine; None if nothing was, or, with a warning, if the file is broken."""
    path = tuning_path(threads)
    if not path.exists():
        return None
    try:
        return read_tuning(path, describe_machine(threads))
    except DataError as error:
        warnings.warn(f"{error}; {error.hint}", PysimWarning, stacklevel=2)
        return None


def read_tuning(path: Path, machine: Mapping[str, str | int]) -> Tuning:
    """The table in a file. Raises DataError if it cannot be read, is broken or is another machine's."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        data = json.loads(text)
        if (
            not isinstance(data, dict)
            or data.get("schema") != TUNING_SCHEMA
            or data.get("machine") != machine
        ):
            raise ValueError("not this machine's table")
        rows = tuple(
            BreakEven(height=row["height"], n=row["n"], sparsity=_three(row["sparsity"]))
            for row in data["rows"]
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: not what pysim tune wrote: {printable(error)}", hint="pysim tune measures it again."
        ) from error
    return Tuning(machine=dict(machine), rows=rows)


def _three(values: Any) -> tuple[float, float, float]:  # noqa: ANN401
    low, median, high = (float(value) for value in values)
    return low, median, high


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _kernels() -> str:
    """The compiled kernels, by content: the version alone stays the same between two builds."""
    return file_digest(Path(str(_core.__file__)))[:16]
