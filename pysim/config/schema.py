"""What a hardware file may say: its keys, their types and limits, as pydantic models.

Imported only when a file is read, so that the command line and Python users who build an ``Accelerator``
themselves do not wait for pydantic. A field's description completes the sentence "expected ...".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from pysim.config.accelerator import (
    MAX_CORES,
    MAX_CYCLES_PER_ELEMENT,
    MAX_LANES,
    MAX_MUX,
    MAX_SIDE,
    Accelerator,
    MacType,
    VectorUnit,
)
from pysim.config.memory import MAX_BANKS, MAX_BITS, MAX_CYCLES, Dram, Memory
from pysim.config.problems import raise_all
from pysim.config.units import (
    BANDWIDTH,
    DURATION,
    FREQUENCY,
    SIZE,
    Kind,
    Quantity,
    parse_quantity,
    shown,
)
from pysim.errors import ConfigError


def _reader(kind: Kind, least: str, most: str) -> Callable[[object], Quantity]:
    """Reads a quantity and holds it to a range; the range is given in the kind's own notation."""
    low, high = parse_quantity(least, kind), parse_quantity(most, kind)

    def read(value: object) -> Quantity:
        quantity = parse_quantity(value, kind)
        if quantity.unit == low.unit and not low.amount <= quantity.amount <= high.amount:
            raise ValueError(f"expected {kind.what} from {least} to {most}, got {shown(value)}")
        return quantity

    return read


_read_bandwidth = _reader(BANDWIDTH, "1 B/s", "1000 TB/s")


def _bandwidth_or_unlimited(value: object) -> Quantity | None:
    if value == "unlimited":
        return None
    quantity = _read_bandwidth(value)
    if not quantity.amount:
        raise ValueError(f'expected a bandwidth above 0, or "unlimited", got {shown(value)}')
    return quantity


def _one_line(text: str) -> str:
    """Text that a terminal shows as it is."""
    if not 1 <= len(text) <= 200 or not text.isprintable():
        raise ValueError(f"expected one line of text, at most 200 characters, got {shown(text)}")
    return text


_Text: TypeAlias = Annotated[str, AfterValidator(_one_line)]
_Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
_Bits: TypeAlias = Annotated[int, Field(ge=1, le=MAX_BITS, description=f"an integer from 1 to {MAX_BITS}")]
_Side: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIDE, description=f"an integer from 1 to {MAX_SIDE}")]
_Size: TypeAlias = Annotated[Quantity, PlainValidator(_reader(SIZE, "1 B", "1 TiB"))]
_Clock: TypeAlias = Annotated[Quantity, PlainValidator(_reader(FREQUENCY, "1 kHz", "1 THz"))]
_Time: TypeAlias = Annotated[Quantity, PlainValidator(_reader(DURATION, "0 s", "1 s"))]
_Bandwidth: TypeAlias = Annotated[Quantity | None, PlainValidator(_bandwidth_or_unlimited)]

_Part = TypeVar("_Part")

DRAM_TIMES = ("t_cl", "t_rcd", "t_rp", "t_rfc", "t_refi")

_SIZE = 'a size such as "24 MiB"'
_TIME = 'a time such as "100 ns" or "20 cycles"'
_NAME = "a name of letters, digits and . _ + -, at most 64"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ArrayTable(_Table):
    rows: _Side
    cols: _Side
    dataflow: Literal["ws", "os", "is"] = Field(default="ws", description="one of ws, os, is")
    skip: Literal["none", "tile", "gather", "group", "mux"] = Field(
        default="none", description="one of none, tile, gather, group, mux"
    )
    pipelining: Literal["serial", "overlap"] = Field(default="overlap", description="one of serial, overlap")
    mux: int = Field(default=2, ge=1, le=MAX_MUX, description=f"an integer from 1 to {MAX_MUX}")
    group_cols: int | None = Field(
        default=None, ge=1, le=MAX_SIDE, description=f"an integer from 1 to {MAX_SIDE}"
    )
    cores: int = Field(default=1, ge=1, le=MAX_CORES, description=f"an integer from 1 to {MAX_CORES}")
    reorder: bool = Field(default=False, description="true or false")
    mapper: bool = Field(default=False, description="true or false")
    mac_type: MacType | None = Field(default=None, description="one of int8, int16, int32, fp16, bf16, fp32")


class DramTable(_Table):
    banks: int = Field(ge=1, le=MAX_BANKS, description=f"an integer from 1 to {MAX_BANKS}")
    row: _Size = Field(description=_SIZE)
    burst: _Size = Field(default=Quantity(Fraction(64), "B"), description=_SIZE)
    t_cl: _Time = Field(description=_TIME)
    t_rcd: _Time = Field(description=_TIME)
    t_rp: _Time = Field(description=_TIME)
    t_rfc: _Time = Field(description=_TIME)
    t_refi: _Time = Field(description=_TIME)


class MemoryTable(_Table):
    input_buffer: _Size = Field(description=_SIZE)
    weight_buffer: _Size = Field(description=_SIZE)
    output_buffer: _Size = Field(description=_SIZE)
    bandwidth: _Bandwidth = Field(description='a bandwidth such as "34 GB/s", or "unlimited"')
    latency: _Time = Field(default=Quantity(Fraction(0), "cycles"), description=_TIME)
    mode: Literal["ideal", "bandwidth", "rowbuffer"] = Field(
        default="bandwidth", description="one of ideal, bandwidth, rowbuffer"
    )
    dram_type: _Name | None = Field(default=None, description=_NAME)
    input_bits: _Bits = 8
    weight_bits: _Bits = 8
    output_bits: _Bits = 8
    accumulator_bits: _Bits = 32
    index_bits: _Bits = 32
    dram: DramTable | None = Field(default=None, description="a table")


class VectorTable(_Table):
    lanes: int = Field(ge=1, le=MAX_LANES, description=f"an integer from 1 to {MAX_LANES}")
    cycles_per_element: int = Field(
        default=1,
        ge=1,
        le=MAX_CYCLES_PER_ELEMENT,
        description=f"an integer from 1 to {MAX_CYCLES_PER_ELEMENT}",
    )


class HardwareTable(_Table):
    name: _Name = Field(description=_NAME)
    description: _Text | None = Field(default=None, description="one line of text, at most 200 characters")
    clock: _Clock | None = Field(default=None, description='a frequency such as "700 MHz"')
    technology: _Name | None = Field(default=None, description=_NAME)
    array: ArrayTable = Field(description="a table with rows and cols")
    memory: MemoryTable | None = Field(default=None, description="a table")
    vector: VectorTable | None = Field(default=None, description="a table with lanes")


def describe_keys(table: type[BaseModel] = HardwareTable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a hardware file, dotted, with what it expects; tables come before their keys."""
    for name, field in table.model_fields.items():
        yield f"{prefix}{name}", field.description or ""
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from describe_keys(part, f"{prefix}{name}.")


def check_table(tree: Mapping[str, object]) -> tuple[HardwareTable | None, list[tuple[str, str]]]:
    """The table, if its keys are right, and every problem as (dotted key, what is wrong)."""
    try:
        table = HardwareTable.model_validate(tree)
        return table, _clock_problems(table)
    except ValidationError as error:
        expected = dict(describe_keys())
        # Of a union such as "a table or nothing" pydantic reports each branch: one problem a key is enough.
        problems: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            key = ".".join(str(part) for part in detail["loc"])
            problems.setdefault(key, _problem(detail, expected.get(key, "")))
        return None, list(problems.items())


def _problem(detail: ErrorDetails, expected: str) -> str:
    if detail["type"] == "missing":
        return f"missing; expected {expected}"
    if detail["type"] == "extra_forbidden":
        return "no such key"
    if detail["type"] == "value_error":  # from the units, which say it better
        return str(detail["ctx"]["error"])
    return f"expected {expected}, got {shown(detail['input'])}"


def build_accelerator(table: HardwareTable, name: str) -> Accelerator:
    """The accelerator of a table without problems; times and rates become cycles of its clock.

    Raises:
        ConfigError: Fields contradict each other, or a time is too many cycles; all of them at once.
    """
    parts = _Parts()
    clock = None if table.clock is None else table.clock.amount
    array = table.array
    given = table.memory
    memory = None if given is None else parts.attempt(lambda: _memory(given, clock, parts))
    accelerator = parts.attempt(
        lambda: Accelerator(
            name=name,
            rows=array.rows,
            cols=array.cols,
            dataflow=array.dataflow,
            skip=array.skip,
            pipelining=array.pipelining,
            mux=array.mux,
            group_cols=array.group_cols,
            memory=memory,
            vector=None if table.vector is None else VectorUnit(**table.vector.model_dump()),
            cores=array.cores,
            reorder=array.reorder,
            mapper=array.mapper,
            clock_hz=None if clock is None else float(clock),
            technology=table.technology,
            dram_type=None if table.memory is None else table.memory.dram_type,
            mac_type=array.mac_type,
        )
    )
    raise_all(parts.errors)
    assert accelerator is not None, "no part was refused"
    return accelerator


class _Parts:
    """Builds the parts of a machine that can be built, and keeps the errors of the others."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def attempt(self, build: Callable[[], _Part]) -> _Part | None:
        """What ``build`` returns; None if it is refused."""
        try:
            return build()
        except ConfigError as error:
            self.errors.append(error)
            return None


def _memory(table: MemoryTable, clock: Fraction | None, parts: _Parts) -> Memory:
    """What stands in for a part that was refused contradicts nothing."""
    given = table.dram
    dram = None if given is None else parts.attempt(lambda: _dram(given, clock, parts))
    latency = parts.attempt(partial(_cycles, "memory.latency", table.latency, clock))
    return Memory(
        input_bytes=int(table.input_buffer.amount),
        weight_bytes=int(table.weight_buffer.amount),
        output_bytes=int(table.output_buffer.amount),
        bandwidth=_bytes_per_cycle(table.bandwidth, clock),
        latency=latency or 0,
        mode="bandwidth" if given is not None and dram is None else table.mode,
        dram=dram,
        input_bits=table.input_bits,
        weight_bits=table.weight_bits,
        output_bits=table.output_bits,
        accumulator_bits=table.accumulator_bits,
        index_bits=table.index_bits,
    )


def _dram(table: DramTable, clock: Fraction | None, parts: _Parts) -> Dram:
    times: dict[str, int] = {}
    for name in DRAM_TIMES:
        cycles = parts.attempt(partial(_cycles, f"memory.dram.{name}", getattr(table, name), clock))
        times[name] = cycles if cycles is not None else MAX_CYCLES if name == "t_refi" else 0
    return Dram(
        banks=table.banks, row_bytes=int(table.row.amount), burst_bytes=int(table.burst.amount), **times
    )


def _bytes_per_cycle(rate: Quantity | None, clock: Fraction | None) -> float | None:
    if rate is None:
        return None
    return float(_per_cycle(rate, clock))


def _cycles(key: str, time: Quantity, clock: Fraction | None) -> int:
    """Whole cycles, rounded up: a memory is never faster than it was said to be."""
    cycles = math.ceil(time.amount if time.unit == "cycles" else time.amount * (clock or 0))
    if cycles > MAX_CYCLES:
        raise ConfigError(f"{key}: expected at most {MAX_CYCLES} cycles, got {cycles}")
    return cycles


def _per_cycle(rate: Quantity, clock: Fraction | None) -> Fraction:
    return rate.amount if rate.unit == "B/cycle" else rate.amount / (clock or 1)


def _clock_problems(table: HardwareTable) -> list[tuple[str, str]]:
    """What is given in seconds where no clock says how long a cycle is."""
    if table.clock is not None or table.memory is None:
        return []
    given: list[tuple[str, Quantity | None]] = [
        ("memory.bandwidth", table.memory.bandwidth),
        ("memory.latency", table.memory.latency),
    ]
    if table.memory.dram is not None:
        dram = table.memory.dram
        given += [(f"memory.dram.{name}", getattr(dram, name)) for name in DRAM_TIMES]
    return [
        (key, 'expected a clock to turn seconds into cycles, got none; add clock = "1 GHz"')
        for key, quantity in given
        if quantity is not None and quantity.unit in ("s", "B/s") and quantity.amount
    ]
