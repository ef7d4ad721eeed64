"""When everything of one product happens, and the requests that it makes of the memory off chip."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pysim import _core
from pysim.atomic import write_atomic
from pysim.config import Accelerator
from pysim.errors import ConfigError
from pysim.sim.gemm import (
    choose_mapping,
    core_array,
    core_conv,
    core_memory,
    grid_tuple,
    mapped_mask,
    positive_int,
)
from pysim.workload import BlockGrid, BoolArray, ConvGeometry

Column: TypeAlias = npt.NDArray[np.int64]

# In the order of the C++ enumerations.
TRANSFER_KINDS = ("row_pointers", "weights", "inputs", "outputs", "spill", "reload")
STALL_CAUSES = ("weight", "input", "output")
_WRITES = tuple(TRANSFER_KINDS.index(kind) for kind in ("outputs", "spill"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Tables of one product, column by column, each column int64 (rows,). Ends are one past the last cycle.

    Args:
        cycles: Of the product, as ``simulate_layer`` reports them.
        cut: Whether a table had more rows than asked for; each then holds its first ones.
        piece_core: The core that runs this piece of a fold. Pieces come core by core, in order.
        piece_preload: Cycle in which the fold's preload starts; -1 where the piece is not a preloaded fold's
            first.
        piece_start: Cycle in which its first operand is streamed.
        piece_end: Cycle after which its last operand has been streamed.
        transfer_core: The core whose buffer is filled or emptied. Transfers come in channel order.
        transfer_kind: Index into ``TRANSFER_KINDS``.
        transfer_start: First cycle on the channel.
        transfer_end: End on the channel; data that is read arrives ``latency`` later.
        transfer_bytes: Bytes that it moves.
        stall_core: The core that waits.
        stall_cause: Index into ``STALL_CAUSES``.
        stall_start: First cycle of the wait.
        stall_cycles: Its length. The last wait may be for the last outputs to be written.
        request_transfer: Row of the transfer that reads or writes these bytes; empty for several cores.
        request_address: First byte off chip; docs/machine.md has the layout.
        request_bytes: Bytes from there on.
    """

    cycles: int
    cut: bool
    piece_core: Column = field(repr=False)
    piece_preload: Column = field(repr=False)
    piece_start: Column = field(repr=False)
    piece_end: Column = field(repr=False)
    transfer_core: Column = field(repr=False)
    transfer_kind: Column = field(repr=False)
    transfer_start: Column = field(repr=False)
    transfer_end: Column = field(repr=False)
    transfer_bytes: Column = field(repr=False)
    stall_core: Column = field(repr=False)
    stall_cause: Column = field(repr=False)
    stall_start: Column = field(repr=False)
    stall_cycles: Column = field(repr=False)
    request_transfer: Column = field(repr=False)
    request_address: Column = field(repr=False)
    request_bytes: Column = field(repr=False)


def list_timeline(
    grid: BlockGrid,
    mask: BoolArray,
    n: int,
    accelerator: Accelerator,
    *,
    conv: ConvGeometry | None = None,
    max_rows: int = 1_000_000,
) -> Timeline:
    """Simulates W (m, k) times (k, n) with the event engine and writes down when everything happens.

    Args:
        grid: The shape of W and its blocks.
        mask: (block rows, block columns), True where a block is kept.
        n: Output positions, at least 1.
        accelerator: The machine. Without memory there are pieces alone.
        conv: As for ``simulate_layer``.
        max_rows: Most rows of each table, at least 1.

    Raises:
        ShapeError: As for ``simulate_layer``.
        ConfigError: As for ``simulate_layer``; max_rows is below 1; the layer has more than 2^22 pieces.
    """
    grid.check_mask(mask)
    n = positive_int(n, "n")
    rows = min(positive_int(max_rows, "max_rows"), 2**40)
    mapping = choose_mapping(grid, mask, n, accelerator, conv=conv)
    try:
        columns, cycles, cut = _core.list_timeline(
            core_array(accelerator, grid, mapping),
            grid_tuple(grid),
            mapped_mask(mask, mapping),
            n,
            core_memory(accelerator.memory),
            core_conv(conv, grid, n),
            rows,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    return Timeline(cycles=cycles, cut=cut, **columns)


def write_request_trace(timeline: Timeline, path: Path, *, burst_bytes: int = 64) -> int:
    """Writes the requests as a load/store trace for Ramulator 2: a line ``LD 0x...`` or ``ST 0x...`` a burst.

    Bursts are the aligned ranges of ``burst_bytes`` that a request touches, in channel order; a burst that
    two requests touch is there twice. The file is written whole or not at all.

    Args:
        timeline: Of a machine with memory and one core, not cut.
        path: The file.
        burst_bytes: Bytes of one line's request, a power of two.

    Returns:
        The number of lines.

    Raises:
        ConfigError: The timeline is cut, or has no requests; or burst_bytes is not a power of two.
        OSError: The file cannot be written.
    """
    burst = positive_int(burst_bytes, "burst_bytes")
    if burst & (burst - 1):
        raise ConfigError(f"burst_bytes: expected a power of two, got {burst}")
    if timeline.cut:
        raise ConfigError(
            "request trace: expected a whole timeline, got one that is cut", hint="Raise max_rows."
        )
    if not timeline.request_address.size:
        raise ConfigError(
            "request trace: expected requests, the timeline has none",
            hint="Give the accelerator a memory, and one core.",
        )
    first = timeline.request_address // burst
    counts = (timeline.request_address + timeline.request_bytes - 1) // burst - first + 1
    writes = np.isin(timeline.transfer_kind[timeline.request_transfer], _WRITES)

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="ascii") as file:
            for begin, count, is_write in zip(first, counts, writes, strict=True):
                name = "ST" if is_write else "LD"
                file.writelines(f"{name} {hex((int(begin) + i) * burst)}\n" for i in range(int(count)))

    write_atomic(path, write)
    return int(counts.sum())
