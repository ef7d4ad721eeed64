"""``pysim hw`` and ``pysim run --hw`` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest


def pysim(*args, **options):
    command = [sys.executable, "-c", "from pysim.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("command", ["list", "show", "check", "import"])
def test_the_help_of_every_command_ends_with_an_example(command):
    done = pysim("hw", command, "--help")
    assert done.returncode == 0
    assert f"Example: pysim hw {command}" in done.stdout


@pytest.mark.parametrize("args", [["--help"], ["hw", "--help"], ["run", "--help"]])
def test_help_waits_for_nothing_heavy(args):
    code = (
        "import sys; from pysim.cli import main\n"
        f"try: main({args!r})\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'pysim.config') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("args", [["list"], ["show", "tpu-v1"]])
def test_hardware_is_shown_without_torch(args):
    code = (
        "import sys; from pysim.cli import main\n"
        f"try: main({['hw', *args]!r})\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_list_has_a_row_for_every_preset_and_its_json_the_same():
    rows = pysim("hw", "list").stdout.splitlines()[2:]
    data = json.loads(pysim("hw", "list", "--json").stdout)
    names = [preset["name"] for preset in data["presets"]]
    assert [row.split()[0] for row in rows] == names
    assert {"edge-8", "eyeriss", "gemmini-16", "tpu-v1", "tpu-v4", "tpu-v4i"} < set(names)
    assert all(setting["source"] for preset in data["presets"] for setting in preset["settings"])


def test_show_gives_the_source_and_the_mark_of_every_value():
    shown = pysim("hw", "show", "gemmini-16").stdout
    row = next(line for line in shown.splitlines() if line.startswith("clock"))
    assert row.split()[:4] == ["clock", "1", "GHz", "assumed"]
    assert "defaultConfig: dma_buswidth 128 bits" in shown
    data = json.loads(pysim("hw", "show", "gemmini-16", "--json").stdout)
    clock = next(s for s in data["settings"] if s["key"] == "clock")
    assert clock["mark"] == "assumed"
    assert data["accelerator"]["memory"]["bandwidth"] == 16


def test_show_says_what_was_changed_and_what_energy_lacks():
    shown = pysim("hw", "show", "tpu-v4", "--set", "array.rows=64").stdout
    assert shown.startswith("tpu-v4 with array.rows=64: 8 x 64 x 128 PEs")
    row = next(line for line in shown.splitlines() if line.startswith("array.rows"))
    assert "(--set)" in row
    assert "no energy: MACs of bf16" in shown


def test_check_accepts_a_good_file(tmp_path):
    path = tmp_path / "npu.toml"
    path.write_text('extends = "gemmini-16"\n[array]\nrows = 32\n')
    done = pysim("hw", "check", str(path))
    assert done.returncode == 0
    assert done.stdout == "ok: npu: 32 x 16 PEs, dataflow ws, 1000 MHz, 16 B/cycle off chip\n"


def test_check_tells_all_mistakes_without_a_traceback(tmp_path):
    path = tmp_path / "npu.toml"
    path.write_text("[array]\nrows = 0\ncols = 'x'\nrow = 1\n")
    done = pysim("hw", "check", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "error: npu.toml: expected a hardware description, got 3 mistakes"
    assert [line.split()[0] for line in lines[1:]] == [f"npu.toml:{n}:" for n in (2, 3, 4)]
    assert "did you mean array.rows?" in lines[3]


def test_check_knows_the_energy_tables(tmp_path):
    path = tmp_path / "npu.toml"
    path.write_text('technology = "45 nm"\n[array]\nrows = 1\ncols = 1\n')
    assert "technology: expected a name of letters" in pysim("hw", "check", str(path)).stderr
    path.write_text('technology = "46nm"\n[array]\nrows = 1\ncols = 1\n')
    assert "hint: Did you mean 45nm?" in pysim("hw", "check", str(path)).stderr


CFG = """\
[general]
run_name = small
[architecture_presets]
ArrayHeight: 4
ArrayWidth: 6
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
Dataflow: os
Bandwidth: 10
[run_presets]
InterfaceBandwidth: USER
"""


def test_an_imported_file_is_printed_or_written_once(tmp_path):
    source, out = tmp_path / "scale.cfg", tmp_path / "npu.toml"
    source.write_text(CFG)
    printed = pysim("hw", "import", str(source))
    assert tomllib.loads(printed.stdout)["array"]["cols"] == 6
    written = pysim("hw", "import", str(source), "--out", str(out))
    assert written.returncode == 0
    assert out.read_text() == printed.stdout
    assert pysim("hw", "check", str(out)).stdout.startswith("ok: small: 4 x 6 PEs, dataflow os")
    again = pysim("hw", "import", str(source), "--out", str(out))
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["npu.toml", "scale.cfg"]


ERRORS = [
    (["hw", "show", "tpu-v2"], "got 'tpu-v2'", "Did you mean tpu-v"),
    (["hw", "show", "none.toml"], "none.toml: expected a readable file", None),
    (["hw", "show", "0x4"], "array.rows: expected an integer from 1 to 65536, got 0", None),
    (["hw", "show", "tpu-v1", "--set", "array.rows"], "expected key=value", None),
    (["hw", "show", "tpu-v1", "--set", "memory.bandwidth=34"], 'write "34 GB/s"', None),
    (["hw", "check", "tpu-v1"], "expected a .toml file", "pysim hw import"),
    (["hw", "import", "a.yaml"], "expected a SCALE-Sim .cfg or an ONNXim .json", None),
    (["hw", "import", "a.cfg", "--out", "b.json"], "ends in .toml", None),
    (["run", "lenet5", "--block", "4", "--hw", "none.toml"], "none.toml: expected a readable file", None),
    (["run", "lenet5", "--block", "4", "--set", "array.row=3"], "did you mean array.rows?", None),
    (["hw", "walk"], "No such command 'walk'", "pysim hw --help"),
]


@pytest.mark.parametrize(("args", "message", "hint"), ERRORS, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_error_line_and_perhaps_a_hint(args, message, hint, tmp_path):
    done = pysim(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert [line.startswith("hint: ") for line in lines[1:]] == [True] * (len(lines) - 1)
    if hint is not None:
        assert hint in lines[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(trained, run_here, tmp_path, monkeypatch):
    """``pysim run`` on synthetic data, in a folder of its own; all share their training."""
    monkeypatch.chdir(tmp_path)
    base = ["run", "lenet5", "--block", "4", "--data", "synthetic", "--dense-epochs", "1"]
    return lambda *args: run_here(*base, "--no-measure", "--json", *args, cache=trained)


def totals(result):
    of_array = dict(result["runs"][0]["totals"])
    del of_array["network"]
    return of_array


def test_a_run_on_a_file_is_a_run_on_the_array_that_it_describes(run, tmp_path):
    (tmp_path / "npu.toml").write_text('extends = "gemmini-16"\n[array]\nrows = 8\ncols = 12\n')
    by_file = run("--hw", "npu.toml", "--set", "memory.mode=ideal")  # no stalls: the array alone
    by_size = run("--hw", "8x12")
    assert by_file["hardware"]["name"] == "npu with memory.mode=ideal"
    assert by_file["hardware"]["memory"]["bandwidth"] == 16
    assert by_size["hardware"]["memory"] is None
    assert totals(by_file) == totals(by_size)
    assert by_size["runs"][0]["totals"]["network"] is None  # it has no vector unit
    by_set = run("--set", "array.rows=8", "--set", "array.cols=12", "--set", "memory.mode=ideal")
    assert by_set["hardware"]["name"] == "gemmini-16 with array.rows=8, array.cols=12, memory.mode=ideal"
    assert totals(by_set) == totals(by_size)


def test_the_skip_mode_is_the_options_then_the_files_then_gather(run, tmp_path):
    (tmp_path / "tile.toml").write_text('extends = "edge-8"\n[array]\nskip = "tile"\n')
    assert run("--hw", "tile.toml")["hardware"]["skip"] == "tile"
    assert run("--hw", "tile.toml", "--skip", "mux")["hardware"]["skip"] == "mux"
    assert run("--hw", "edge-8")["hardware"]["skip"] == "gather"
    assert run("--hw", "edge-8", "--set", "array.skip=none")["hardware"]["skip"] == "none"
