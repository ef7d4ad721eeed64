"""Other simulators' files become hardware files that say the same; hostile files only raise a ConfigError."""

from __future__ import annotations

import copy
import json
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pysim.config import Memory, import_hardware, load_hardware
from pysim.errors import ConfigError

SCALESIM = """\
[general]
run_name = eyeriss

[architecture_presets]
ArrayHeight:    12
ArrayWidth:     14
IfmapSramSzkB:    36
FilterSramSzkB:   37
OfmapSramSzkB:    38
IfmapOffset:    0
Dataflow : ws
Bandwidth : 10
MemoryBanks: 1

[sparsity]
SparsitySupport : false

[run_presets]
InterfaceBandwidth: USER
"""

ONNXIM = {
    "num_cores": 4,
    "core_freq": 1000,
    "core_type": "systolic_ws",
    "core_width": 8,
    "core_height": 16,
    "spad_size": 64,
    "accum_spad_size": 16,
    "dram_type": "ramulator2",
    "dram_freq": 400,
    "dram_channels": 2,
    "dram_req_size": 32,
    "precision": 2,
    "layout": "NHWC",
}


@pytest.fixture
def imported(tmp_path):
    def run(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        text = import_hardware(path)
        out = tmp_path / "out.toml"
        out.write_text(text)
        return load_hardware(str(out)), text

    return run


def test_a_scalesim_file_means_the_same_here(imported):
    hardware, text = imported("eyeriss.cfg", SCALESIM)
    hw = hardware.accelerator
    assert (hw.name, hw.rows, hw.cols, hw.dataflow, hw.pipelining) == ("eyeriss", 12, 14, "ws", "serial")
    assert hw.memory == Memory(
        input_bytes=36 * 1024, weight_bytes=37 * 1024, output_bytes=38 * 1024, bandwidth=10.0
    )
    assert "# Not taken over: [sparsity] sparsitysupport" in text
    assert all(setting.source for setting in hardware.settings)


def test_scalesim_computes_its_bandwidth_unless_told_to_use_the_given_one(imported):
    hardware, _ = imported("a.cfg", SCALESIM.replace("USER", "CALC"))
    assert hardware.accelerator.memory.bandwidth is None


def test_the_first_version_of_scalesim_spells_its_sizes_otherwise(imported):
    old = SCALESIM.replace("SzkB", "Sz").replace("eyeriss", '"eyeriss"')
    hardware, _ = imported("a.cfg", old)
    assert hardware.accelerator.name == "eyeriss"
    assert hardware.accelerator.memory.weight_bytes == 37 * 1024


def test_an_onnxim_file_means_the_same_here(imported):
    hw = imported("chip.json", json.dumps(ONNXIM))[0].accelerator
    assert (hw.name, hw.cores, hw.rows, hw.cols, hw.dataflow, hw.clock_hz) == ("chip", 4, 16, 8, "ws", 1e9)
    assert hw.memory == Memory(
        input_bytes=32 * 1024,
        weight_bytes=32 * 1024,
        output_bytes=16 * 1024,
        bandwidth=25.6,  # 400 MHz x 2 channels x 32 B at 1 GHz
        input_bits=16,
        weight_bits=16,
        output_bits=16,
    )


def test_onnxim_names_its_cores_one_by_one_or_not_at_all(imported):
    core = {
        key: ONNXIM[key] for key in ONNXIM if key.startswith(("core_t", "core_w", "core_h", "spad", "accum"))
    }
    nested = {key: value for key, value in ONNXIM.items() if key not in core}
    nested["core_config"] = {f"core_{i}": core for i in range(4)}
    flat = imported("chip.json", json.dumps(ONNXIM))[0].accelerator
    assert imported("chip.json", json.dumps(nested))[0].accelerator == flat
    nested["core_config"]["core_3"] = core | {"core_width": 4}
    with pytest.raises(ConfigError, match="expected cores alike, got different core_width"):
        imported("chip.json", json.dumps(nested))


def test_a_burst_of_several_clocks_divides_the_bandwidth(imported):
    hw = imported("chip.json", json.dumps(ONNXIM | {"dram_nbl": 2}))[0].accelerator
    assert hw.memory.bandwidth == 12.8


CFG_MISTAKES = [
    ("no section", "expected a SCALE-Sim configuration"),
    ("[general]\n", "expected a section [architecture_presets]"),
    (SCALESIM.replace("ArrayHeight:    12\n", ""), "ArrayHeight: expected a value, got none"),
    (SCALESIM.replace("12", "-12"), 'ArrayHeight: expected a whole number, got "-12"'),
    (SCALESIM.replace("12", "1e3"), "ArrayHeight: expected a whole number"),
    (SCALESIM.replace("12", "0"), "array.rows: expected an integer from 1 to 65536, got 0"),
    (SCALESIM.replace(": ws", ": rs"), "array.dataflow: expected one of ws, os, is"),
    (SCALESIM.replace("36", "%(ArrayWidth)s"), "IfmapSramSzkB: expected a whole number"),
    (SCALESIM + SCALESIM, "expected a SCALE-Sim configuration"),
    ("#" * 70000, "at most 64 KiB"),
]


@pytest.mark.parametrize(("text", "message"), CFG_MISTAKES, ids=[m for _, m in CFG_MISTAKES])
def test_a_broken_scalesim_file_is_told(imported, text, message):
    with pytest.raises(ConfigError) as raised:
        imported("a.cfg", text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


JSON_MISTAKES = [
    ("{", "expected JSON"),
    ("[]", "expected an object, got a list"),
    ('{"precision": NaN}', "NaN is not a number of JSON"),
    ("[" * 60000, "chip.json: expected"),
    ('{"num_cores": ' + "9" * 5000 + "}", "expected JSON"),
    (json.dumps(ONNXIM | {"core_type": "stonne"}), "core_type: expected systolic_ws or systolic_os"),
    (json.dumps(ONNXIM | {"core_width": 0}), "core_width: expected a whole number above 0, got 0"),
    (json.dumps(ONNXIM | {"core_width": 2.5}), "core_width: expected a whole number above 0, got 2.5"),
    (json.dumps(ONNXIM | {"core_width": True}), "core_width: expected a whole number above 0, got true"),
    (json.dumps(ONNXIM | {"core_width": 10**6}), "array.cols: expected an integer from 1 to 65536"),
    (json.dumps(ONNXIM | {"precision": 100}), "memory.input_bits: expected an integer from 1 to 64"),
    (json.dumps(ONNXIM | {"core_config": {}}), "core_config: expected one object per core"),
    (json.dumps(ONNXIM | {"core_config": {"a": 1}}), "core_config: expected one object per core"),
]


@pytest.mark.parametrize(("text", "message"), JSON_MISTAKES, ids=[m for _, m in JSON_MISTAKES])
def test_a_broken_onnxim_file_is_told(imported, text, message):
    with pytest.raises(ConfigError) as raised:
        imported("chip.json", text)
    assert message in str(raised.value)


@pytest.mark.parametrize("key", sorted(set(ONNXIM) - {"dram_type", "layout"}))
def test_every_number_that_is_needed_is_asked_for(imported, key):
    without = {k: v for k, v in ONNXIM.items() if k != key}
    with pytest.raises(ConfigError, match=key):
        imported("chip.json", json.dumps(without))


def test_a_file_full_of_other_keys_becomes_a_file_that_can_be_read(imported):
    many = {f"key_{'x' * 40}_{i}": 1 for i in range(1000)}
    _, text = imported("chip.json", json.dumps(ONNXIM | many))
    assert "# Not taken over: 902 more" in text  # with dram_type and layout


def test_other_files_are_refused_by_their_name(imported):
    with pytest.raises(ConfigError, match=r"expected a SCALE-Sim .cfg or an ONNXim .json"):
        imported("chip.yaml", "")


NASTY = st.text(max_size=40) | st.integers() | st.floats() | st.booleans() | st.none()
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@QUIET
@given(name=st.text(max_size=60).filter(lambda s: not s.startswith("[")))
def test_no_run_name_can_write_more_than_a_name(imported, name):
    line = " ".join(name.split())
    try:
        _, text = imported("a.cfg", SCALESIM.replace("eyeriss", line))
    except ConfigError:
        return
    tree = tomllib.loads(text)
    assert set(tree) == {"name", "array", "memory", "sources"}


@QUIET
@given(
    key=st.sampled_from(sorted(ONNXIM)),
    value=NASTY,
    extra=st.dictionaries(st.text(max_size=30), NASTY, max_size=3),
)
def test_a_hostile_onnxim_file_is_hardware_or_a_config_error(imported, key, value, extra):
    data = copy.deepcopy(ONNXIM) | extra | {key: value}
    try:
        _, text = imported("chip.json", json.dumps(data))
    except ConfigError:
        return
    assert set(tomllib.loads(text)) == {"name", "clock", "array", "memory", "sources"}


@QUIET
@given(content=st.binary(max_size=300))
@pytest.mark.parametrize("name", ["a.cfg", "chip.json"])
def test_bytes_that_are_no_description_are_a_config_error(imported, name, content):
    with pytest.raises(ConfigError):
        imported(name, content)
