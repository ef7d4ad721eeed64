"""Seeds side by side from the command to the result: masks, a cache of their own, interruptions unseen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pysim.cli import main
from pysim.errors import ConfigError
from pysim.pruning import PruneConfig
from pysim.runner import METHODS, PruneRunConfig, prune
from pysim.runner.networks import Source, fresh_model
from pysim.runner.study import load_study, run_study
from pysim.training import GROWING, load_pruned

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DATA = "synthetic:1x8x8"
MASKS = PruneConfig(block=(2, 2), sparsity=0.6)


def config(model, **changes):
    settings = {
        "model": model,
        "blocks": ((2, 2), (1, 1)),
        "prune": MASKS,
        "data": DATA,
        "seeds": (0, 1, 2),
        "dense_epochs": 2,
        "rewind_step": 3,
        "level_rate": 0.4,
        "seeds_together": True,
    }
    return PruneRunConfig(**{**settings, **changes})


@pytest.mark.parametrize("method", [name for name, way in METHODS.items() if way.growing is None])
def test_every_method_whose_masks_stay_gives_the_trials_of_one_seed_after_the_other(tiny, method):
    together = prune(config(tiny, method=method))
    alone = prune(config(tiny, method=method, seeds_together=False))
    assert [(t.block, t.seed) for t in together.trials] == [(t.block, t.seed) for t in alone.trials]
    for a, b in zip(together.trials, alone.trials, strict=True):
        assert (a.blocks_kept, len(a.levels)) == (b.blocks_kept, len(b.levels))
    work = []
    assert prune(config(tiny, method=method), lambda what, done, total: work.append(what)) == together
    assert work == []


def test_without_training_the_seeds_are_those_of_one_after_the_other_to_the_bit(tiny, tmp_path):
    """Pruning at initialisation by magnitude: masks depend on each seed's own fresh weights."""
    found = {}
    for together in (True, False):
        out = tmp_path / f"{together}.safetensors"
        asked = config(tiny, method="one-shot", epochs=0, dense_epochs=1, seeds_together=together)
        prune(replace(asked, blocks=((2, 2),), method="at-init", out=out))
        found[together] = []
        for seed in (0, 1, 2):
            model = fresh_model(tiny, Source(DATA, None).dataset, 9)
            file = load_pruned(tmp_path / f"{together}-seed{seed}.safetensors", tiny, model)
            assert file.facts["seed"] == seed
            assert file.facts["settings"]["seeds_together"] is together
            found[together].append({name: mask.keep.tobytes() for name, mask in file.masks.items()})
    assert found[True] == found[False]
    assert len({json.dumps(sorted((n, k.hex()) for n, k in own.items())) for own in found[True]}) == 3


def cached(folder):
    return {path.name for path in folder.rglob("*.safetensors")}


def test_the_cache_keeps_together_and_alone_apart_and_knows_which_seeds_were_together(tiny, tmp_path):
    cache = tmp_path / "cache"
    sizes = []
    for changes in ({}, {"seeds_together": False}, {"seeds": (0, 1)}, {"seeds": (1, 0, 2)}):
        prune(config(tiny, blocks=((2, 2),), **changes))
        sizes.append(len(cached(cache)))
    # Three dense and three pruned networks, as many alone, two of each, and three in another order.
    assert sizes == [6, 12, 16, 22]
    prune(config(tiny, blocks=((2, 2),), seeds=(2,)))  # a single seed is alone whatever the option says
    assert len(cached(cache)) == sizes[-1]


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 14, 21, 26, 33, 45])
def test_interrupted_anywhere_it_goes_on_to_the_same_result(tiny, monkeypatch, tmp_path, stop):
    asked = config(tiny, method="imp", blocks=((2, 2),))
    whole = prune(asked)
    first = {path.name: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")}
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "other"))
    calls = []

    def interrupt(what, done, total):
        calls.append(what)
        if len(calls) == stop:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        prune(asked, interrupt)
    assert prune(asked) == whole
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "other").rglob("*.safetensors")}
    assert all(path.suffix == ".safetensors" for path in (tmp_path / "other" / "training").iterdir())


def test_a_cache_that_lost_one_of_the_seeds_trains_them_all_to_the_same_bits(tiny, tmp_path):
    asked = config(tiny, blocks=((2, 2),))
    whole = prune(asked)
    files = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")}
    for lost in files:
        lost.unlink()
        assert prune(asked) == whole
        assert lost.read_bytes() == files[lost]


def test_a_checkpoint_of_all_seeds_is_pruned_further_together(tiny, tmp_path):
    out = tmp_path / "half.safetensors"
    prune(config(tiny, blocks=((2, 2),), seeds=(0,), prune=replace(MASKS, sparsity=0.3), out=out))
    further = config(tiny, blocks=((2, 2),), method="imp-finetune", checkpoint=out)
    result = prune(further)
    assert [len(trial.levels) for trial in result.trials] == [2, 2, 2]
    assert {trial.dense for trial in result.trials} == {result.trials[0].dense}
    assert {trial.dense_threads for trial in result.trials} == {None}
    assert {level.threads for trial in result.trials for level in trial.levels} == {1}


def test_masks_that_change_and_block_sparse_layers_are_refused(tiny):
    for method in GROWING:
        with pytest.raises(ConfigError, match=f"masks that stay and PyTorch's layers, got method {method}"):
            prune(config(tiny, method=method))
    with pytest.raises(ConfigError, match="got sparse-training") as caught:
        prune(config(tiny, sparse_training=True))
    assert "one seed is then trained after the other" in caught.value.hint


@pytest.mark.parametrize("name", ["finetune", "rewind"])
def test_a_study_together_has_the_trials_of_one_seed_after_the_other(tiny, tmp_path, name):
    study = load_study(EXPERIMENTS / name)
    alone = run_study(study, "smoke", out=tmp_path / "alone.json")
    together = run_study(study, "smoke", seeds_together=True, out=tmp_path / "together.json")

    def keys(result):
        return sorted((t.sparsity, t.block, t.seed, t.sparsity_prunable) for t in result.trials)

    assert keys(alone) == keys(together)
    assert together.verdict.answer == alone.verdict.answer == "undecided at this budget"
    assert together.settings["seeds_together"] is True
    # The dense networks are the same whichever sparsities run with fewer seeds.
    dense = {(t.seed, t.dense) for t in together.trials}
    assert len(dense) == 2
    work = []
    run_study(
        study,
        "smoke",
        seeds_together=True,
        out=tmp_path / "again.json",
        progress=lambda what, done, total: work.append(what),
    )
    assert work == []


def test_the_commands_take_the_options_and_say_what_they_were(tiny, tmp_path, capsys):
    command = ["prune", "tinymodel:build", "--data", DATA, "--block", "2", "--sparsity", "0.5", "--json"]
    before = torch.get_num_threads()
    for options, asked, used in (
        (["--seeds-together", "--seed", "0,1", "--threads", "1"], 1, {1}),
        (["--threads", "2"], 2, {2}),
        (["--threads", "probe"], "probe", {1, 2}),
    ):
        with pytest.raises(SystemExit) as left:
            main([*command, *options])
        out, err = capsys.readouterr()
        assert (left.value.code, err) == (0, "")
        result = json.loads(out)
        assert result["settings"]["threads"] == asked
        assert result["settings"]["seeds_together"] is ("--seeds-together" in options)
        trials = result["blocks"][0]["trials"]
        assert {t["dense_threads"] for t in trials} | {t["levels"][0]["threads"] for t in trials} <= used
        assert torch.get_num_threads() == before
    for text in ("0", "many", "-1", "1025"):
        with pytest.raises(SystemExit) as left:
            main([*command, "--threads", text])
        assert left.value.code == 2
        assert "expected a number from 1 to 1024, or probe" in capsys.readouterr().err


def command(cache, *options):
    code = "import torch; torch.set_num_threads(1); from pysim.cli import main; main()"
    asked = ["prune", "lenet5", "--data", "synthetic", "--block", "4", "--seed", "0,1", "--seeds-together"]
    environment = {**os.environ, "PYSIM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-c", code, *asked, "--epochs", "3", "--dense-epochs", "2", "--json", *options]
    return {"args": whole, "env": environment, "stdout": subprocess.PIPE}


def test_kill_9_and_the_same_command_again_give_the_same_files(tmp_path):
    whole = subprocess.run(**command(tmp_path / "whole"), check=True).stdout
    cache = tmp_path / "killed"
    for saves in (1, 3):  # in the dense networks, then in the pruned ones or late in the dense
        process = subprocess.Popen(**command(cache))
        seen = set()
        while len(seen) < saves and process.poll() is None:
            for state in (cache / "training").glob("*.state"):
                with contextlib.suppress(FileNotFoundError):
                    seen.add(state.stat().st_mtime_ns)
            time.sleep(0.001)
        assert process.poll() is None, "finished before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert list((cache / "training").glob("*.state"))
    again = subprocess.run(**command(cache, "--resume"), check=True).stdout
    assert json.loads(again) == json.loads(whole)
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "training").iterdir()}
    # A kill may leave a lock or a half-written temporary file, which nothing reads.
    left = {path.name: path.read_bytes() for path in (cache / "training").glob("*.safetensors")}
    assert left == files


def test_a_run_says_how_many_threads_trained_and_shares_that_training_with_prune(tiny, capsys):
    base = ["--data", DATA, "--block", "2", "--sparsity", "0.5", "--dense-epochs", "1", "--json"]
    with pytest.raises(SystemExit):
        main(["prune", tiny, *base, "--threads", "2"])
    pruned = json.loads(capsys.readouterr().out)["blocks"][0]["trials"][0]
    with pytest.raises(SystemExit) as left:
        main(["run", tiny, *base, "--train-threads", "2", "--threads", "1", "--no-measure", "--hw", "4x4"])
    result = json.loads(capsys.readouterr().out)
    assert left.value.code == 0
    assert (result["threads"], result["runs"][0]["train_threads"]) == (1, 2)
    assert result["runs"][0]["accuracy"]["pruned"] == pruned["accuracy"]
