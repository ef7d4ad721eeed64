"""Hardware configuration: the accelerator, its memory, hardware files and presets of known machines."""

from pysim.config.accelerator import (
    DATAFLOWS,
    MAC_TYPES,
    PIPELININGS,
    SKIPS,
    Accelerator,
    Dataflow,
    MacType,
    Pipelining,
    Skip,
    VectorUnit,
)
from pysim.config.hardware import DEFAULT_PRESET, PRESETS, load_accelerator, load_hardware, preset_names
from pysim.config.hardware_file import Hardware, Setting
from pysim.config.importers import import_hardware
from pysim.config.memory import MEMORY_MODES, Dram, Memory, MemoryMode

__all__ = [
    "DATAFLOWS",
    "DEFAULT_PRESET",
    "MAC_TYPES",
    "MEMORY_MODES",
    "PIPELININGS",
    "PRESETS",
    "SKIPS",
    "Accelerator",
    "Dataflow",
    "Dram",
    "Hardware",
    "MacType",
    "Memory",
    "MemoryMode",
    "Pipelining",
    "Setting",
    "Skip",
    "VectorUnit",
    "import_hardware",
    "load_accelerator",
    "load_hardware",
    "preset_names",
]
