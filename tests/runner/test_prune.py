"""Every method from a model's name to a pruned network: plans, rewinding, cache, interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from pysim.errors import ConfigError, ModelError
from pysim.pruning import PruneConfig, kept_count
from pysim.report import render_prune
from pysim.result import Sample
from pysim.runner import METHODS, PruneRunConfig, RunConfig, prune, run
from pysim.runner.methods import make_plan
from pysim.runner.networks import Source, fresh_model
from pysim.runner.speedup import accelerator_for
from pysim.runner.stages import dense_networks, pruned_networks
from pysim.training import TrainConfig, no_progress, train

MASKS = PruneConfig(block=(2, 2), sparsity=0.6)
DATA = "synthetic:1x8x8"


def config(model, **changes):
    return PruneRunConfig(
        **{
            "model": model,
            "blocks": ((2, 2),),
            "prune": MASKS,
            "data": DATA,
            "dense_epochs": 2,
            "rewind_step": 3,
            "level_rate": 0.4,
            **changes,
        }
    )


def plan(method, prune=MASKS, **changes):
    settings = {
        "init": None,
        "epochs": 1,
        "dense_epochs": 4,
        "dense_lr": 0.15,
        "rewind_step": 5,
        "level_rate": 0.5,
        "seed": 0,
        **changes,
    }
    return make_plan(method, prune, **settings)


def shape(made):
    return [(lv.prune.sparsity, lv.init, lv.start_step, lv.retrain.epochs, lv.growing) for lv in made.levels]


def test_plans_by_hand():
    assert shape(plan("one-shot")) == [(0.6, "keep", 0, 1, None)]
    assert shape(plan("imp")) == [(0.5, "rewind", 5, 4, None), (0.6, "rewind", 5, 4, None)]
    assert shape(plan("lr-rewind")) == [(0.5, "keep", 5, 4, None), (0.6, "keep", 5, 4, None)]
    assert shape(plan("imp-finetune")) == [(0.5, "keep", 0, 1, None), (0.6, "keep", 0, 1, None)]
    assert shape(plan("at-init")) == [(0.6, "keep", 0, 4, None)]
    assert shape(plan("gradual")) == [(0.6, "keep", 0, 1, "gradual")]
    assert shape(plan("rigl")) == [(0.6, "keep", 0, 4, "rigl")]
    assert (plan("imp").snapshot_step, plan("imp").from_scratch) == (5, True)
    assert (plan("lr-rewind").snapshot_step, plan("lr-rewind").from_scratch) == (None, False)
    assert plan("at-init").dense_epochs == 0


def test_controls_concern_the_last_level_alone():
    made = plan("imp", replace(MASKS, mask="shuffle"), init="reinit")
    assert [level.prune.mask for level in made.levels] == ["keep", "shuffle"]
    assert shape(made) == [(0.5, "rewind", 5, 4, None), (0.6, "reinit", 0, 4, None)]
    assert shape(plan("one-shot", init="rewind")) == [(0.6, "rewind", 5, 4, None)]
    assert plan("one-shot", init="rewind").snapshot_step == 5


@pytest.mark.parametrize(
    ("method", "changes", "masks", "message"),
    [
        ("twice", {}, MASKS, "method: expected one of one-shot"),
        ("gradual", {"init": "reinit"}, MASKS, "no mask before training"),
        ("rigl", {}, replace(MASKS, mask="shuffle"), "no mask before training"),
        ("at-init", {"init": "rewind"}, MASKS, "nothing was trained"),
        ("gradual", {"epochs": 0}, MASKS, "at least 1 epoch"),
        ("imp", {"level_rate": 1.0}, MASKS, "level-rate"),
    ],
)
def test_plans_that_make_no_sense_are_refused(method, changes, masks, message):
    with pytest.raises(ConfigError, match=message):
        plan(method, masks, **changes)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_at_the_exact_count_and_a_second_call_trains_nothing(tiny, method):
    asked = config(tiny, method=method, blocks=((2, 2), (1, 1)), seeds=(0, 1))
    first = prune(asked)
    assert len(first.trials) == 4
    for trial in first.trials:
        (total,) = {trial.blocks_total}
        assert trial.blocks_kept == sum(kept_count(blocks, 0.6) for blocks in layers_of(trial.block))
        assert total == sum(layers_of(trial.block))
        assert [level.sparsity for level in trial.levels] == (
            [0.4, 0.6] if METHODS[method].iterative else [0.6]
        )
        assert (trial.dense is None) == METHODS[method].untrained
    work = []
    assert prune(asked, lambda what, done, total: work.append(what)) == first
    assert work == []
    shown = render_prune(first)
    assert "2x2" in shown
    assert f"method {method}" in shown
    assert json.loads(json.dumps(first.to_json(), allow_nan=False))["blocks"][0]["accuracy"]["n"] == 2


def layers_of(block):
    """Blocks of the second convolution (8 x 9 positions of 4) and the first linear layer (16 x 8)."""
    return (8 // block[0] * 9 * 4 // block[1], 16 // block[0] * 8 // block[1])


def test_rewinding_to_step_0_without_pruning_repeats_dense_training_to_the_bit(tiny):
    asked = config(tiny, method="imp", prune=replace(MASKS, sparsity=0.0), rewind_step=0)
    made = asked.plan((2, 2), 0)
    source = Source(DATA, None)
    dense = dense_networks(
        tiny,
        source,
        checkpoint=None,
        epochs=2,
        seeds=(0,),
        use_cache=True,
        progress=no_progress,
        from_scratch=True,
        snapshot_step=0,
    )
    (again,) = pruned_networks(dense, source, made.levels[:1], use_cache=True, progress=no_progress)
    assert again.accuracy == dense[0].accuracy
    for a, b in zip(dense[0].model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_reinitialised_weights_are_fresh_ones_trained_by_the_whole_schedule(tiny):
    source = Source(DATA, None)
    made = config(tiny, prune=replace(MASKS, sparsity=0.0), init="reinit").plan((2, 2), 0)
    dense = dense_networks(
        tiny, source, checkpoint=None, epochs=2, seeds=(0,), use_cache=True, progress=no_progress
    )
    (pruned,) = pruned_networks(dense, source, made.levels, use_cache=True, progress=no_progress)
    expected = fresh_model(tiny, source.dataset, 1_000_003)
    train(expected, source.batches, TrainConfig(epochs=2, seed=0))
    for a, b in zip(expected.state_dict().values(), pruned.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 14, 26, 35])
def test_an_interrupted_method_goes_on_to_the_same_result(tiny, monkeypatch, tmp_path, stop):
    """A stop in dense training, the first and the second level."""
    asked = config(tiny, method="imp")
    whole = prune(asked)
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "other"))
    calls = []

    def interrupt(what, done, total):
        calls.append(what)
        if len(calls) == stop:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        prune(asked, interrupt)
    assert prune(asked) == whole


def test_prune_and_run_share_the_cache(tiny):
    from pysim.config import Accelerator

    pruned = prune(config(tiny, rewind_step=0))
    settings = RunConfig(
        model=tiny,
        blocks=((2, 2),),
        accelerator=Accelerator(rows=4, cols=4),
        sparsity=0.6,
        data=DATA,
        dense_epochs=2,
        measure=False,
    )
    work = []
    result = run(settings, lambda what, done, total: work.append(what))
    assert work == []
    assert result.runs[0].accuracy.pruned == pruned.trials[0].accuracy


def test_a_step_that_training_never_reaches_and_a_checkpoint_for_rewinding_are_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="rewind-step: expected below the 16 steps"):
        prune(config(tiny, method="imp", rewind_step=16))
    with pytest.raises(ConfigError, match="needs a network trained here"):
        prune(config(tiny, method="imp", checkpoint=tmp_path / "x"))


def test_user_models_that_cannot_be_used_say_why(tiny, tmp_path):
    for name, message in (
        ("tinymodel:wrong", "expected a torch.nn.Module, got int"),
        ("tinymodel:broken", "RuntimeError: no such luck"),
        ("tinymodel:absent", "absent"),
        ("nosuchmodule:build", "nosuchmodule"),
        ("tinymodel:", "expected module:factory"),
        ("../tinymodel:build", "expected module:factory"),
    ):
        with pytest.raises(ModelError, match=message):
            prune(config(name))
    with pytest.raises(ModelError, match=r"on images of 3x8x8: RuntimeError") as caught:
        prune(config(tiny, data="synthetic:3x8x8"))
    assert "--input" in caught.value.hint


def test_a_change_in_the_users_code_is_a_new_key(tiny, tmp_path):
    before = len(list((tmp_path / "cache").rglob("*.safetensors"))) if (tmp_path / "cache").exists() else 0
    prune(config(tiny, epochs=0))
    between = len(list((tmp_path / "cache").rglob("*.safetensors")))
    import sys

    sys.modules.pop("tinymodel")
    source = tmp_path / "tinymodel.py"
    source.write_text(source.read_text() + "\n# changed\n")
    prune(config(tiny, epochs=0))
    after = len(list((tmp_path / "cache").rglob("*.safetensors")))
    assert (between - before, after - between) == (2, 2)


def test_mean_and_spread_by_hand():
    sample = Sample.of([1.0, 2.0, 6.0])
    assert (sample.mean, sample.n) == (3.0, 3)
    assert sample.sd == pytest.approx(float(Fraction(7)) ** 0.5)
    assert Sample.of([4.0]).sd is None


@pytest.mark.parametrize("layout", ["kernel", "oihw"])
def test_other_layouts_are_trained_under_and_only_whole_kernels_are_run(tiny, tmp_path, layout):
    out = tmp_path / "pruned.safetensors"
    masks = replace(MASKS, layout=layout)
    (trial,) = prune(config(tiny, method="gradual", prune=masks, out=out)).trials
    assert trial.empty == ()
    further = config(tiny, prune=replace(masks, sparsity=0.8), checkpoint=out)
    assert prune(further).trials[0].blocks_kept < trial.blocks_kept
    machine = accelerator_for("4x4", "gather")
    run_it = RunConfig(model=tiny, blocks=(), accelerator=machine, data=DATA, checkpoint=out, measure=False)
    if layout == "kernel":
        assert run(run_it).runs[0].speedup > 0
    else:
        with pytest.raises(ConfigError, match="straddle"):
            run(run_it)


def test_a_method_that_moves_single_blocks_refuses_whole_kernels():
    with pytest.raises(ConfigError, match="rigl: expected layout kh,kw,cin or oihw"):
        plan("rigl", replace(MASKS, layout="kernel"))
    with pytest.raises(ConfigError, match="sparse-training: expected layout"):
        plan("one-shot", replace(MASKS, layout="oihw"), sparse_training=True)
