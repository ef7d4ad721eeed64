"""The memory beside an array as the user states it: three on-chip buffers and one off-chip channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pysim.config.problems import Problems

MemoryMode: TypeAlias = Literal["ideal", "bandwidth", "rowbuffer"]
MEMORY_MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

MAX_BUFFER_BYTES = 2**40
MAX_CYCLES = 10**9
MAX_BITS = 64
MAX_BANKS = 4096
MAX_ROW_BYTES = 2**30
MAX_BURST_BYTES = 2**16
MIN_BANDWIDTH = 2.0**-20
MAX_BANDWIDTH = 2.0**42


@dataclass(frozen=True, slots=True, kw_only=True)
class Dram:
    """Banks with one open row each. Times are in cycles of the array's clock.

    The order of the fields is that of the C++ core.

    Args:
        banks: That can each hold a row open, 1 to 4096.
        row_bytes: Bytes of a row, a multiple of ``burst_bytes``, at most 2**30.
        burst_bytes: Bytes that one request moves, 1 to 2**16; 64 for DDR, 32 for HBM.
        t_cl: From the read command to its data.
        t_rcd: From opening a row to the read command.
        t_rp: To close a row.
        t_rfc: That a refresh takes; 0 for none.
        t_refi: From one refresh to the next, above ``t_rp + t_rfc + t_rcd``.

    Raises:
        ConfigError: A field is out of range, or two exclude each other; all that is wrong at once.
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
        problems = Problems("memory")
        _check_int(problems, "dram.banks", self.banks, 1, MAX_BANKS)
        _check_int(problems, "dram.row_bytes", self.row_bytes, 1, MAX_ROW_BYTES)
        _check_int(problems, "dram.burst_bytes", self.burst_bytes, 1, MAX_BURST_BYTES)
        for field in ("t_cl", "t_rcd", "t_rp", "t_rfc"):
            _check_int(problems, f"dram.{field}", getattr(self, field), 0, MAX_CYCLES)
        _check_int(problems, "dram.t_refi", self.t_refi, 1, MAX_CYCLES)
        if problems.spares("dram.row_bytes", "dram.burst_bytes") and self.row_bytes % self.burst_bytes:
            problems.add(
                "dram.row_bytes",
                f"expected a multiple of burst_bytes {self.burst_bytes}, got {self.row_bytes}",
            )
        if problems.spares("dram.t_rp", "dram.t_rfc", "dram.t_rcd", "dram.t_refi"):
            refresh = self.t_rp + self.t_rfc + self.t_rcd if self.t_rfc else 0
            if self.t_refi <= refresh:
                problems.add(
                    "dram.t_refi", f"expected above t_rp + t_rfc + t_rcd = {refresh}, got {self.t_refi}"
                )
        problems.raise_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The buffers of one array and the channel to its off-chip memory.

    Args:
        input_bytes: Buffer for X, at least 1.
        weight_bytes: Buffer for W and its block indices, at least 1.
        output_bytes: Buffer for Y and partial sums, at least 1.
        bandwidth: Of the channel in bytes per cycle, 2**-20 to 2**42; None for unlimited.
        latency: Cycles from the end of a read on the channel until its data is on chip.
        mode: ``ideal`` counts traffic and never stalls; ``bandwidth`` counts bytes and latency; ``rowbuffer``
            also follows the open rows of ``dram``.
        dram: Needed by ``mode="rowbuffer"`` alone.
        input_bits: Width of an element of X, 1 to 64.
        weight_bits: Width of an element of W.
        output_bits: Width of a finished element of Y.
        accumulator_bits: Width of a partial sum.
        index_bits: Width of a block index and of a row pointer, 0 to 64.

    Raises:
        ConfigError: A field is out of range, or ``rowbuffer`` has no ``dram``; all that is wrong at once.
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
        problems = Problems("memory")
        for field in ("input_bytes", "weight_bytes", "output_bytes"):
            _check_int(problems, field, getattr(self, field), 1, MAX_BUFFER_BYTES)
        for field in ("input_bits", "weight_bits", "output_bits", "accumulator_bits"):
            _check_int(problems, field, getattr(self, field), 1, MAX_BITS)
        _check_int(problems, "index_bits", self.index_bits, 0, MAX_BITS)
        _check_int(problems, "latency", self.latency, 0, MAX_CYCLES)
        if self.bandwidth is not None:
            _check_bandwidth(problems, self.bandwidth)
        if self.mode not in MEMORY_MODES:
            problems.add("mode", f"expected one of {', '.join(MEMORY_MODES)}, got {self.mode!r}")
        if self.mode == "rowbuffer" and self.dram is None:
            problems.add(
                "dram",
                "expected banks and timings with mode rowbuffer, got none",
                hint="Describe the DRAM, or use mode bandwidth.",
            )
        problems.raise_all()


def _check_int(problems: Problems, field: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        problems.add(field, f"expected an integer from {least} to {most}, got {value!r}")


def _check_bandwidth(problems: Problems, value: object) -> None:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and MIN_BANDWIDTH <= value <= MAX_BANDWIDTH
    ):
        return
    problems.add("bandwidth", f"expected 2**-20 to 2**42 bytes per cycle, or None, got {value!r}")
