"""Area of an int8 accelerator at 45 nm: multipliers, adders, registers, buffers; no wires, control, pads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pysim.config import Accelerator
from pysim.energy.tables import AREA_45NM
from pysim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaResult:
    """Area in mm2 by component, of all cores."""

    components: Mapping[str, float]

    @property
    def total(self) -> float:
        """The sum of the components, rounded once."""
        return math.fsum(self.components.values())


def register_bits_per_pe(accelerator: Accelerator) -> int:
    """Bits of the registers that docs/machine.md gives a PE, at the widths of the accelerator's memory.

    ``ws``, ``is``: the streamed operand in ``x``, the held one in ``transit``, ``shadow`` and ``active``, a
    partial sum in ``psum``. ``os``: one operand in ``x``, one in ``w``, and ``acc``, ``hold`` and ``chain``.

    Raises:
        ConfigError: The accelerator has no memory, and so no operand widths.
    """
    memory = accelerator.memory
    if memory is None:
        raise ConfigError("accelerator.memory: expected operand widths, got none")
    if accelerator.dataflow == "os":
        return memory.input_bits + memory.weight_bits + 3 * memory.accumulator_bits
    held, streamed = memory.weight_bits, memory.input_bits
    if accelerator.dataflow == "is":
        held, streamed = streamed, held
    return streamed + 3 * held + memory.accumulator_bits


def area(accelerator: Accelerator) -> AreaResult:
    """The area of PEs and buffers at 45 nm.

    Raises:
        ConfigError: MACs other than int8 with int32 accumulation, no memory, or a buffer outside the figures.
    """
    table = AREA_45NM
    bits = register_bits_per_pe(accelerator)
    memory = accelerator.memory
    assert memory is not None, "register_bits_per_pe has checked it"
    widths = (memory.input_bits, memory.weight_bits, memory.accumulator_bits)
    if accelerator.mac_type not in (None, "int8") or widths != (8, 8, 32):
        raise ConfigError(
            "area: expected int8 MACs with int32 accumulation, got "
            f"{accelerator.mac_type or 'MACs'} of {widths[0]} x {widths[1]} bits into {widths[2]}",
            hint="Areas are published for those alone.",
        )
    pes = accelerator.cores * accelerator.rows * accelerator.cols
    parts = {
        "multipliers": pes * table.multiplier_um2.value / 1e6,
        "accumulators": pes * table.accumulator_um2.value / 1e6,
        "registers": pes * bits * table.register_bit_um2.value / 1e6,
    }
    for name in ("input", "weight", "output"):
        parts[f"{name} buffer"] = accelerator.cores * table.buffer_mm2.at(getattr(memory, f"{name}_bytes"))
    return AreaResult(components=parts)
