"""Energy and area per action as published, each figure with its source. None is made up to fill a gap."""

from __future__ import annotations

import bisect
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pysim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its source; ``mark`` as in hardware files: derived from it, assumed, or unverified."""

    value: float
    source: str
    mark: Literal["derived", "assumed", "unverified"] | None = None


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """A figure that depends on a buffer's capacity: points of (bytes, figure), rising.

    Between two points it follows the straight line in log-log coordinates, the shape of wire-dominated SRAM;
    beyond the first and the last it is unknown.
    """

    what: str
    points: tuple[tuple[int, float], ...]
    source: str

    def at(self, capacity_bytes: int) -> float:
        """The figure for that capacity.

        Raises:
            ConfigError: The capacity is outside the points.
        """
        sizes = [size for size, _ in self.points]
        if not sizes[0] <= capacity_bytes <= sizes[-1]:
            raise ConfigError(
                f"{self.what}: expected a buffer of {sizes[0] // 1024} to {sizes[-1] // 1024} KiB, "
                f"got {capacity_bytes / 1024:g} KiB",
                hint="No figure is published outside that range, and none is invented here.",
            )
        right = max(1, bisect.bisect_left(sizes, capacity_bytes))
        (low, low_value), (high, high_value) = self.points[right - 1], self.points[right]
        if capacity_bytes in (low, high):
            return low_value if capacity_bytes == low else high_value
        share = math.log(capacity_bytes / low) / math.log(high / low)
        return low_value * math.pow(high_value / low_value, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTable:
    """Energy per action, all in one unit.

    Args:
        name: As a hardware file's ``technology``.
        unit: ``pJ``, or ``MAC equivalents`` where a source gives only ratios.
        macs: Per MAC, by number format.
        gated_slot: Per PE cycle without a MAC.
        register_bit: Per bit read or written; None if no source has it.
        buffer_byte: Per byte read or written, by capacity; None if no source has it.
        dram_byte: Per byte read or written, by kind of memory.
        notes: What holds for every result of this table.
    """

    name: str
    unit: str
    macs: Mapping[str, Figure]
    gated_slot: Figure
    register_bit: Figure | None
    buffer_byte: SizeCurve | Figure | None
    dram_byte: Mapping[str, Figure]
    notes: tuple[str, ...]


def _mac(multiply: float, add: float, accumulate: str, source: str, *, checked: bool) -> Figure:
    text = f"{source}: multiplication {multiply} + {accumulate} addition {add}"
    return Figure(round(multiply + add, 6), text, "derived" if checked else "unverified")


def _kib(points: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    return tuple((size * 1024, value) for size, value in points.items())


_HOROWITZ = "Horowitz, ISSCC 2014, 45 nm, 0.9 V"
_JOUPPI = "Jouppi et al., ISCA 2021, table 2, 7 nm"
_EYERISS = "Chen et al., ISCA 2016, 65 nm, relative to a 16-bit MAC"
_ACCELERGY = "Accelergy's table, citing Chatterjee et al., MICRO 2017, and Malladi et al., ISCA 2012"
_CACTI = "CACTI 7, 45 nm, one port, itrs-lstp cells"

# pJ per bit. For the two kinds of HBM Accelergy cites web pages only.
_DRAM_PJ_PER_BIT = {
    "DDR3": Figure(70, _ACCELERGY),
    "LPDDR": Figure(40, _ACCELERGY),
    "LPDDR4": Figure(8, _ACCELERGY),
    "HBM2": Figure(6.25, "Accelergy's table, citing web pages", "unverified"),
    "HBM3": Figure(4.05, "Accelergy's table, citing web pages", "unverified"),
}
_DRAM_PJ_PER_BYTE = {
    name: Figure(8 * figure.value, figure.source, figure.mark) for name, figure in _DRAM_PJ_PER_BIT.items()
}

_CLOCK_GATED = Figure(0.0, "a clock-gated PE does not switch", "assumed")
_NO_LEAKAGE = (
    "leakage is left out: between lstp and hp cells it differs by four orders of magnitude (CACTI 7); this "
    "is the energy of switching, as if cells were of the low-standby-power kind"
)

_TABLES = (
    EnergyTable(
        name="45nm",
        unit="pJ",
        macs={
            "int8": _mac(0.2, 0.1, "int32", _HOROWITZ, checked=True),
            "int32": _mac(3.1, 0.1, "int32", _HOROWITZ, checked=True),
            "fp16": _mac(1.1, 0.4, "fp16", _HOROWITZ, checked=True),
            "fp32": _mac(3.7, 0.9, "fp32", _HOROWITZ, checked=True),
        },
        gated_slot=_CLOCK_GATED,
        register_bit=Figure(0.009, "Shao et al., ISCA 2014 (Aladdin), 40 nm"),
        buffer_byte=SizeCurve(
            "energy per byte of SRAM, pJ",
            _kib(
                {8: 0.77, 32: 2.13, 64: 3.23, 128: 4.04, 256: 4.85, 512: 6.33}
                | {1024: 9.0, 4096: 17.7, 8192: 23.1, 24576: 41.9}
            ),
            f"{_CACTI}: reads; a write is assumed to cost as much",
        ),
        dram_byte=_DRAM_PJ_PER_BYTE,
        notes=(_NO_LEAKAGE, "a buffer write is assumed to cost what a read costs"),
    ),
    EnergyTable(
        name="7nm",
        unit="pJ",
        macs={
            "int8": _mac(0.07, 0.03, "int32", _JOUPPI, checked=False),
            "int32": _mac(1.48, 0.03, "int32", _JOUPPI, checked=False),
            "fp16": _mac(0.34, 0.16, "fp16", _JOUPPI, checked=False),
            "fp32": _mac(1.31, 0.38, "fp32", _JOUPPI, checked=False),
        },
        gated_slot=_CLOCK_GATED,
        register_bit=None,
        buffer_byte=None,
        dram_byte=_DRAM_PJ_PER_BYTE,
        notes=(_NO_LEAKAGE, "the figures for MACs are quoted without having been checked against the paper"),
    ),
    EnergyTable(
        name="eyeriss-relative",
        unit="MAC equivalents",
        macs={"int16": Figure(1.0, _EYERISS, "unverified")},
        gated_slot=_CLOCK_GATED,
        # A register file access of one 16-bit word costs 1, the global buffer 6, DRAM 200.
        register_bit=Figure(1 / 16, _EYERISS, "unverified"),
        buffer_byte=Figure(6 / 2, f"{_EYERISS}; the global buffer, whatever its size", "unverified"),
        dram_byte={"DRAM": Figure(200 / 2, _EYERISS, "unverified")},
        notes=("ratios, not joules: an energy in MAC equivalents compares only with another of this table",),
    ),
)

ENERGY_TABLES: Mapping[str, EnergyTable] = {table.name: table for table in _TABLES}


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaTable:
    """Area of an int8 PE's parts in um2 and of SRAM in mm2."""

    multiplier_um2: Figure
    accumulator_um2: Figure
    register_bit_um2: Figure
    buffer_mm2: SizeCurve


AREA_45NM = AreaTable(
    multiplier_um2=Figure(282, f"{_HOROWITZ}: int8 multiplier"),
    accumulator_um2=Figure(137, f"{_HOROWITZ}: int32 adder"),
    register_bit_um2=Figure(5.98, "Shao et al., ISCA 2014 (Aladdin), 40 nm", "unverified"),
    buffer_mm2=SizeCurve("area of SRAM, mm2", _kib({64: 0.209, 256: 0.839, 1024: 3.67, 4096: 14.0}), _CACTI),
)


def energy_table(name: str) -> EnergyTable:
    """The table of this name.

    Raises:
        ConfigError: There is none; the message lists the names.
    """
    if name in ENERGY_TABLES:
        return ENERGY_TABLES[name]
    nearest = difflib.get_close_matches(name, ENERGY_TABLES, n=1, cutoff=0.5)
    raise ConfigError(
        f"technology: expected one of {', '.join(ENERGY_TABLES)}, got {name!r}",
        hint=f"Did you mean {nearest[0]}?" if nearest else None,
    )
