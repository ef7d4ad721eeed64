"""Presets: every number has a source, and docs/hardware.md shows what the files say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pysim.config import DEFAULT_PRESET, PRESETS, load_accelerator, load_hardware, preset_names
from pysim.config.schema import describe_keys
from pysim.energy import energy_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "hardware.md"


@pytest.mark.parametrize("name", preset_names())
def test_every_value_of_a_preset_has_a_source(name):
    hardware = load_hardware(name)
    assert hardware.name == name
    assert hardware.description
    for setting in hardware.settings:
        assert setting.source, f"{setting.key} has no source"
        assert setting.origin.startswith(f"{name}.toml:"), setting.origin


@pytest.mark.parametrize("name", preset_names())
def test_a_source_of_none_is_marked_as_assumed(name):
    for setting in load_hardware(name).settings:
        assert setting.mark == "assumed" or not setting.source.startswith("none"), setting.key


def test_the_presets_are_the_published_machines():
    shape = {
        name: (hw.cores, hw.rows, hw.cols, hw.dataflow, hw.clock_hz and hw.clock_hz / 1e6)
        for name, hw in PRESETS.items()
    }
    assert shape == {
        "edge-8": (1, 8, 8, "ws", 1000),
        "eyeriss": (1, 12, 14, "ws", 200),
        "gemmini-16": (1, 16, 16, "ws", 1000),
        "scalesim-eyeriss": (1, 12, 14, "ws", None),
        "scalesim-tpu": (1, 256, 256, "os", None),
        "tpu-v1": (1, 256, 256, "ws", 700),
        "tpu-v4": (8, 128, 128, "ws", 1050),
        "tpu-v4i": (4, 128, 128, "ws", 1050),
    }
    assert DEFAULT_PRESET in PRESETS


def on_chip_bytes(name):
    hw = PRESETS[name]
    return hw.cores * (hw.memory.input_bytes + hw.memory.weight_bytes + hw.memory.output_bytes)


def test_buffers_add_up_to_what_is_published():
    mib, kib = 2**20, 2**10
    assert on_chip_bytes("eyeriss") == 108 * kib
    assert on_chip_bytes("gemmini-16") == (256 + 64) * kib
    assert on_chip_bytes("edge-8") == (64 + 16) * kib
    assert on_chip_bytes("tpu-v4i") == 128 * mib
    assert on_chip_bytes("tpu-v4") == (128 + 32) * mib
    assert on_chip_bytes("tpu-v1") == (24 + 4) * mib + 256 * kib
    assert on_chip_bytes("scalesim-tpu") == (6144 + 6144 + 2048) * kib


def test_peak_rates_are_those_that_are_published():
    tpu = PRESETS["tpu-v1"]
    assert 2 * tpu.rows * tpu.cols * tpu.clock_hz / 1e12 == pytest.approx(91.75, abs=0.005)
    for name, gigabytes in {
        "tpu-v1": 34,
        "eyeriss": 0.72,
        "tpu-v4i": 614,
        "tpu-v4": 1200,
        "edge-8": 12.8,
    }.items():
        hw = PRESETS[name]
        assert hw.memory.bandwidth * hw.clock_hz / 1e9 == pytest.approx(gigabytes, rel=1e-12)
    assert PRESETS["gemmini-16"].memory.bandwidth == 16


@pytest.mark.parametrize("name", preset_names())
def test_energy_tables_that_presets_name_exist(name):
    technology = load_accelerator(name).technology
    assert technology is None or energy_table(technology).name == technology


def presets_block():
    """The part of the page between its markers, as the files say it."""
    lines = []
    for name in preset_names():
        hardware = load_hardware(name)
        lines += [f"### `{name}`", "", f"{hardware.description}.", ""]
        lines += ["| key | value | mark | source |", "|---|---|---|---|"]
        for setting in hardware.settings:
            value = str(setting.value)
            lines.append(f"| `{setting.key}` | {value} | {setting.mark or ''} | {setting.source} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_shows_every_preset_as_it_is():
    """PYSIM_UPDATE_GOLDEN=1 rewrites the page for a human to review."""
    start, end = "<!-- presets: begin -->\n", "<!-- presets: end -->"
    page = PAGE.read_text()
    before, _, rest = page.partition(start)
    shown, _, after = rest.partition(end)
    if os.environ.get("PYSIM_UPDATE_GOLDEN"):
        shown = presets_block()
        PAGE.write_text(before + start + shown + end + after)
    assert shown == presets_block()


@pytest.mark.parametrize(("key", "expected"), list(describe_keys()))
def test_the_page_names_every_key(key, expected):
    assert expected
    if key in ("array", "memory", "vector"):  # tables: the page has a row for each of their keys
        return
    assert f"`{key}`" in PAGE.read_text().partition("<!-- presets: begin -->")[0]
