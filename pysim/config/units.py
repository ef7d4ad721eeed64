"""Quantities with units: ``24 MiB``, ``34 GB/s``, ``16 B/cycle``, ``700 MHz``, ``100 ns``, ``20 cycles``.

KB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB powers of 1024. Numbers are kept exact (``Fraction``),
so that 0.72 GB/s at 200 MHz is 3.6 bytes a cycle and not a rounding error more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_DECIMAL = {"": 1, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BYTES = {f"{prefix}B": Fraction(factor) for prefix, factor in (_DECIMAL | _BINARY).items()}

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,12})?) ?([A-Za-z/]{1,12})")
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,12})?")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of quantity: what messages call it, and its units as (factor, base unit)."""

    what: str
    example: str
    units: Mapping[str, tuple[Fraction, str]]
    shown: tuple[str, ...]


SIZE = Kind(
    "a size",
    "24 MiB",
    {unit: (factor, "B") for unit, factor in _BYTES.items()},
    ("B", "KB", "MB", "GB", "KiB", "MiB", "GiB"),
)
BANDWIDTH = Kind(
    "a bandwidth",
    "34 GB/s",
    {f"{unit}/s": (factor, "B/s") for unit, factor in _BYTES.items()} | {"B/cycle": (Fraction(1), "B/cycle")},
    ("B/cycle", "B/s", "KB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s"),
)
FREQUENCY = Kind(
    "a frequency",
    "700 MHz",
    {f"{prefix}Hz": (Fraction(factor), "Hz") for prefix, factor in _DECIMAL.items() if prefix != "K"},
    ("Hz", "kHz", "MHz", "GHz"),
)
DURATION = Kind(
    "a time",
    "100 ns",
    {"s": (Fraction(1), "s"), "ms": (Fraction(1, 10**3), "s"), "us": (Fraction(1, 10**6), "s")}
    | {"ns": (Fraction(1, 10**9), "s"), "ps": (Fraction(1, 10**12), "s")}
    | {"cycles": (Fraction(1), "cycles"), "cycle": (Fraction(1), "cycles")},
    ("cycles", "ps", "ns", "us", "ms", "s"),
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount in its base unit: B, B/s, B/cycle, Hz, s or cycles."""

    amount: Fraction
    unit: str


def parse_quantity(value: object, kind: Kind) -> Quantity:
    """Reads a number with its unit.

    Raises:
        ValueError: It is not one; the message says what was expected, what came, and how to spell it.
    """
    expected = f'expected {kind.what} with its unit, such as "{kind.example}"'
    bare = _bare_number(value)
    if bare is not None:
        example = kind.example.split()[1]
        raise ValueError(
            f'{expected}, got {bare} without a unit; write "{bare} {example}" if that is what it is '
            f"(units: {', '.join(kind.shown)})"
        )
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{expected}, got {shown(value)}")
    number, unit = match[1], match[2]
    if unit not in kind.units:
        near = [known for known in kind.shown if known.lower() == unit.lower()]
        hint = f'; did you mean "{number} {near[0]}"?' if near else f" (units: {', '.join(kind.shown)})"
        raise ValueError(f"{expected}, got {shown(value)}{hint}")
    factor, base = kind.units[unit]
    amount = Fraction(number) * factor
    if amount.denominator != 1 and base == "B":
        raise ValueError(f"{expected} of whole bytes, got {shown(value)}")
    return Quantity(amount, base)


def shown(value: object) -> str:
    """A value from outside for a message: quoted, on one line, at most 60 characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = f'"{value}"' if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bare_number(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return shown(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return value
    return None
