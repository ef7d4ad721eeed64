"""Hardware files: what they say, what they extend, what overrides change, and how mistakes are told."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pysim.config import Accelerator, Dram, Memory, VectorUnit, load_accelerator, load_hardware, preset_names
from pysim.config.schema import describe_keys
from pysim.errors import ConfigError

FULL = """\
name = "my-npu"
description = "everything that a file can say"
clock = "800 MHz"
technology = "45nm"

[array]
rows = 32
cols = 64
dataflow = "os"
skip = "group"
pipelining = "serial"
mux = 4
group_cols = 8
cores = 2
reorder = true
mapper = true
mac_type = "int8"

[memory]
input_buffer = "64 KiB"
weight_buffer = "32 KB"
output_buffer = "1 MiB"
bandwidth = "12.8 GB/s"
latency = "101 ns"
mode = "rowbuffer"
dram_type = "DDR3"
input_bits = 4
weight_bits = 2
output_bits = 16
accumulator_bits = 24
index_bits = 16

[memory.dram]
banks = 8
row = "8 KiB"
burst = "32 B"
t_cl = "13.75 ns"
t_rcd = "11 cycles"
t_rp = "13.75 ns"
t_rfc = "260 ns"
t_refi = "7.8 us"

[vector]
lanes = 48
cycles_per_element = 3
"""

MEMORY_TEXT = """[array]
rows = 4
cols = 4
[memory]
input_buffer = "64 B"
weight_buffer = "64 B"
output_buffer = "64 B"
"""
DRAM_TEXT = """bandwidth = "1 B/cycle"
[memory.dram]
banks = 1
row = "{row}"
t_cl = "1 cycles"
t_rcd = "10 cycles"
t_rp = "10 cycles"
t_rfc = "10 cycles"
t_refi = "{t_refi}"
"""

EXPECTED = Accelerator(
    name="my-npu",
    rows=32,
    cols=64,
    dataflow="os",
    skip="group",
    pipelining="serial",
    mux=4,
    group_cols=8,
    cores=2,
    reorder=True,
    mapper=True,
    mac_type="int8",
    clock_hz=800e6,
    technology="45nm",
    dram_type="DDR3",
    memory=Memory(
        input_bytes=65536,
        weight_bytes=32000,
        output_bytes=1048576,
        bandwidth=16.0,  # 12.8e9 / 800e6
        latency=81,  # 80.8 cycles, rounded up
        mode="rowbuffer",
        input_bits=4,
        weight_bits=2,
        output_bits=16,
        accumulator_bits=24,
        index_bits=16,
        # 13.75 ns at 800 MHz are exactly 11 cycles.
        dram=Dram(
            banks=8, row_bytes=8192, burst_bytes=32, t_cl=11, t_rcd=11, t_rp=11, t_rfc=208, t_refi=6240
        ),
    ),
    vector=VectorUnit(lanes=48, cycles_per_element=3),
)


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_file


def error_of(name, overrides=()):
    with pytest.raises(ConfigError) as raised:
        load_hardware(name, overrides)
    return str(raised.value)


def test_a_file_with_every_key_says_exactly_this(write):
    assert load_accelerator(write("npu.toml", FULL)) == EXPECTED


def test_the_full_file_sets_every_key_there_is(write):
    tables = {"array", "memory", "memory.dram", "vector", "name", "description"}
    given_keys = {s.key for s in load_hardware(write("npu.toml", FULL)).settings}
    assert given_keys == {key for key, _ in describe_keys()} - tables


def test_a_small_file_has_the_defaults_of_the_classes(write):
    small = write("small.toml", "[array]\nrows = 4\ncols = 5\n")
    assert load_accelerator(small) == Accelerator(name="small", rows=4, cols=5)
    text = '[array]\nrows=4\ncols=5\n[memory]\ninput_buffer="1 B"\nweight_buffer="2 B"\noutput_buffer="3 B"\n'
    hw = load_accelerator(write("m.toml", text + 'bandwidth = "unlimited"\n'))
    assert hw.memory == Memory(input_bytes=1, weight_bytes=2, output_bytes=3, bandwidth=None)


def test_a_file_extends_a_preset_and_another_file(write):
    write("base.toml", 'extends = "gemmini-16"\ndescription = "of base"\n[array]\nrows = 32\n')
    hw = load_hardware(write("top.toml", 'extends = "base.toml"\n[array]\ncols = 8\n'))
    expected = dataclasses.replace(load_accelerator("gemmini-16"), name="top", rows=32, cols=8)
    assert hw.accelerator == expected
    assert hw.description is None
    by_key = {s.key: s for s in hw.settings}
    assert by_key["array.rows"].origin == "base.toml:4"
    assert by_key["array.cols"].origin == "top.toml:3"
    assert by_key["memory.bandwidth"].origin.startswith("gemmini-16.toml:")


def test_a_table_replaces_a_value_that_is_no_table(write):
    write("base.toml", "array = 3\n")
    top = write("top.toml", 'extends = "base.toml"\n[array]\nrows = 2\ncols = 3\n')
    assert load_accelerator(top) == Accelerator(name="top", rows=2, cols=3)


def test_a_value_that_is_set_anew_loses_the_source_of_the_old_one(write):
    text = 'extends = "gemmini-16"\n[array]\nrows = 8\ncols = 8\n[sources]\narray.cols = "my data sheet"\n'
    by_key = {s.key: s for s in load_hardware(write("a.toml", text)).settings}
    assert by_key["array.rows"].source is None
    assert by_key["array.cols"].source == "my data sheet"
    assert "Gemmini" in by_key["array.dataflow"].source
    overridden = {s.key: s for s in load_hardware("gemmini-16", ["array.rows=8"]).settings}
    assert (overridden["array.rows"].source, overridden["array.rows"].origin) == (None, "--set")


def test_sources_name_a_value_or_a_table_and_carry_a_mark(write):
    text = (
        '[array]\nrows = 8\ncols = 8\n[sources]\narray = "A"\n'
        '"array.cols" = { source = "B", mark = "assumed" }\n'
    )
    by_key = {s.key: (s.source, s.mark) for s in load_hardware(write("a.toml", text)).settings}
    assert by_key == {"array.rows": ("A", None), "array.cols": ("B", "assumed")}


OVERRIDES = [
    ("array.rows=64", lambda hw: hw.rows, 64),
    ("array.dataflow=os", lambda hw: hw.dataflow, "os"),
    ("array.reorder=true", lambda hw: hw.reorder, True),
    ("memory.bandwidth=10GB/s", lambda hw: hw.memory.bandwidth, 10.0),
    ("memory.bandwidth = 3 B/cycle", lambda hw: hw.memory.bandwidth, 3.0),
    ("memory.bandwidth=unlimited", lambda hw: hw.memory.bandwidth, None),
    ("memory.latency=100ns", lambda hw: hw.memory.latency, 100),
    ("clock=2GHz", lambda hw: hw.clock_hz, 2e9),
]


@pytest.mark.parametrize(("override", "look", "value"), OVERRIDES, ids=[case[0] for case in OVERRIDES])
def test_an_override_changes_its_value_and_shows_in_the_name(override, look, value):
    hw = load_accelerator("gemmini-16", [override])
    assert look(hw) == value
    assert hw.name == f"gemmini-16 with {override}"


def test_the_last_override_wins_and_sizes_can_be_overridden():
    assert load_accelerator("4x5", ["array.rows=6", "array.rows=7"]).rows == 7
    assert load_accelerator("4x5").cols == 5


def test_a_rate_in_seconds_follows_the_clock():
    half = load_accelerator("tpu-v1", ["clock=350MHz"])
    assert half.memory.bandwidth == 2 * load_accelerator("tpu-v1").memory.bandwidth


def test_all_mistakes_are_told_at_once_with_file_and_line(write):
    text = """\
extends = "gemmini-16"
clok = "1 GHz"

[array]
rows = 0
dataflow = "rs"
mux = 2.0
reorder = 1

[memory]
bandwidth = 34
input_bufer = "24 MiB"
weight_buffer = "0 B"
"""
    message = error_of(write("npu.toml", text), ["array.cols=many"])
    lines = message.splitlines()
    assert lines[0] == "npu.toml: expected a hardware description, got 9 mistakes"
    told = {re.sub(r": .*", "", line.strip(), count=1): line for line in lines[1:]}
    assert set(told) == {f"npu.toml:{n}" for n in (2, 5, 6, 7, 8, 11, 12, 13)} | {"--set"}
    assert "clok: no such key; did you mean clock?" in message
    assert "array.rows: expected an integer from 1 to 65536, got 0" in message
    assert 'array.dataflow: expected one of ws, os, is, got "rs"' in message
    assert "array.mux: expected an integer from 1 to 1024, got 2.0" in message
    assert "array.reorder: expected true or false, got 1" in message
    assert 'write "34 GB/s"' in message
    assert "input_bufer: no such key; did you mean memory.input_buffer?" in message
    assert 'array.cols: expected an integer from 1 to 65536, got "many"' in message


MISTAKES = [
    ("", "array: missing; expected a table with rows and cols"),
    ("array = 3", "array: expected a table with rows and cols, got 3"),
    ("[array]\nrows = 1", "array.cols: missing"),
    ("[array]\nrows = 1\ncols = 70000", "from 1 to 65536, got 70000"),
    ("[array]\nrows = 1\ncols = true", "got true"),
    ("[array]\nrows = 1\ncols = 1\n[array.x.y]\nz = 1", "array.x: no such key"),
    ('[array]\nrows = 1\ncols = 1\ndataflow = "is"\nskip = "mux"', "accelerator.skip: expected one of none"),
    ('"array.rows" = 1', '"array.rows": no such key'),
    ("rows = 1", "rows: no such key; did you mean array.rows?"),
    ('name = "a b"', "name: expected a name of letters"),
    ("[array]\nrows = 1\ncols = 1\n[sources]\nx = 'y'", "sources.x: no such key"),
    ("[array]\nrows = 1\ncols = 1\n[sources]\narray = 4", "sources.array: expected text"),
    (
        "[array]\nrows = 1\ncols = 1\n[sources]\narray = {source = 'a', mark = 'b'}",
        "expected a mark of derived",
    ),
    ("sources = 4", "sources: expected text"),
    ("extends = 4", "extends: expected the name of a preset or a .toml file beside this one, got 4"),
    ("extends = 'gemini-16'", "extends: expected the name of a preset"),
    ("extends = '/etc/x.toml'", "extends: expected the name of a preset"),
    ("extends = 'nothing.toml'", "nothing.toml: expected a readable file"),
    ("rows = ", "npu.toml: expected TOML"),
    ("[array]\nrows = 1\nrows = 2", "npu.toml: expected TOML"),
    ("x = " + "9" * 5000, "npu.toml: expected TOML"),
    ("x = " + "[" * 20000, "npu.toml: expected"),
    ("x = " + "{a=" * 5000, "npu.toml: expected"),
    (".".join("a" * 3000) + " = 1", "nested tables"),
    ("".join(f"a{i} = 1\n" for i in range(6000)), "expected at most 200 values"),
    ("[sources]\n" + "".join(f"a{i} = 'x'\n" for i in range(5000)), "expected at most 200 values"),
    ("description = 'a\u009bb'", "description: expected one line of text"),
    ('extends = "gemmini-16"\nclock = "1 GHz\\n"', "clock: expected a frequency"),
    ('extends = "gemmini-16"\nclock = "\u0663 GHz"', "clock: expected a frequency"),
    ('extends = "gemmini-16"\nmemory = 5', "npu.toml:2: memory: expected a table, got 5"),
    ("# " + "x" * 70000, "expected at most 64 KiB"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_each_mistake_has_its_message(write, text, message):
    assert message in error_of(write("npu.toml", text))


def test_seconds_without_a_clock_are_told_for_every_value(write):
    text = FULL.replace('clock = "800 MHz"\n', "")
    message = error_of(write("npu.toml", text))
    for key in ("bandwidth", "latency", "dram.t_cl", "dram.t_rp", "dram.t_rfc", "dram.t_refi"):
        assert f"memory.{key}: expected a clock" in message
    assert "t_rcd: expected a clock" not in message  # given in cycles


def test_rowbuffer_needs_a_description_of_the_dram():
    assert "memory.dram: expected banks" in error_of("gemmini-16", ["memory.mode=rowbuffer"])


BAD_OVERRIDES = [
    "array.rows",
    "=4",
    "array rows=4",
    "array.rows=4\n[memory]",
    "a..b=1",
    "extends=tpu-v1",
    "sources.x=y",
]


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_an_override_is_one_key_and_one_value(override):
    assert error_of("gemmini-16", [override]).startswith("--set: ")


def test_extends_may_not_run_in_a_circle_nor_without_end(write):
    write("b.toml", 'extends = "a.toml"')
    assert "a.toml -> b.toml -> a.toml" in error_of(write("a.toml", 'extends = "b.toml"'))
    assert "self.toml -> self.toml" in error_of(write("self.toml", 'extends = "self.toml"'))
    for i in range(9):
        write(f"{i}.toml", f'extends = "{i + 1}.toml"')
    assert "at most 8 files" in error_of(write("0.toml", 'extends = "1.toml"'))


def test_a_circle_through_a_link_is_seen(tmp_path, write):
    path = write("real.toml", 'extends = "link.toml"')
    (tmp_path / "link.toml").symlink_to("real.toml")
    assert "expected no circle" in error_of(path)


def test_what_is_not_a_regular_text_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    assert "regular file" in error_of(str(tmp_path / "pipe.toml"))
    (tmp_path / "folder.toml").mkdir()
    assert "regular file" in error_of(str(tmp_path / "folder.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    assert "UTF-8" in error_of(str(tmp_path / "latin.toml"))
    assert "No such file" in error_of(str(tmp_path / "none.toml"))
    assert "expected a readable file" in error_of("nul\0.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_file_does_more_than_raise_a_config_error(tmp_path, data):
    path = tmp_path / "hostile.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load_hardware(str(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(key=st.sampled_from(sorted(key for key, _ in describe_keys())), value=VALUES)
def test_any_value_of_any_key_is_accepted_or_told_on_that_key(key, value):
    from pysim.config.schema import check_table

    tree = tomllib.loads(FULL)
    *tables, last = key.split(".")
    branch = tree
    for table in tables:
        branch = branch[table]
    branch[last] = value
    _, problems = check_table(tree)
    assert all(problem == key or problem.startswith(f"{key}.") or key == "clock" for problem, _ in problems)
    assert all(message.isprintable() for _, message in problems)


def test_a_file_without_a_name_is_called_like_the_file(write):
    text = "[array]\nrows = 1\ncols = 1\n"
    assert load_accelerator(write("my npu (2).toml", text)).name == "my-npu-2"
    assert load_accelerator(write("é.toml", text)).name == "custom"


def test_the_example_of_the_page_says_what_the_page_says(write):
    page = (Path(__file__).parent.parent.parent / "docs" / "hardware.md").read_text()
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1]
    hw = load_accelerator(write("my-npu.toml", example), ["memory.bandwidth=6.4GB/s"])
    base = load_accelerator("gemmini-16")
    memory = dataclasses.replace(base.memory, bandwidth=8.0)
    name = "my-npu with memory.bandwidth=6.4GB/s"
    assert hw == dataclasses.replace(base, name=name, rows=32, cols=32, clock_hz=800e6, memory=memory)


@pytest.mark.parametrize("name", preset_names())
def test_setting_a_value_to_what_it_is_changes_nothing_but_the_name(name):
    hardware = load_hardware(name)
    overrides = [f"{s.key}={s.value}" for s in hardware.settings]
    again = load_hardware(name, overrides).accelerator
    assert dataclasses.replace(again, name=name) == hardware.accelerator


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[array]\nrows = 0\ncols = 4\n", 2, "array.rows: expected an integer from 1 to 65536, got 0"),
        ('[array]\nrows = 4\ncols = 4\ndataflow = "is"\nskip = "mux"\n', 5, "accelerator.skip: expected"),
        (f'{MEMORY_TEXT}bandwidth = "0 B/cycle"\n', 8, 'expected a bandwidth above 0, or "unlimited"'),
        (f'{MEMORY_TEXT}bandwidth = "1 B/cycle"\nlatency = "-1 cycles"\n', 9, "memory.latency: expected"),
        (f'{MEMORY_TEXT}bandwidth = "1 B/cycle"\nmode = "rowbuffer"\n', 9, "memory.dram: expected banks and"),
        (f"{MEMORY_TEXT}{DRAM_TEXT.format(row='100 B', t_refi='900 cycles')}", 11, "expected a multiple of"),
        (f"{MEMORY_TEXT}{DRAM_TEXT.format(row='128 B', t_refi='30 cycles')}", 16, "expected above t_rp"),
    ],
)
def test_an_impossible_machine_is_refused_with_file_and_line(text, line, message, tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_hardware(str(path))
    assert message in str(caught.value)
    assert f"odd.toml:{line}: " in str(caught.value)


def test_all_values_that_exclude_each_other_are_told_at_once(tmp_path):
    """On lines 1 to 16: a skip mode without its dataflow, a latency that is too many cycles, a row that is no
    whole number of bursts, and a refresh that takes longer than the time between two."""
    path = tmp_path / "odd.toml"
    text = f"{MEMORY_TEXT}{DRAM_TEXT.format(row='100 B', t_refi='30 cycles')}"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_hardware(str(path), ["array.dataflow=is", "array.skip=mux", "memory.latency=2000000000 cycles"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "odd.toml: expected a hardware description, got 4 mistakes"
    told = {line.strip().split(": ")[1]: line for line in lines[1:]}
    assert told["memory.dram.row_bytes"].startswith("  odd.toml:11: ")
    assert told["memory.dram.t_refi"].startswith("  odd.toml:16: ")
    assert (
        told["memory.latency"]
        == "  --set: memory.latency: expected at most 1000000000 cycles, got 2000000000"
    )
    assert told["accelerator.skip"].endswith(", got mux. Choose dataflow ws or os to use mux.")


def test_a_missing_clock_does_not_hide_what_excludes_each_other(write):
    text = FULL.replace('clock = "800 MHz"\n', "").replace('dataflow = "os"', 'dataflow = "is"')
    message = error_of(write("npu.toml", text), ["array.dataflow=is"])
    assert "memory.bandwidth: expected a clock" in message
    assert "accelerator.skip: expected one of none, tile, gather with dataflow is" in message
    assert "t_rp + t_rfc" not in message


def test_a_machine_in_python_tells_all_that_is_wrong_with_it():
    with pytest.raises(ConfigError) as caught:
        Accelerator(rows=0, cols=4, cores=2000, dataflow="is", skip="mux")
    lines = str(caught.value).splitlines()
    assert lines[0] == "expected settings that go together, got 3 mistakes"
    fields = ["accelerator.rows", "accelerator.cores", "accelerator.skip"]
    assert [line.strip().split(":")[0] for line in lines[1:]] == fields
