"""Hardware configuration: the accelerator and presets of known machines."""

from pysim.config.accelerator import (
    DATAFLOWS,
    PIPELININGS,
    SKIPS,
    Accelerator,
    Dataflow,
    Pipelining,
    Skip,
)
from pysim.config.memory import MEMORY_MODES, Dram, Memory, MemoryMode
from pysim.config.presets import DEFAULT_PRESET, PRESETS, load_accelerator

__all__ = [
    "DATAFLOWS",
    "DEFAULT_PRESET",
    "MEMORY_MODES",
    "PIPELININGS",
    "PRESETS",
    "SKIPS",
    "Accelerator",
    "Dataflow",
    "Dram",
    "Memory",
    "MemoryMode",
    "Pipelining",
    "Skip",
    "load_accelerator",
]
