"""Hardware by name: presets (one TOML file each, every number with its source), ROWSxCOLS, and files."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pysim.config.accelerator import Accelerator
from pysim.config.hardware_file import Hardware, read_hardware, sized_array
from pysim.errors import ConfigError

DEFAULT_PRESET = "gemmini-16"
_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> tuple[str, ...]:
    """In alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_hardware(name: str, overrides: Sequence[str] = ()) -> Hardware:
    """The hardware of this name, with the origin and source of every value.

    Args:
        name: A preset, ROWSxCOLS, or the path of a file that ends in .toml.
        overrides: ``key=value`` each, such as ``memory.bandwidth=10GB/s``; later ones win.

    Raises:
        ConfigError: There is none, or it or an override has mistakes; all of them at once.
    """
    size = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", name)
    if size:
        return sized_array(int(size[1]), int(size[2]), overrides)
    path = _preset_path(name)
    if path is None and not name.endswith(".toml"):
        names = preset_names()
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise ConfigError(
            f"accelerator: expected ROWSxCOLS, a .toml file or one of {', '.join(names)}, got {name!r}",
            hint=f"Did you mean {nearest[0]}?" if nearest else None,
        )
    return read_hardware(path or Path(name), overrides, preset_path=_preset_path)


def load_accelerator(name: str, overrides: Sequence[str] = ()) -> Accelerator:
    """The accelerator of ``load_hardware``; a preset without overrides is always the same object.

    Raises:
        ConfigError: See ``load_hardware``.
    """
    if not overrides and name in PRESETS:
        return PRESETS[name]
    return load_hardware(name, overrides).accelerator


def _preset_path(name: str) -> Path | None:
    return _FOLDER / f"{name}.toml" if name in preset_names() else None


@functools.cache
def _preset(name: str) -> Accelerator:
    return load_hardware(name).accelerator


class _Presets(Mapping[str, Accelerator]):
    """Accelerators by preset name, each read when it is first asked for."""

    def __getitem__(self, name: str) -> Accelerator:
        if name not in preset_names():
            raise KeyError(name)
        return _preset(name)

    def __iter__(self) -> Iterator[str]:
        return iter(preset_names())

    def __len__(self) -> int:
        return len(preset_names())


PRESETS: Mapping[str, Accelerator] = _Presets()
