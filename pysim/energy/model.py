"""Energy of counted actions: each count times its figure, component by component."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pysim.config import Accelerator
from pysim.energy.counts import ActionCounts
from pysim.energy.tables import EnergyTable, Figure, SizeCurve, energy_table
from pysim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyResult:
    """Where the energy went.

    Args:
        table: Name of the energy table.
        unit: Of every figure here: ``pJ``, or ``MAC equivalents``.
        components: Energy of each component. Every counted kind of action is there, also at 0.
        gated_slots: PE cycles that were clock gated; their energy is the component of that name.
        notes: What was assumed and left out, to be shown with the figures.
    """

    table: str
    unit: str
    components: Mapping[str, float]
    gated_slots: int
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        """The sum of the components, rounded once."""
        return math.fsum(self.components.values())

    def energy_delay(self, seconds: float) -> float:
        """Energy-delay product in ``unit`` times seconds.

        Raises:
            ConfigError: The time is negative or not a number.
        """
        if not 0 <= seconds < math.inf:
            raise ConfigError(f"seconds: expected at least 0, got {seconds}")
        return self.total * seconds


def energy(counts: ActionCounts, technology: str, dram_type: str | None = None) -> EnergyResult:
    """The energy of what was counted.

    Linear and monotone in every count; a kind of action that did not occur needs no figure.

    Args:
        counts: What the machine did.
        technology: Name of an energy table.
        dram_type: Kind of off-chip memory; needed if any byte went there.

    Raises:
        ConfigError: The table has no figure for an action that occurred; the message names it.
    """
    ledger = _Ledger(energy_table(technology))
    table = ledger.table
    for kind, count in counts.macs.items():
        ledger.add(f"MAC {kind}", count, table.macs.get(kind), f"MACs of {kind}", table.macs)
    ledger.add("gated slots", counts.gated_slots, table.gated_slot, "gated slots")
    ledger.add("register read", counts.register_bits_read, table.register_bit, "register bits")
    ledger.add("register write", counts.register_bits_written, table.register_bit, "register bits")
    for buffer in counts.buffers:
        for action, count in (("read", buffer.read_bytes), ("write", buffer.written_bytes)):
            figure = _buffer_figure(table, buffer.capacity_bytes) if count else None
            ledger.add(f"{buffer.name} buffer {action}", count, figure, "buffer bytes")
    off_chip = None if dram_type is None else table.dram_byte.get(dram_type)
    what = f"off-chip bytes of {dram_type or 'no named kind of memory'}"
    ledger.add("DRAM read", counts.dram_read_bytes, off_chip, what, table.dram_byte)
    ledger.add("DRAM write", counts.dram_written_bytes, off_chip, what, table.dram_byte)
    return EnergyResult(
        table=table.name,
        unit=table.unit,
        components=ledger.parts,
        gated_slots=counts.gated_slots,
        notes=(*table.notes, *ledger.notes),
    )


def _buffer_figure(table: EnergyTable, capacity_bytes: int) -> Figure | None:
    if isinstance(table.buffer_byte, SizeCurve):
        return Figure(table.buffer_byte.at(capacity_bytes), table.buffer_byte.source)
    return table.buffer_byte


class _Ledger:
    """Components so far, and a note for each figure that is not as firm as a source would make it."""

    def __init__(self, table: EnergyTable) -> None:
        self.table = table
        self.parts: dict[str, float] = {}
        self.notes: list[str] = []

    def add(
        self,
        name: str,
        count: int,
        figure: Figure | None,
        what: str,
        known: Mapping[str, Figure] | None = None,
    ) -> None:
        if not count:
            self.parts[name] = 0.0
            return
        if figure is None:
            has = f"; it has {', '.join(known)}" if known else ""
            raise ConfigError(
                f"energy table {self.table.name}: expected a figure for {what}, got none{has}",
                hint="Its sources give none, and none is invented here; use another table.",
            )
        note = f"{figure.mark}: {what}: {figure.source}"
        if figure.mark in ("assumed", "unverified") and note not in self.notes:
            self.notes.append(note)
        self.parts[name] = count * figure.value


def missing_figures(accelerator: Accelerator) -> tuple[str, ...]:
    """What keeps the energy of this accelerator from being known: figures that its table does not have.

    Raises:
        ConfigError: There is no table of the name that it gives.
    """
    if accelerator.technology is None:
        return ("no technology is named",)
    table = energy_table(accelerator.technology)
    missing = []
    if accelerator.mac_type not in table.macs:
        missing.append(f"MACs of {accelerator.mac_type or 'no named type'}")
    if table.register_bit is None:
        missing.append("register bits")
    memory = accelerator.memory
    if memory is None:
        missing.append("traffic: the hardware has no memory")
    if memory is not None and table.buffer_byte is None:
        missing.append("buffer bytes")
    elif memory is not None:
        for name in ("input", "weight", "output"):
            try:
                _buffer_figure(table, getattr(memory, f"{name}_bytes"))
            except ConfigError as error:
                missing.append(f"{name} buffer ({error})")
    if memory is not None and accelerator.dram_type not in table.dram_byte:
        missing.append(f"off-chip bytes of {accelerator.dram_type or 'no named kind of memory'}")
    return tuple(missing)
