"""The command line as a user meets it: help, errors, one whole run, and the cache."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest


def pysim(*args, cache=None, env=None, **options):
    whole = {**os.environ, **(env or {})}
    if cache is not None:
        whole["PYSIM_CACHE"] = str(cache)
    command = [sys.executable, "-c", "from pysim.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=whole, **options)


def test_help_shows_the_commands_and_an_example():
    done = pysim("--help")
    assert done.returncode == 0
    for word in ("run", "train", "info", "pysim run resnet20 --block 4"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["run", "train", "info", "bench", "bench kernels", "tune"])
def test_the_help_of_every_command_ends_with_an_example(command):
    done = pysim(*command.split(), "--help")
    assert done.returncode == 0
    assert f"Example: pysim {command}" in done.stdout


def test_help_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from pysim.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pysim._core') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


ERRORS = [
    (["run", "resnet21", "--block", "4"], "expected one of resnet20", None),
    (["run", "resnet20"], "Missing option '--block'", "pysim run --help"),
    (["run", "resnet20", "--block", "0"], "expected sizes of at least 1", "pysim run --help"),
    (["run", "resnet20", "--block", "3x"], "got '3x'", "pysim run --help"),
    (["run", "resnet20", "--block", "4,4"], "twice", "pysim run --help"),
    (["run", "resnet20", "--block", "4", "--sparsity", "1.2"], "1.2 is not in the range", "run --help"),
    (["run", "resnet20", "--block", "4", "--sparsity", "nan"], "sparsity", None),
    (["run", "resnet20", "--block", "4", "--dataflow", "is", "--skip", "mux"], "got mux", "ws or os"),
    (["run", "resnet20", "--block", "4", "--dataflow", "is", "--skip", "group"], "got group", "ws or os"),
    (["run", "resnet20", "--block", "4", "--hw", "gemini-16"], "gemini-16", "gemmini-16"),
    (["run", "resnet20", "--block", "4", "--data", "idx:/no/such/folder"], "expected a folder", None),
    (["run", "resnet20", "--block", "4", "--data", "mnist"], "got 'mnist'", "embedded"),
    (["run", "resnet20", "--block", "4", "--checkpoint", "/no/such/file"], "does not exist", "run --help"),
    (["run", "resnet20", "--block", "4", "--frobnicate"], "No such option", "run --help"),
    (["bench", "kernels", "--size", "768"], "expected rows x columns", "bench kernels --help"),
    (["bench", "kernels", "--size", "100000x100000"], "at most 268435456 elements", None),
    (["walk"], "No such command 'walk'", "pysim --help"),
]


@pytest.mark.parametrize(("args", "message", "hint"), ERRORS, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_error_line_and_perhaps_a_hint(args, message, hint, tmp_path):
    done = pysim(*args, cache=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert [line.startswith("hint: ") for line in lines[1:]] == [True] * (len(lines) - 1)
    if hint is not None:
        assert hint in lines[1]


def test_a_broken_checkpoint_is_an_error_and_debug_shows_where(tmp_path):
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"not a checkpoint")
    args = ["run", "lenet5", "--block", "4", "--data", "synthetic", "--checkpoint", str(broken)]
    done = pysim(*args, cache=tmp_path / "cache")
    assert done.returncode == 2
    assert "not a readable safetensors checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in pysim(*args, "--debug", cache=tmp_path / "cache").stderr


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A whole run on synthetic data, and the same once more from its cache."""
    cache = tmp_path_factory.mktemp("cache")
    args = ["run", "lenet5", "--block", "4,1x8", "--data", "synthetic", "--dense-epochs", "1", "--json"]
    first = pysim(*args, cache=cache)
    assert first.returncode == 0, first.stderr
    files = sorted(p.name for p in cache.rglob("*.safetensors"))
    second = pysim(*args, cache=cache)
    assert second.returncode == 0, second.stderr
    assert sorted(p.name for p in cache.rglob("*.safetensors")) == files
    return args, cache, json.loads(first.stdout), json.loads(second.stdout)


def test_a_run_reports_every_layer_and_its_checks_pass(walk):
    _, _, data, _ = walk
    assert [run["block"] for run in data["runs"]] == [[4, 4], [1, 8]]
    for run in data["runs"]:
        assert [x["name"] for x in run["layers"]] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
        assert [x["pruned"] for x in run["layers"]] == [False, True, True, True, False]
        assert [check["passed"] for check in run["checks"]] == [True] * 3
        assert set(run["totals"]["by_skip"]) == {"tile", "gather", "group", "mux2"}
        assert run["totals"]["by_skip"]["gather"] == run["totals"]["speedup"]
        for x in run["layers"]:
            assert 0 < x["utilization"] <= 1
            assert x["cycles"] <= x["cycles_dense"]
            assert x["kernel"]["sparse_us"] > 0
    # Ragged blocks: 4x4 on 16 x (25 positions of 6 channels) is 4 x 50 blocks, a tenth of them kept.
    assert data["runs"][0]["layers"][1]["blocks_total"] == 200
    assert data["runs"][0]["layers"][1]["blocks_kept"] == 20


def test_the_second_run_takes_its_training_from_the_cache(walk):
    _, _, first, second = walk
    for one, two in zip(first["runs"], second["runs"], strict=True):
        assert one["accuracy"] == two["accuracy"]
        assert [x["cycles"] for x in one["layers"]] == [x["cycles"] for x in two["layers"]]


def test_another_seed_trains_anew(walk, run_here):
    args, cache, _, _ = walk
    before = len(list(cache.rglob("*.safetensors")))
    run_here(*args, "--block", "4", "--seed", "1", "--no-measure", cache=cache)
    assert len(list(cache.rglob("*.safetensors"))) == before + 2  # dense and pruned


def test_a_damaged_cache_file_is_computed_again(walk, run_here):
    args, cache, first, _ = walk
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = run_here(*args, "--no-measure", cache=cache)
    assert [run["accuracy"] for run in again["runs"]] == [run["accuracy"] for run in first["runs"]]
    assert again["runs"][0]["totals"]["kernel_speedup"] is None


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_every_dataflow_runs_through_the_command_line(walk, run_here, dataflow):
    args, cache, _, _ = walk
    data = run_here(*args, "--dataflow", dataflow, "--hw", "8x12", "--no-measure", cache=cache)
    assert (data["hardware"]["rows"], data["hardware"]["cols"]) == (8, 12)
    assert data["hardware"]["dataflow"] == dataflow
    expected = {"tile", "gather"} if dataflow == "is" else {"tile", "gather", "group", "mux2"}
    assert set(data["runs"][0]["totals"]["by_skip"]) == expected


def test_cores_reorder_mapper_and_dram_rows_run_through_the_command_line(walk, run_here):
    args, cache, _, _ = walk
    changes = ["array.cores=4", "array.reorder=true", "array.mapper=true", "memory.mode=rowbuffer"]
    rows = {"banks": 8, "row": "8KiB", "t_cl": "14ns", "t_rcd": "14ns", "t_rp": "14ns"}
    rows |= {"t_rfc": "160ns", "t_refi": "7.8us"}
    changes += [f"memory.dram.{key}={value}" for key, value in rows.items()]
    options = [word for change in changes for word in ("--set", change)]
    data = run_here(*args, *options, "--no-measure", cache=cache)
    hardware = data["hardware"]
    assert (hardware["cores"], hardware["reorder"], hardware["mapper"]) == (4, True, True)
    assert hardware["memory"]["mode"] == "rowbuffer"
    for run in data["runs"]:
        assert [check["passed"] for check in run["checks"]] == [True] * len(run["checks"])
        assert max(len(x["counts"]["core_cycles"]) for x in run["layers"]) > 1
        assert all(max(x["counts"]["core_cycles"]) == x["cycles"] for x in run["layers"])
        assert all(x["counts"]["memory"]["dram_bursts"] > 0 for x in run["layers"])


def test_progress_is_silent_unless_stderr_is_a_terminal(tmp_path):
    args = ["run", "lenet5", "--block", "4", "--data", "synthetic", "--dense-epochs", "1", "--epochs", "0"]
    args += ["--no-measure", "--json"]
    assert pysim(*args, "--seed", "2", cache=tmp_path).stderr == ""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", "from pysim.cli import main; main()", *args, "--seed", "3"]
    env = {**os.environ, "PYSIM_CACHE": str(tmp_path)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, env=env, timeout=300, check=True)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "training, epoch 1 of 1" in shown
    assert json.loads(done.stdout)["seed"] == 3


def test_training_writes_a_checkpoint_that_a_run_starts_from(tmp_path):
    out = tmp_path / "lenet5.safetensors"
    done = pysim("train", "lenet5", "--data", "synthetic", "--epochs", "1", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    note = json.loads(done.stdout)
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name]
    args = ["run", "lenet5", "--block", "2", "--data", "synthetic", "--checkpoint", str(out), "--epochs", "0"]
    done = pysim(*args, "--no-measure", "--json", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    accuracy = json.loads(done.stdout)["runs"][0]["accuracy"]
    assert accuracy["dense"] == note["accuracy_percent"]
    assert accuracy["before_finetune"] == accuracy["pruned"]


def test_info_says_which_instruction_sets_are_off_and_why():
    done = pysim("info", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {"scalar", "avx2", "avx512"} >= {isa["name"] for isa in facts["isas"]} >= {"scalar"}
    for isa in facts["isas"]:
        assert isa["available"] or isa["reason"]
    assert facts["cuda"]
    plain = pysim("info")
    assert plain.returncode == 0
    assert "scalar" in plain.stdout


def test_kernels_are_measured_against_dense_and_peers():
    args = ["bench", "kernels", "--block", "4,1x3", "--size", "48x64", "--n", "1,20", "--peers"]
    done = pysim(*args, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert [(row["block"], row["n"]) for row in data["rows"]] == [
        ([4, 4], 1),
        ([4, 4], 20),
        ([1, 3], 1),
        ([1, 3], 20),
    ]
    for row in data["rows"]:
        assert row["sparse_us"] > 0
        assert row["max_error"] <= 1
        assert row["peers"]["torch CSR"] > 0
    # Blocks that do not divide the matrix are what other libraries refuse.
    assert data["rows"][2]["peers"]["torch BSR"] is None
    assert data["rows"][2]["peers"]["scipy BSR"] is None
    table = pysim(*args)
    assert "vs torch BSR" in table.stdout
    assert "of peak" in table.stdout
    assert table.stdout.count("\n") == 1 + 2 + 4 + 1 + 2


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_kernels_of_fewer_bits_are_measured_beside_float32(dtype):
    done = pysim("bench", "kernels", "--size", "48x64", "--n", "20", "--dtype", dtype, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["dtype"] == dtype
    (row,) = data["rows"]
    assert row["peers"]["pysim float32"] > 0
    assert row["max_error"] <= 1


def test_kernels_are_drawn(tmp_path):
    out = tmp_path / "speedup.svg"
    args = ["bench", "kernels", "--block", "4,1x3", "--size", "48x64", "--n", "1", "--n", "20"]
    done = pysim(*args, "--plot", str(out))
    assert done.returncode == 0, done.stderr
    assert "<svg" in out.read_text()
    refused = pysim(*args, "--plot", str(tmp_path / "speedup.txt"))
    assert refused.returncode == 2
    assert "expected a name that ends in .png or .svg" in refused.stderr
