"""Reading JSON that anyone may have written: sizes are bounded, messages short and with the field's name."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

from pysim.errors import DataError


def read_json(path: Path, most_bytes: int, what: str) -> object:
    """A JSON file of at most ``most_bytes``. Raises DataError, which says that it is no ``what``."""
    try:
        if path.stat().st_size > most_bytes:
            raise DataError(f"{path}: expected at most {most_bytes} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable {what}: {error}") from error


def read_object(where: str, field: str, value: object) -> dict[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: {field or 'the file'}: expected an object, got {type(value).__name__}")
    return value


def read_schema(where: str, value: object, expected: int) -> None:
    """The number of the file's form."""
    if type(value) is not int or value != expected:
        raise DataError(f"{where}: schema: expected {expected}, got {reprlib.repr(value)}")


def read_list(where: str, field: str, value: object) -> list[object]:
    """A JSON list."""
    if not isinstance(value, list):
        raise DataError(f"{where}: {field}: expected a list, got {type(value).__name__}")
    return value


def read_number(where: str, field: str, value: object, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, both allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(
            f"{where}: {field}: expected a number from {low} to {high}, got {reprlib.repr(value)}"
        )
    return float(value)


def read_text(where: str, field: str, value: object, longest: int = 200) -> str:
    """Printable text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise DataError(f"{where}: {field}: expected printable text of at most {longest} characters")
    return value


def read_block(where: str, field: str, value: object) -> tuple[int, int]:
    """Height and width of a block."""
    sides = [int(read_number(where, field, side, 1, 10**6)) for side in read_list(where, field, value)]
    if len(sides) != 2:
        raise DataError(f"{where}: {field}: expected height and width, got {reprlib.repr(value)}")
    return sides[0], sides[1]
