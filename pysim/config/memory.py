"""The memory beside the array as the user states it: three on-chip buffers and one off-chip channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pysim.errors import ConfigError

MemoryMode: TypeAlias = Literal["ideal", "bandwidth", "rowbuffer"]
MEMORY_MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

MAX_BYTES = 2**42
MAX_LATENCY_CYCLES = 2**40
MAX_BITS = 64
MIN_BANDWIDTH = 2.0**-20
MAX_BANDWIDTH = 2.0**42


@dataclass(frozen=True, slots=True, kw_only=True)
class Dram:
    """A DRAM channel with one open row per bank. All times in cycles of the array's clock.

    Args:
        banks: At least 1.
        row_bytes: Bytes of an open row, a multiple of ``burst_bytes``.
        burst_bytes: Bytes of one request, at least 1.
        t_cl: From a read of an open row to its data, at least 0.
        t_rcd: From opening a row to a read of it, at least 0.
        t_rp: To close a row, at least 0.
        t_rfc: For which a refresh blocks the channel, at least 0.
        t_refi: From one refresh to the next, above ``t_rfc``.

    Raises:
        ConfigError: A field is out of range; the message names it.
    """

    banks: int
    row_bytes: int
    burst_bytes: int = 64
    t_cl: int
    t_rcd: int
    t_rp: int
    t_rfc: int
    t_refi: int

    def __post_init__(self) -> None:
        for field in ("banks", "row_bytes", "burst_bytes"):
            _check_int(f"memory.dram.{field}", getattr(self, field), 1, 2**30)
        for field in ("t_cl", "t_rcd", "t_rp", "t_rfc", "t_refi"):
            _check_int(f"memory.dram.{field}", getattr(self, field), 0, 2**30)
        if self.row_bytes % self.burst_bytes:
            raise ConfigError(
                f"memory.dram.row_bytes: expected a multiple of burst_bytes {self.burst_bytes}, "
                f"got {self.row_bytes}"
            )
        if self.t_refi <= self.t_rfc:
            raise ConfigError(f"memory.dram.t_refi: expected above t_rfc {self.t_rfc}, got {self.t_refi}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Buffers, off-chip channel and operand widths; docs/machine.md says how they are used.

    Args:
        input_bytes: Capacity of the input buffer, at least 1.
        weight_bytes: Capacity of the weight buffer, at least 1; block indices are kept there too.
        output_bytes: Capacity of the output buffer, at least 1; it holds partial sums.
        bandwidth: Bytes per array cycle that the channel moves, 2**-20 to 2**42; None is unlimited.
        latency: Cycles until data that has been read from off chip is in its buffer, at least 0.
        mode: ``ideal`` counts the traffic but never waits for it; ``bandwidth`` waits; ``rowbuffer`` also
            models DRAM rows.
        dram: Needed by ``rowbuffer``, unused by the other modes.
        input_bits: Width of an input, 1 to 64.
        weight_bits: Width of a weight.
        output_bits: Width of an output as it is written off chip.
        accumulator_bits: Width of a partial sum in the output buffer, and when it is spilled.
        index_bits: Width of a block index and of a row pointer, 0 to 64.

    Raises:
        ConfigError: A field is out of range, or ``rowbuffer`` has no ``dram``.
    """

    input_bytes: int
    weight_bytes: int
    output_bytes: int
    bandwidth: float | None
    latency: int = 0
    mode: MemoryMode = "bandwidth"
    dram: Dram | None = None
    input_bits: int = 8
    weight_bits: int = 8
    output_bits: int = 8
    accumulator_bits: int = 32
    index_bits: int = 32

    def __post_init__(self) -> None:
        for field in ("input_bytes", "weight_bytes", "output_bytes"):
            _check_int(f"memory.{field}", getattr(self, field), 1, MAX_BYTES)
        for field in ("input_bits", "weight_bits", "output_bits", "accumulator_bits"):
            _check_int(f"memory.{field}", getattr(self, field), 1, MAX_BITS)
        _check_int("memory.index_bits", self.index_bits, 0, MAX_BITS)
        _check_int("memory.latency", self.latency, 0, MAX_LATENCY_CYCLES)
        self._check_bandwidth()
        if self.mode not in MEMORY_MODES:
            raise ConfigError(
                f"memory.mode: expected one of {', '.join(MEMORY_MODES)}, got {self.mode!r}",
            )
        if self.mode == "rowbuffer" and self.dram is None:
            raise ConfigError(
                "memory.dram: expected DRAM timing with mode rowbuffer, got none",
                hint='Give dram, or use mode="bandwidth".',
            )

    def _check_bandwidth(self) -> None:
        value = self.bandwidth
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"memory.bandwidth: expected bytes per cycle or None, got {value!r}")
        if not MIN_BANDWIDTH <= value <= MAX_BANDWIDTH:
            raise ConfigError(f"memory.bandwidth: expected 2**-20 to 2**42 bytes per cycle, got {value!r}")


def _check_int(where: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{where}: expected an integer, {least} to {most}, got {value!r}")
