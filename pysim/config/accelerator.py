"""The accelerator as the user states it: the array, how many of it, its memory, clock and energy table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pysim.config.memory import Memory
from pysim.config.problems import Problems

Dataflow: TypeAlias = Literal["ws", "os", "is"]
Skip: TypeAlias = Literal["none", "tile", "gather", "group", "mux"]
Pipelining: TypeAlias = Literal["serial", "overlap"]
MacType: TypeAlias = Literal["int8", "int16", "int32", "fp16", "bf16", "fp32"]

DATAFLOWS: tuple[Dataflow, ...] = get_args(Dataflow)
SKIPS: tuple[Skip, ...] = get_args(Skip)
PIPELININGS: tuple[Pipelining, ...] = get_args(Pipelining)
MAC_TYPES: tuple[MacType, ...] = get_args(MacType)

# With inputs held still the weights stream past: there is no column of weights to group or to combine.
_SKIPS_OF: dict[Dataflow, tuple[Skip, ...]] = {
    "ws": SKIPS,
    "os": SKIPS,
    "is": ("none", "tile", "gather"),
}

MAX_SIDE = 65536
MAX_MUX = 1024
MAX_CORES = 1024
MAX_LANES = 1 << 20
MAX_CYCLES_PER_ELEMENT = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUnit:
    """What does the work that is not a matrix product, beside the array; lanes take one element at a time.

    Args:
        lanes: Elements at a time, 1 to 2**20.
        cycles_per_element: That a lane takes, 1 to 10**6.

    Raises:
        ConfigError: A field is out of range.
    """

    lanes: int
    cycles_per_element: int = 1

    def __post_init__(self) -> None:
        problems = Problems("accelerator")
        _check_int(problems, "vector.lanes", self.lanes, MAX_LANES)
        _check_int(problems, "vector.cycles_per_element", self.cycles_per_element, MAX_CYCLES_PER_ELEMENT)
        problems.raise_all()

    def cycles(self, elements: int) -> int:
        """Cycles for that many elements of one operation."""
        return -(-elements // self.lanes) * self.cycles_per_element


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A systolic array: its shape, its dataflow and what it does with pruned blocks.

    Args:
        name: Printed with results.
        rows: PE rows, 1 to 65536.
        cols: PE columns, 1 to 65536.
        dataflow: The operand held still: ``ws`` weights, ``os`` outputs, ``is`` inputs.
        skip: What is left out of a pruned layer; see docs/machine.md. ``group`` and ``mux`` need ``ws`` or
            ``os``.
        pipelining: ``overlap`` starts a fold as early as the registers allow; ``serial`` waits until the one
            before has left the array.
        mux: Inputs of each PE's multiplexer, 1 to 1024; used by ``skip="mux"`` alone.
        group_cols: Array columns that share a feeder, at least 1, or None for the block height; used by
            ``skip="group"`` alone.
        memory: Buffers of each core and the off-chip channel that all cores share; None: compute only.
        vector: For what is not a matrix product; None: such work takes no time here.
        cores: Such arrays, 1 to 1024.
        reorder: Whether block rows may be permuted so that features with alike patterns share a strip.
        mapper: Whether order of folds and size of pieces are chosen for each layer by simulating them all.
        clock_hz: Of the array, above 0; None: cycles are not turned into seconds.
        technology: Name of an energy table; None: no energy.
        dram_type: Name of an off-chip memory in that table; None: no energy of off-chip traffic.
        mac_type: Number format of a MAC, for its energy; None: no energy of MACs.

    Raises:
        ConfigError: A field is out of range, or the dataflow does not allow the skip mode; all that is wrong
            at once.
    """

    name: str = "custom"
    rows: int
    cols: int
    dataflow: Dataflow = "ws"
    skip: Skip = "none"
    pipelining: Pipelining = "overlap"
    mux: int = 2
    group_cols: int | None = None
    memory: Memory | None = None
    vector: VectorUnit | None = None
    cores: int = 1
    reorder: bool = False
    mapper: bool = False
    clock_hz: float | None = None
    technology: str | None = None
    dram_type: str | None = None
    mac_type: MacType | None = None

    def __post_init__(self) -> None:
        problems = Problems("accelerator")
        _check_int(problems, "rows", self.rows, MAX_SIDE)
        _check_int(problems, "cols", self.cols, MAX_SIDE)
        _check_int(problems, "mux", self.mux, MAX_MUX)
        if self.group_cols is not None:
            _check_int(problems, "group_cols", self.group_cols, None)
        _check_int(problems, "cores", self.cores, MAX_CORES)
        for switch in ("reorder", "mapper"):
            if not isinstance(getattr(self, switch), bool):
                problems.add(switch, f"expected true or false, got {getattr(self, switch)!r}")
        for field, kind in (("memory", Memory), ("vector", VectorUnit)):
            value = getattr(self, field)
            if value is not None and not isinstance(value, kind):
                problems.add(field, f"expected a {kind.__name__} or None, got {value!r}")
        if self.clock_hz is not None:
            _check_positive(problems, "clock_hz", self.clock_hz, "Hz")
        _check_choice(problems, "dataflow", self.dataflow, DATAFLOWS)
        _check_choice(problems, "skip", self.skip, SKIPS)
        _check_choice(problems, "pipelining", self.pipelining, PIPELININGS)
        if self.mac_type is not None:
            _check_choice(problems, "mac_type", self.mac_type, MAC_TYPES)
        if problems.spares("dataflow", "skip") and self.skip not in self.allowed_skips():
            problems.add(
                "skip",
                f"expected one of {', '.join(self.allowed_skips())} with dataflow {self.dataflow}, "
                f"got {self.skip}",
                hint=f"Choose dataflow ws or os to use {self.skip}.",
            )
        problems.raise_all()

    def allowed_skips(self) -> tuple[Skip, ...]:
        """The skip modes that this dataflow can have, from none to the most elaborate."""
        return _SKIPS_OF[self.dataflow]

    def group_cols_for(self, block_height: int) -> int:
        """Array columns of one feeder under ``group`` for blocks of this height."""
        return block_height if self.group_cols is None else self.group_cols


def _check_int(problems: Problems, field: str, value: object, most: int | None) -> None:
    limits = "at least 1" if most is None else f"1 to {most}"
    if not isinstance(value, int) or isinstance(value, bool):
        problems.add(field, f"expected an integer, {limits}, got {value!r}")
    elif value < 1 or (most is not None and value > most):
        problems.add(field, f"expected {limits}, got {value}")


def _check_positive(problems: Problems, field: str, value: object, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        problems.add(field, f"expected {unit} above 0, got {value!r}")


def _check_choice(problems: Problems, field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        problems.add(field, f"expected one of {', '.join(choices)}, got {value!r}")
