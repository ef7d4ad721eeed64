"""``pysim prune`` and user models as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pysim.cli import main
from pysim.cli.commands import cli
from pysim.pruning import SCOPES, SCORES
from pysim.runner import METHODS

MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 10),
    )
"""


@pytest.fixture
def pysim(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mymodel.py").write_text(MODEL)
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    yield call
    torch.set_num_threads(before)
    sys.modules.pop("mymodel", None)


TINY = ("mymodel:build", "--input", "1x3x8x8", "--dense-epochs", "1", "--block", "2")


def test_a_table_with_mean_spread_and_number_over_seeds(pysim):
    status, out, err = pysim("prune", *TINY, "--sparsity", "0.5", "--seed", "0,1,2")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "method one-shot, 50 % of the prunable blocks, score l1, scope layer" in lines[0]
    assert lines[2].split()[-5:] == ["sd", "n", "sparsity", "prunable", "model"]
    assert lines[3].split()[0] == "2x2"
    assert lines[3].split()[-5] == "3"
    status, out, _ = pysim("prune", *TINY, "--sparsity", "0.5", "--seed", "0,1,2", "--json")
    (block,) = json.loads(out)["blocks"]
    assert block["accuracy"]["n"] == 3
    assert [trial["seed"] for trial in block["trials"]] == [0, 1, 2]


def test_a_written_file_runs_by_itself(pysim, tmp_path):
    out_file = tmp_path / "out" / "pruned.safetensors"
    method = ("--method", "imp", "--rewind-step", "2", "--sparsity", "0.7", "--out", out_file)
    status, _, err = pysim("prune", *TINY, *method, "--seed", "1,2")
    assert status == 0, err
    names = sorted(path.name for path in out_file.parent.iterdir())
    assert names == ["pruned-seed1.safetensors", "pruned-seed2.safetensors"]
    run = ("run", "mymodel:build", "--input", "2x3x8x8", "--no-measure", "--json", "--checkpoint")
    status, out, err = pysim(*run, out_file.with_name(names[0]))
    assert status == 0, err
    result = json.loads(out)
    assert (result["runs"][0]["block"], result["batch"], result["sparsity"]) == ([2, 2], 2, 0.7)
    status, _, err = pysim(*run, out_file.with_name(names[0]), "--block", "4")
    assert status == 2
    assert "that of" in err


def test_an_empty_layer_is_a_warning_line(pysim):
    status, out, _ = pysim(
        "prune", *TINY, "--sparsity", "0.97", "--scope", "global", "--prune-all", "--block", "8"
    )
    assert status == 0
    assert "warning: block 8x8, seed 0: " in out
    assert "has no block left" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["prune", *TINY, "--score", "l3"], "score: expected one of l1"),
        (["prune", *TINY, "--scope", "all"], "scope: expected one of layer"),
        (["prune", *TINY, "--method", "magic"], "method: expected one of one-shot"),
        (["prune", *TINY, "--seed", "0,0"], "0 is there twice"),
        (["prune", *TINY, "--seed", "-1"], "expected numbers"),
        (["prune", *TINY, "--method", "imp", "--rewind-step", "500"], "rewind-step: expected below the"),
        (
            ["prune", *TINY, "--method", "lr-rewind", "--rewind-step", "500"],
            "rewind-step: expected below the",
        ),
        (["prune", *TINY, "--dense-lr", "0"], "expected above 0 and finite, got 0.0"),
        (["prune", *TINY, "--only", "nothing"], "--only nothing: expected the name of a layer"),
        (["prune", *TINY, "--data", "synthetic"], "expected 1x28x28 images"),
        (["prune", "mymodel:nothing", "--block", "2", "--input", "1x3x8x8"], "nothing"),
        (["prune", "nomodule:build", "--block", "2", "--input", "1x3x8x8"], "No module named 'nomodule'"),
        (["prune", "mymodel:build", "--block", "2", "--input", "3x8x8"], "expected NxCxHxW"),
        (["run", "mymodel:build", "--block", "2", "--data", "synthetic"], "on images of 1x28x28"),
        (["run", "lenet5"], "Missing option '--block'"),
    ],
)
def test_a_mistake_is_one_error_line(pysim, args, message):
    status, out, err = pysim(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err.splitlines()[0]


def test_the_help_names_every_method_score_and_scope():
    help_text = " ".join(
        cli.commands["prune"].get_help(cli.make_context("x", ["prune", "-h"], resilient_parsing=True)).split()
    )
    for name in (*METHODS, *SCORES, *SCOPES):
        assert name in help_text


def test_kill_9_while_pruning_and_again_gives_the_same_result(pysim, tmp_path):
    args = ["prune", "lenet5", "--data", "synthetic", "--block", "2", "--method", "imp", "--sparsity", "0.5"]
    args += ["--level-rate", "0.3", "--dense-epochs", "2", "--json"]
    status, whole, err = pysim(*args)
    assert status == 0, err
    cache = tmp_path / "killed"
    code = "import torch; torch.set_num_threads(1); from pysim.cli import main; main()"
    for stages in (1, 2):  # after dense training, then after the first level
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            env={**os.environ, "PYSIM_CACHE": str(cache)},
            stdout=subprocess.DEVNULL,
        )
        while len(list(cache.rglob("*.safetensors"))) < stages and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "finished before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    os.environ["PYSIM_CACHE"] = str(cache)
    assert pysim(*args)[1] == whole


def test_a_users_own_model_is_trained_pruned_and_run_at_the_input_that_is_named(pysim, tmp_path):
    weights, pruned = tmp_path / "dense.safetensors", tmp_path / "pruned.safetensors"
    model = ("mymodel:build", "--input", "1x3x8x8")
    for command in (
        ("train", *model, "--epochs", "1", "--out", weights),
        ("prune", *model, "--block", "2", "--checkpoint", weights, "--out", pruned),
        ("run", *model, "--checkpoint", pruned, "--no-measure"),
    ):
        status, _, err = pysim(*command)
        assert (status, err) == (0, "")


def test_training_on_padded_images_is_training_of_another_shape(pysim, tmp_path):
    out = tmp_path / "lenet300.safetensors"
    train = ("train", "lenet300", "--data", "synthetic:1x28x28", "--epochs", "1", "--out", out)
    assert pysim(*train, "--pad32")[0] == 0
    prune = ("prune", "lenet300", "--data", "synthetic:1x28x28", "--block", "4", "--checkpoint", out)
    status, _, err = pysim(*prune)
    assert status == 2
    assert "expected torch.float32 (300, 784), got torch.float32 (300, 1024)" in err
    assert pysim(*prune, "--pad32", "--epochs", "0")[0] == 0
