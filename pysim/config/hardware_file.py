"""Hardware files: layers of TOML, then overrides; every value keeps its origin and its source.

docs/hardware.md describes the format. All that is wrong is reported at once, with file and line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from pysim.config.accelerator import Accelerator
from pysim.config.layers import Layer, read_layers
from pysim.config.units import shown
from pysim.errors import CombinedConfigError, ConfigError

Mark: TypeAlias = Literal["derived", "assumed", "unverified"]
MARKS: tuple[Mark, ...] = get_args(Mark)

# What a field of an accelerator is called in a file, where that differs.
_FIELD_NAMES = (("accelerator.", "array."), (".row_bytes", ".row"), (".burst_bytes", ".burst"))

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}(?:\.[A-Za-z0-9_-]{1,60})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of a hardware description and where it is from.

    Args:
        key: Dotted, as in ``memory.bandwidth``.
        value: As written.
        origin: ``FILE:LINE``, ``--set`` or what else set it last.
        source: Publication or derivation, if the file that set it names one.
        mark: ``derived`` from the source, ``assumed`` without one, ``unverified`` against it; None: as the
            source has it.
    """

    key: str
    value: object
    origin: str
    source: str | None = None
    mark: Mark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A hardware description that has passed its checks.

    Args:
        name: Of the file, with what overrides have changed.
        description: One line, or None.
        accelerator: What is simulated.
        settings: Every value that was set, in the order of their keys.
    """

    name: str
    description: str | None
    accelerator: Accelerator
    settings: tuple[Setting, ...]


class _Problems:
    """Collects what is wrong, so that it can be told at once."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._lines: dict[str, str | None] = {}  # Each with its hint.

    def add(self, origin: str, key: str, message: str) -> None:
        self._lines.setdefault(f"{origin}: {_shown_key(key)}: {message}", None)

    def add_error(self, origin: str, error: ConfigError) -> None:
        """Of fields that do not go together; the message names the field."""
        self._lines.setdefault(f"{origin}: {error}", error.hint)

    def raise_if_any(self) -> None:
        if len(self._lines) == 1:
            line, hint = next(iter(self._lines.items()))
            raise ConfigError(line, hint=hint)
        if self._lines:
            lines = [f"{line}. {hint}" if hint else line for line, hint in self._lines.items()]
            listed = "\n".join(f"  {line}" for line in lines[:20])
            more = f"\n  and {len(self._lines) - 20} more" if len(self._lines) > 20 else ""
            raise ConfigError(
                f"{self._label}: expected a hardware description, got {len(self._lines)} mistakes\n"
                f"{listed}{more}"
            )


def read_hardware(
    path: Path, overrides: Sequence[str] = (), *, preset_path: Callable[[str], Path | None]
) -> Hardware:
    """Reads a file, the files that it extends, and overrides.

    Args:
        path: The TOML file.
        overrides: ``key=value`` each, in the file's own units; later ones win.
        preset_path: Where the preset of a name is, None if there is none.

    Raises:
        ConfigError: The file cannot be read or says something that it may not; all mistakes at once.
    """
    label = path.name
    problems = _Problems(label)
    settings: dict[str, Setting] = {}
    for layer in reversed(read_layers(path, preset_path)):
        _apply(layer, settings, problems)
    if "name" not in settings:
        _put(settings, Setting(key="name", value=plain_name(path.stem) or "custom", origin=label))
    return _finish(label, settings, overrides, problems)


def plain_name(text: str) -> str:
    """What of a foreign name a hardware file may carry; perhaps nothing."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:64]


def sized_array(rows: int, cols: int, overrides: Sequence[str]) -> Hardware:
    """An array of that size with overrides; everything else has its default."""
    label = f"{rows}x{cols}"
    settings: dict[str, Setting] = {}
    for key, value in (("name", "custom"), ("array.rows", rows), ("array.cols", cols)):
        _put(settings, Setting(key=key, value=value, origin=label))
    return _finish(label, settings, overrides, _Problems(label))


def _apply(layer: Layer, settings: dict[str, Setting], problems: _Problems) -> None:
    """Lays a file over the values so far. A value that it sets loses the source of the value below."""
    sources = _checked_sources(layer, problems)
    for key, value in layer.values.items():
        if key in ("name", "description") and not layer.last:
            continue  # these are of a file, not of what extends it
        source, mark = _source_of(key, sources)
        _put(settings, Setting(key=key, value=value, origin=layer.origin(key), source=source, mark=mark))


def _checked_sources(layer: Layer, problems: _Problems) -> dict[str, tuple[str, Mark | None]]:
    from pysim.config.schema import describe_keys

    known = {key for key, _ in describe_keys()}
    checked: dict[str, tuple[str, Mark | None]] = {}
    for key, entry in layer.sources.items():
        where = f"sources.{key}" if key else "sources"
        origin = layer.origin(where)
        whole = {"source": entry, "mark": None} if isinstance(entry, str) else entry
        if not isinstance(whole, dict) or not set(whole) <= {"source", "mark"}:
            problems.add(origin, where, 'expected text, or { source = "...", mark = "assumed" }')
        elif key not in known:
            problems.add(origin, where, f"no such key{_did_you_mean(key, known)}")
        elif not isinstance(whole["source"], str) or not whole["source"].isprintable():
            problems.add(origin, where, f"expected text, got {shown(whole['source'])}")
        elif whole.get("mark") is not None and whole["mark"] not in MARKS:
            problems.add(origin, where, f"expected a mark of {', '.join(MARKS)}, got {shown(whole['mark'])}")
        else:
            checked[key] = (whole["source"], cast("Mark | None", whole.get("mark")))
    return checked


def _source_of(key: str, sources: Mapping[str, tuple[str, Mark | None]]) -> tuple[str | None, Mark | None]:
    """The source given for the key itself, or for the nearest table around it."""
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return None, None


def _put(settings: dict[str, Setting], new: Setting) -> None:
    """A table replaces a value of the same name, and a value a table."""
    for key in list(settings):
        if key.startswith(f"{new.key}.") or new.key.startswith(f"{key}."):
            del settings[key]
    settings[new.key] = new


def _override(settings: dict[str, Setting], override: str, problems: _Problems) -> None:
    key, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not _PLAIN_KEY.fullmatch(key) or not text.isprintable() or len(override) > 300:
        problems.add("--set", key, "expected key=value, as in array.rows=64 or memory.bandwidth=10GB/s")
        return
    value: object = text
    if text in ("true", "false"):
        value = text == "true"
    elif re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        value = int(text)
    _put(settings, Setting(key=key, value=value, origin="--set"))


def _finish(
    label: str, settings: dict[str, Setting], overrides: Sequence[str], problems: _Problems
) -> Hardware:
    from pysim.config.schema import build_accelerator, check_table, describe_keys

    for override in overrides:
        _override(settings, override, problems)
    table, found = check_table(_unflatten(settings))
    known = [key for key, _ in describe_keys()]
    for key, message in found:
        near = _did_you_mean(key, known) if message == "no such key" else ""
        problems.add(_origin(key, settings, label), key, f"{message}{near}")
    name = ""
    accelerator = None
    if table is not None:
        name = f"{table.name} with {', '.join(overrides)}" if overrides else table.name
        try:
            accelerator = build_accelerator(table, name)
        except ConfigError as error:
            untimed = {key for key, _ in found}
            for each in error.errors if isinstance(error, CombinedConfigError) else (error,):
                key = _key_of(str(each))
                if not (untimed and _is_timed(key)):
                    problems.add_error(_origin(key, settings, label), each)
    problems.raise_if_any()
    assert table is not None, "a table without problems"
    assert accelerator is not None, "and without contradictions"
    order = {key: i for i, key in enumerate(known)}
    values = [s for s in settings.values() if s.key not in ("name", "description")]
    return Hardware(
        name=name,
        description=table.description,
        accelerator=accelerator,
        settings=tuple(sorted(values, key=lambda s: order[s.key])),
    )


def _unflatten(settings: Mapping[str, Setting]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for setting in settings.values():
        *tables, last = setting.key.split(".")
        branch = tree
        for name in tables:
            branch = cast("dict[str, object]", branch.setdefault(name, {}))
        branch[last] = setting.value
    return tree


def _origin(key: str, settings: Mapping[str, Setting], label: str) -> str:
    """Of the value itself, or of the first value in the table of that name."""
    for setting in settings.values():
        if setting.key == key or setting.key.startswith(f"{key}."):
            return setting.origin
    return label


def _key_of(message: str) -> str:
    """The file's key for a field that contradicts others, from the message's own name of it."""
    field = message.partition(":")[0]
    for of_field, of_key in _FIELD_NAMES:
        field = field.replace(of_field, of_key)
    return "memory.mode" if field == "memory.dram" else field  # The mode is what asks for a missing table.


def _is_timed(key: str) -> bool:
    """Whether the value is in cycles of the clock, and means nothing without one."""
    return key in ("memory.bandwidth", "memory.latency") or key.startswith("memory.dram.t_")


def _did_you_mean(key: str, known: Sequence[str] | set[str]) -> str:
    """By the whole dotted key, or by its last part where only the table is wrong."""
    if len(key) > 100:
        return ""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = near or [k for k in sorted(known) if k.split(".")[-1] == key.split(".")[-1]]
    return f"; did you mean {near[0]}?" if near else "; pysim hw show lists what a preset sets"


def _shown_key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) and len(key) <= 100 else shown(key.replace(chr(0), "."))
