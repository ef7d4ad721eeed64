"""What a machine did, in actions that cost energy, and cycles as seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pysim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferTraffic:
    """Bytes that went through one on-chip buffer.

    Args:
        name: Unique among the buffers of an ``ActionCounts``.
        capacity_bytes: Of one buffer, at least 1; decides what a byte costs.
        read_bytes: Of all its copies together, where there are several cores.
        written_bytes: As ``read_bytes``.

    Raises:
        ConfigError: A count is negative or not an integer.
    """

    name: str
    capacity_bytes: int
    read_bytes: int = 0
    written_bytes: int = 0

    def __post_init__(self) -> None:
        _check_count(f"buffer {self.name}: capacity_bytes", self.capacity_bytes, least=1)
        _check_count(f"buffer {self.name}: read_bytes", self.read_bytes)
        _check_count(f"buffer {self.name}: written_bytes", self.written_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCounts:
    """Everything that is counted; nothing else costs energy in this model.

    Args:
        macs: MACs that PEs performed, by number format (``int8``, ``fp16``, ...).
        gated_slots: PE cycles without a MAC because the operands are pruned or padded; the PE is clock gated.
        register_bits_read: Of the PEs' registers.
        register_bits_written: Of the PEs' registers.
        buffers: On-chip traffic, buffer by buffer.
        dram_read_bytes: Off chip.
        dram_written_bytes: Off chip.

    Raises:
        ConfigError: A count is negative or not an integer, or two buffers share a name.
    """

    macs: Mapping[str, int] = field(default_factory=dict)
    gated_slots: int = 0
    register_bits_read: int = 0
    register_bits_written: int = 0
    buffers: tuple[BufferTraffic, ...] = ()
    dram_read_bytes: int = 0
    dram_written_bytes: int = 0

    def __post_init__(self) -> None:
        for kind, count in self.macs.items():
            _check_count(f"macs {kind}", count)
        for item in fields(self):
            if item.name not in ("macs", "buffers"):
                _check_count(item.name, getattr(self, item.name))
        names = [buffer.name for buffer in self.buffers]
        if len(set(names)) != len(names):
            raise ConfigError(f"buffers: expected a name for each, got {', '.join(names)}")


def seconds(cycles: int, clock_hz: float) -> float:
    """How long that many cycles take.

    Raises:
        ConfigError: The cycles are negative or the clock is not above 0.
    """
    _check_count("cycles", cycles)
    if not 0 < clock_hz < math.inf:
        raise ConfigError(f"clock: expected Hz above 0, got {clock_hz}")
    return cycles / clock_hz


def frames_per_second(images: int, cycles: int, clock_hz: float) -> float:
    """Images a second when ``images`` of them take ``cycles``.

    Raises:
        ConfigError: There are no images or no cycles, or the clock is not above 0.
    """
    _check_count("images", images, least=1)
    _check_count("cycles", cycles, least=1)
    return images / seconds(cycles, clock_hz)


def _check_count(what: str, value: object, *, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise ConfigError(f"{what}: expected an integer from {least} to 2**63 - 1, got {value!r}")
