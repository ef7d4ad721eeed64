"""Hardware descriptions of other simulators, written out as pysim's TOML: SCALE-Sim .cfg and ONNXim .json.

The files are untrusted: read as data, bounded, every number checked by the same rules as a hardware file.
What has no counterpart here is listed in a comment of the result and not silently dropped.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from pysim.config.hardware_file import plain_name
from pysim.config.layers import read_bounded_text
from pysim.config.units import shown
from pysim.errors import ConfigError

_IDENTIFIER = re.compile(r"[A-Za-z0-9_]{1,60}")
_MAX_LEFT_OUT = 100
_COUNT = re.compile(r"[0-9]{1,12}")


@dataclass(slots=True)
class _Draft:
    """A hardware file in the making: top-level keys, the tables, sources, and what was left out."""

    top: dict[str, object] = field(default_factory=dict)
    array: dict[str, object] = field(default_factory=dict)
    memory: dict[str, object] = field(default_factory=dict)
    sources: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def toml(self) -> str:
        lines = [f"# Not taken over: {name}" for name in self.left_out[:_MAX_LEFT_OUT]]
        if len(self.left_out) > _MAX_LEFT_OUT:
            lines.append(f"# Not taken over: {len(self.left_out) - _MAX_LEFT_OUT} more")
        for key, value in self.top.items():
            lines.append(f"{key} = {_toml_value(value)}")
        for table in ("array", "memory"):
            lines += ["", f"[{table}]"]
            lines += [f"{key} = {_toml_value(value)}" for key, value in getattr(self, table).items()]
        lines += ["", "[sources]"]
        for key, (source, mark) in self.sources.items():
            text = _toml_value(source)
            entry = text if mark is None else f"{{ source = {text}, mark = {_toml_value(mark)} }}"
            lines.append(f"{_toml_value(key)} = {entry}")
        return "\n".join(lines) + "\n"


def import_hardware(path: Path) -> str:
    """The hardware file that says what a SCALE-Sim .cfg or an ONNXim .json says.

    Raises:
        ConfigError: The file is neither, cannot be read, or describes what pysim cannot.
    """
    readers = {".cfg": _scalesim, ".json": _onnxim}
    if path.suffix not in readers:
        raise ConfigError(
            f"{path.name}: expected a SCALE-Sim .cfg or an ONNXim .json, got a name ending in {path.suffix!r}"
        )
    draft = readers[path.suffix](read_bounded_text(path), path.name)
    text = draft.toml()
    _check(text, path.name)
    return text


def _check(text: str, label: str) -> None:
    """Holds the result to the rules of every hardware file, under the name of the file that it is from."""
    import tomllib

    from pysim.config.schema import build_accelerator, check_table

    tree = tomllib.loads(text)
    del tree["sources"]
    table, problems = check_table(tree)
    if table is None or problems:
        listed = "; ".join(f"{key}: {message}" for key, message in problems)
        raise ConfigError(f"{label}: expected hardware that pysim can describe: {listed}")
    build_accelerator(table, label)


def _scalesim(text: str, label: str) -> _Draft:
    parser = configparser.RawConfigParser(strict=True, interpolation=None)
    try:
        parser.read_string(text, source=label)
    except configparser.Error as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{label}: expected a SCALE-Sim configuration: {shown(reason)}") from error
    section = "architecture_presets"
    if not parser.has_section(section):
        raise ConfigError(f"{label}: expected a section [{section}], got none")
    values = dict(parser.items(section))
    used: set[str] = set()

    def take(*names: str) -> str:
        for name in names:
            if name.lower() in values:
                used.add(f"{section}.{name.lower()}")
                return values[name.lower()].strip()
        raise ConfigError(f"{label}: [{section}] {names[0]}: expected a value, got none")

    def count(*names: str) -> int:
        return _count(take(*names), f"{label}: [{section}] {names[0]}")

    draft = _Draft()
    run_name = parser.get("general", "run_name", fallback="").strip().strip("\"'")
    draft.top["name"] = plain_name(run_name) or plain_name(Path(label).stem) or "imported"
    draft.array = {"rows": count("ArrayHeight"), "cols": count("ArrayWidth")}
    draft.array |= {"dataflow": take("Dataflow").lower(), "pipelining": "serial"}
    for ours, theirs in (("input", "Ifmap"), ("weight", "Filter"), ("output", "Ofmap")):
        draft.memory[f"{ours}_buffer"] = f"{count(f'{theirs}SramSzkB', f'{theirs}SramSz')} KiB"
    mode = parser.get("run_presets", "InterfaceBandwidth", fallback="CALC").strip().upper()
    if mode == "USER":
        first = take("Bandwidth").split(",")[0].strip()
        draft.memory["bandwidth"] = f"{_count(first, f'{label}: [{section}] Bandwidth')} B/cycle"
        note = "words of one byte a cycle; SCALE-Sim gives that to each operand, here all share it"
    else:
        draft.memory["bandwidth"] = "unlimited"
        note = "InterfaceBandwidth CALC: as much as it takes never to stall"
    source = f"SCALE-Sim configuration {shown(label)[1:-1]}"
    draft.sources = {
        "array": (source, None),
        "array.pipelining": ("SCALE-Sim starts a fold when the one before has left", "derived"),
        "memory": (f"{source}; SCALE-Sim counts 1 kB as 1024 bytes", "derived"),
        "memory.bandwidth": (f"{source}: {note}", "derived"),
    }
    known = used | {"general.run_name", "run_presets.interfacebandwidth"}
    for name in parser.sections():
        for key in parser.options(name):
            if f"{name}.{key}" not in known and _IDENTIFIER.fullmatch(name) and _IDENTIFIER.fullmatch(key):
                draft.left_out.append(f"[{name}] {key}")
    return draft


_ONNXIM_CORE = ("core_type", "core_width", "core_height", "spad_size", "accum_spad_size")
_ONNXIM_CHIP = (
    "num_cores",
    "core_freq",
    "precision",
    "dram_freq",
    "dram_channels",
    "dram_req_size",
    "dram_nbl",
)


def _onnxim(text: str, label: str) -> _Draft:
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ConfigError(f"{label}: expected plain objects, got values nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{label}: expected JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{label}: expected an object, got {shown(data)}")
    core = _onnxim_core(data, label)

    def count(source: Mapping[str, object], key: str) -> int:
        value = source.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**12:
            got = "none" if value is None else shown(value)
            raise ConfigError(f"{label}: {key}: expected a whole number above 0, got {got}")
        return value

    core_type = core.get("core_type")
    if core_type not in ("systolic_ws", "systolic_os"):
        raise ConfigError(f"{label}: core_type: expected systolic_ws or systolic_os, got {shown(core_type)}")
    scratchpad = count(core, "spad_size") * 1024
    bits = count(data, "precision") * 8
    burst_clocks = count(data, "dram_nbl") if "dram_nbl" in data else 1
    rate = Fraction(count(data, "dram_freq") * 10**6 * count(data, "dram_channels"), burst_clocks)
    bandwidth = int(rate * count(data, "dram_req_size"))

    draft = _Draft()
    draft.top = {
        "name": plain_name(Path(label).stem) or "imported",
        "clock": f"{count(data, 'core_freq')} MHz",
    }
    draft.array = {"rows": count(core, "core_height"), "cols": count(core, "core_width")}
    draft.array |= {"dataflow": str(core_type)[-2:], "cores": count(data, "num_cores")}
    draft.memory = {
        "input_buffer": f"{scratchpad - scratchpad // 2} B",
        "weight_buffer": f"{scratchpad // 2} B",
        "output_buffer": f"{count(core, 'accum_spad_size')} KiB",
        "bandwidth": f"{bandwidth} B/s",
        "input_bits": bits,
        "weight_bits": bits,
        "output_bits": bits,
    }
    source = f"ONNXim configuration {shown(label)[1:-1]}"
    halved = (f"{source}: one spad_size for inputs and weights, halved", "assumed")
    rule = "dram_freq x dram_channels x dram_req_size / dram_nbl (1 if absent)"
    draft.sources = {
        "clock": (source, None),
        "array": (source, None),
        "memory": (source, None),
        "memory.input_buffer": halved,
        "memory.weight_buffer": halved,
        "memory.bandwidth": (f"{source}: {rule}", "derived"),
    }
    taken = {*_ONNXIM_CORE, *_ONNXIM_CHIP, "core_config"}
    for key in [*data, *(core if core is not data else ())]:
        if key not in taken and _IDENTIFIER.fullmatch(key):
            draft.left_out.append(key)
    return draft


def _onnxim_core(data: Mapping[str, object], label: str) -> Mapping[str, object]:
    """The description of a core, which all cores must share: older files have it at the top."""
    if "core_config" not in data:
        return data
    cores = data["core_config"]
    if not isinstance(cores, dict) or not cores or not all(isinstance(c, dict) for c in cores.values()):
        raise ConfigError(f"{label}: core_config: expected one object per core, got {shown(cores)}")
    first, *others = cores.values()
    for key in _ONNXIM_CORE:
        if any(other.get(key) != first.get(key) for other in others):
            raise ConfigError(f"{label}: core_config: expected cores alike, got different {key}")
    return dict(first)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _count(text: str, where: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ConfigError(f"{where}: expected a whole number, got {shown(text)}")
    return int(text)


def _toml_value(value: object) -> str:
    """Integers as they are; text as a TOML basic string, which JSON's escapes are part of."""
    return str(value) if isinstance(value, int) else json.dumps(str(value))
