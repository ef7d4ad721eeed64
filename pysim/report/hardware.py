"""Hardware descriptions as text and JSON, with the source of every value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pysim.config import Accelerator, Hardware, Memory, Setting
from pysim.report.table import format_table


def hardware_json(hardware: Hardware) -> dict[str, object]:
    """What ``--json`` prints; sizes in bytes, times in cycles, values of ``settings`` as written."""
    return {
        "name": hardware.name,
        "description": hardware.description,
        "accelerator": asdict(hardware.accelerator),
        "settings": [asdict(setting) for setting in hardware.settings],
    }


def heading(hardware: Hardware) -> str:
    """One line: name, array, memory, clock."""
    hw = hardware.accelerator
    parts = [f"{_cores(hw)}{hw.rows} x {hw.cols} PEs", f"dataflow {hw.dataflow}"]
    if hw.clock_hz is not None:
        parts.append(f"{hw.clock_hz / 1e6:g} MHz")
    parts.append("compute only" if hw.memory is None else f"{_off_chip(hw.memory)} off chip")
    return f"{hardware.name}: {', '.join(parts)}"


def render_presets(presets: Sequence[Hardware]) -> str:
    """A row per preset."""
    header = ["preset", "array", "dataflow", "clock", "buffers", "off chip", "what"]
    rows = []
    for preset in presets:
        hw = preset.accelerator
        rows.append(
            [
                preset.name,
                f"{_cores(hw)}{hw.rows} x {hw.cols}",
                hw.dataflow,
                "-" if hw.clock_hz is None else f"{hw.clock_hz / 1e6:g} MHz",
                "-" if hw.memory is None else _buffers(hw.memory),
                "-" if hw.memory is None else _off_chip(hw.memory),
                preset.description or "",
            ]
        )
    return format_table(header, rows, left=len(header))


def render_hardware(
    hardware: Hardware, missing_figures: Sequence[str], area_mm2: Mapping[str, float] | None
) -> str:
    """Every value that was set with its source, what its energy table lacks, and its area if it is known.

    Args:
        hardware: To be shown.
        missing_figures: What keeps its energy from being known.
        area_mm2: By component, at 45 nm; None if unknown.
    """
    rows = [
        [setting.key, _value(setting), setting.mark or "", setting.source or f"({setting.origin})"]
        for setting in hardware.settings
    ]
    lines = [heading(hardware)]
    if hardware.description:
        lines.append(hardware.description)
    lines += ["", format_table(["key", "value", "mark", "source, or where it was set"], rows, left=4)]
    marks = Counter(setting.mark for setting in hardware.settings)
    doubts = [f"{marks[mark]} {mark}" for mark in ("assumed", "unverified") if marks[mark]]
    if doubts:
        lines += ["", f"of {len(hardware.settings)} values {' and '.join(doubts)}"]
    if missing_figures:
        lines += ["", f"no energy: {'; '.join(missing_figures)}"]
    if area_mm2 is not None:
        parts = ", ".join(f"{name} {part:.3g}" for name, part in area_mm2.items())
        lines += ["", f"area at 45 nm, without wires and control: {sum(area_mm2.values()):.3g} mm2 ({parts})"]
    return "\n".join(lines)


def _value(setting: Setting) -> str:
    if isinstance(setting.value, bool):
        return "true" if setting.value else "false"
    return str(setting.value)


def _cores(hw: Accelerator) -> str:
    return f"{hw.cores} x " if hw.cores > 1 else ""


def _buffers(memory: Memory) -> str:
    sizes = (memory.input_bytes, memory.weight_bytes, memory.output_bytes)
    return " + ".join(_size(size) for size in sizes)


def _size(size: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def _off_chip(memory: Memory) -> str:
    return "unlimited" if memory.bandwidth is None else f"{memory.bandwidth:.4g} B/cycle"
