"""Energy and area from action counts and published figures; docs/hardware.md says what is left out."""

from pysim.energy.area import AreaResult, area, register_bits_per_pe
from pysim.energy.counts import ActionCounts, BufferTraffic, frames_per_second, seconds
from pysim.energy.model import EnergyResult, energy, missing_figures
from pysim.energy.tables import ENERGY_TABLES, EnergyTable, Figure, energy_table

__all__ = [
    "ENERGY_TABLES",
    "ActionCounts",
    "AreaResult",
    "BufferTraffic",
    "EnergyResult",
    "EnergyTable",
    "Figure",
    "area",
    "energy",
    "energy_table",
    "frames_per_second",
    "missing_figures",
    "register_bits_per_pe",
    "seconds",
]
