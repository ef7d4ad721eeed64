"""Reads a TOML file and the files that it extends into layers of dotted keys, with the line of each.

A file is untrusted: a regular file, bounded in size, nesting and number of files, and never executed.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pysim.config.units import shown
from pysim.errors import ConfigError

MAX_FILE_BYTES = 64 * 1024
_MAX_EXTENDS = 8
_MAX_NESTING = 8
_MAX_VALUES = 200  # several times what there is to say; what follows compares each with each


@dataclass(frozen=True, slots=True)
class Layer:
    """One file: its values and sources by dotted key, and the line of each key."""

    label: str
    values: Mapping[str, object]
    sources: Mapping[str, object]
    lines: Mapping[str, int]
    last: bool

    def origin(self, key: str) -> str:
        line = self.lines.get(key)
        return self.label if line is None else f"{self.label}:{line}"


def read_layers(path: Path, preset_path: Callable[[str], Path | None]) -> list[Layer]:
    """The file and what it extends, itself first.

    Raises:
        ConfigError: A file cannot be read or is not TOML, or ``extends`` runs in a circle or too deep.
    """
    layers: list[Layer] = []
    seen: list[Path] = []
    while True:
        tree, text = _read_toml(path)
        resolved = path.resolve()
        if resolved in seen:
            names = " -> ".join(p.name for p in (*seen, resolved))
            raise ConfigError(f"{seen[0].name}: extends: expected no circle, got {names}")
        if len(seen) == _MAX_EXTENDS:
            raise ConfigError(
                f"{seen[0].name}: extends: expected at most {_MAX_EXTENDS} files in a row, got more"
            )
        seen.append(resolved)
        extends = tree.pop("extends", None)
        sources = tree.pop("sources", {})
        layer = Layer(
            label=path.name,
            values=dict(_flatten(tree, path.name)),
            sources=dict(_flatten_sources(sources)) if isinstance(sources, dict) else {"": sources},
            lines=_key_lines(text),
            last=not layers,
        )
        if max(len(layer.values), len(layer.sources)) > _MAX_VALUES:
            raise ConfigError(
                f"{path.name}: expected at most {_MAX_VALUES} values and as many sources, got more"
            )
        layers.append(layer)
        if extends is None:
            return layers
        path = _extended(path, extends, layer, preset_path)


def _extended(path: Path, extends: object, layer: Layer, preset_path: Callable[[str], Path | None]) -> Path:
    where = f"{layer.origin('extends')}: extends"
    expected = "expected the name of a preset or a .toml file beside this one"
    if not isinstance(extends, str) or not extends.isprintable():
        raise ConfigError(f"{where}: {expected}, got {shown(extends)}")
    preset = preset_path(extends)
    if preset is not None:
        return preset
    if not extends.endswith(".toml") or Path(extends).is_absolute():
        raise ConfigError(
            f"{where}: {expected}, got {shown(extends)}", hint="pysim hw list shows the presets."
        )
    return path.parent / extends


def _read_toml(path: Path) -> tuple[dict[str, object], str]:
    text = read_bounded_text(path)
    try:
        return tomllib.loads(text), text
    except RecursionError as error:
        raise ConfigError(f"{path.name}: expected plain tables, got values nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise ConfigError(f"{path.name}: expected TOML: {error}") from error


def read_bounded_text(path: Path) -> str:
    """The text of a regular file of at most 64 KiB.

    Raises:
        ConfigError: It is no such file, cannot be read, or is not UTF-8.
    """
    try:
        # Not to wait forever on a pipe that nobody writes to.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: expected a readable file, got: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ConfigError(f"{path}: expected a regular file")
        data = _read_up_to(handle, MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_FILE_BYTES // 1024} KiB, got more")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text, got other bytes at offset {error.start}") from error


def _read_up_to(handle: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := os.read(handle, size - len(data))):
        data += piece
    return data


def _flatten(tree: Mapping[str, object], label: str, prefix: str = "") -> Iterator[tuple[str, object]]:
    if prefix.count(".") > _MAX_NESTING:
        raise ConfigError(f"{label}: expected at most {_MAX_NESTING} nested tables, got more")
    for key, value in tree.items():
        # A quoted key with a dot in it stays apart from a nested one; no real key has one.
        name = f"{prefix}{key.replace('.', chr(0))}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, label, f"{name}.")
        else:
            yield name, value


def _flatten_sources(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Sources by dotted key, whether written ``"a.b" = ...`` or ``a.b = ...``."""
    for key, value in tree.items():
        if isinstance(value, dict) and "source" not in value and prefix.count(".") <= _MAX_NESTING:
            yield from _flatten_sources(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _key_lines(text: str) -> dict[str, int]:
    """The line of every key that is written plainly; only for messages, so it need not know all of TOML."""
    lines: dict[str, int] = {}
    table = ""
    quotes = None  # the kind of multi-line string that the scan is inside of
    for number, line in enumerate(text.splitlines(), start=1):
        outside = quotes is None
        for quote in ('"""', "'''"):
            if quotes in (None, quote) and line.count(quote) % 2:
                quotes = quote if quotes is None else None
        if not outside:
            continue
        header = re.match(r"\s*\[\s*([A-Za-z0-9_.\-]+)\s*\]", line)
        if header:
            table = f"{header[1]}."
            lines.setdefault(header[1], number)
            continue
        key = re.match(r"""\s*(?:"([A-Za-z0-9_.\-]+)"|([A-Za-z0-9_.\-]+))\s*=""", line)
        if key:
            lines.setdefault(f"{table}{key[1] or key[2]}", number)
    return lines
