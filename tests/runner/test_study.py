"""Verdicts follow the numbers, and a study's configuration says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.cli import main
from pysim.errors import ConfigError, DataError
from pysim.result import LevelResult, Trial, by_size, squarest
from pysim.runner import measure_study, speedup
from pysim.runner.mask_file import load_network_masks, masks_path
from pysim.runner.study import find_study, load_study, run_study
from pysim.runner.verdict import (
    VERDICTS,
    Criteria,
    bootstrap_interval,
    decide,
    reachable_compression,
    slope_per_doubling,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
QUICK = Criteria(resamples=400)
BLOCKS = ((1, 1), (2, 2), (4, 4))
SHAPES = ((1, 1), (1, 4), (2, 2), (4, 1))


def trial(block, seed, accuracies, sparsities=(0.9,), dense=90.0):
    levels = tuple(
        LevelResult(sparsity=s, before_finetune=10.0, accuracy=float(a))
        for s, a in zip(sparsities, accuracies, strict=True)
    )
    return Trial(
        block=block,
        seed=seed,
        dense=dense,
        levels=levels,
        sparsity_prunable=0.9,
        sparsity_model=0.9,
        blocks_kept=1,
        blocks_total=10,
        empty=(),
        dead=(),
        file=None,
    )


def trials(means, *, noise=0.1, seeds=5, rng_seed=0, blocks=BLOCKS):
    """Accuracies around ``means``, one a block, each seed with an offset of its own."""
    rng = np.random.default_rng(rng_seed)
    return [
        trial(block, seed, [mean + offset + rng.normal(0, noise)])
        for seed, offset in enumerate(rng.normal(0, 0.5, seeds))
        for block, mean in zip(blocks, means, strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(rng_seed=st.integers(0, 2**32 - 1))
def test_a_slope_far_above_the_noise_is_found_whatever_the_seeds(rng_seed):
    found = decide("finetune", trials([90, 89, 88], rng_seed=rng_seed), QUICK)
    assert found.answer == "supported"
    slope = found.evidence[0]
    assert slope.low <= slope.value <= slope.high < 0
    assert decide("finetune", trials([88, 89, 90], rng_seed=rng_seed), QUICK).answer == "not supported"


def test_a_cliff_is_not_gradual():
    assert decide("finetune", trials([90, 89, 70]), QUICK).answer == "not supported"
    at_the_edge = [
        trial(block, seed, [accuracy])
        for seed, loss in enumerate((3, 4, 5, 6, 7))
        for block, accuracy in zip(BLOCKS, (90, 89, 89 - loss), strict=True)
    ]
    assert decide("finetune", at_the_edge, QUICK).answer == "undecided at this budget"


@settings(max_examples=25, deadline=None)
@given(rng_seed=st.integers(0, 2**32 - 1))
def test_equal_accuracies_within_the_margin_support_the_third_claim(rng_seed):
    assert decide("reinit", trials([88, 88, 88], rng_seed=rng_seed), QUICK).answer == "supported"
    assert decide("reinit", trials([88, 88, 86], rng_seed=rng_seed), QUICK).answer == "not supported"


def test_noise_as_large_as_the_margin_leaves_it_open():
    found = decide("reinit", trials([88, 88.3, 87.6], noise=0.8, rng_seed=1), QUICK)
    assert found.answer == "undecided at this budget"
    assert "both sides" in found.why


@settings(max_examples=25, deadline=None)
@given(rng_seed=st.integers(0, 2**32 - 1))
def test_shapes_are_compared_with_the_square_of_as_many_weights_and_with_no_other(rng_seed):
    """Single weights, far better, are of another size and are not in question."""

    def decided(means):
        return decide("shape", trials(means, rng_seed=rng_seed, blocks=SHAPES), QUICK)

    alike = decided([95, 88, 88, 88])
    assert alike.answer == "supported"
    assert [item.name for item in alike.evidence] == [
        "accuracy of block 1x4 less that of 2x2",
        "accuracy of block 4x1 less that of 2x2",
    ]
    assert decided([88, 88, 88, 86]).answer == "not supported"


def test_the_squarest_of_blocks_without_a_square_is_the_lower_one():
    assert squarest([(1, 8), (4, 2), (2, 4)]) == (2, 4)
    assert by_size([(1, 4), (1, 1), (2, 2)]) == {4: [(1, 4), (2, 2)], 1: [(1, 1)]}


@pytest.mark.parametrize("study", VERDICTS)
def test_few_seeds_decide_nothing_however_clear_they_look(study):
    blocks = SHAPES[1:] if VERDICTS[study].shapes else BLOCKS
    found = decide(study, trials([90, 80, 70], noise=0.0, seeds=4, blocks=blocks), QUICK)
    assert found.answer == "undecided at this budget"
    assert "4 seeds, at least 5" in found.why


def test_reachable_compression_by_hand():
    """Half, a quarter and an eighth of the weights; 89 or more is within a point of 90."""
    levels = (0.5, 0.75, 0.875)
    assert reachable_compression(trial((1, 1), 0, [90, 89, 88], levels), 1.0) == 2.0
    assert reachable_compression(trial((1, 1), 0, [90, 80, 89.5], levels), 1.0) == 3.0
    assert reachable_compression(trial((1, 1), 0, [80, 80, 80], levels), 1.0) == 0.0


def test_the_sparsity_that_can_be_reached_decides_the_second_claim():
    levels = (0.5, 0.75, 0.875)

    def made(reached):
        return [
            trial(block, seed, [90 if i < reached[block] else 70 for i in range(3)], levels)
            for seed in range(5)
            for block in BLOCKS
        ]

    falling = decide("rewind", made({(1, 1): 3, (2, 2): 2, (4, 4): 1}), QUICK)
    # From 3 halvings to 1 over four doublings of the block's weights.
    assert (falling.answer, falling.evidence[0].value) == ("supported", pytest.approx(-0.5))
    assert decide("rewind", made({(1, 1): 1, (2, 2): 2, (4, 4): 3}), QUICK).answer == "not supported"
    for level in (0, 3):
        same = decide("rewind", made(dict.fromkeys(BLOCKS, level)), QUICK)
        assert same.answer == "undecided at this budget"


@given(
    offset=st.floats(-50, 50),
    values=st.lists(st.floats(0, 100), min_size=6, max_size=6),
)
def test_the_slope_is_the_least_squares_one_and_does_not_see_an_offset(offset, values):
    table = np.array(values).reshape(2, 3)
    x = np.log2([1.0, 4.0, 16.0])
    expected = np.polyfit(x, table.mean(axis=0), 1)[0]
    assert slope_per_doubling(table, BLOCKS) == pytest.approx(expected, abs=1e-9)
    assert slope_per_doubling(table + offset, BLOCKS) == pytest.approx(expected, abs=1e-9)


def test_the_interval_is_that_of_all_resamples_where_they_can_be_counted():
    """Two seeds, mean: (a + a) / 2, (a + b) / 2 twice, (b + b) / 2. Its ends are a and b."""
    table = np.array([[1.0], [3.0]])
    assert bootstrap_interval(table, lambda t: float(t.mean()), QUICK) == (1.0, 3.0)


def test_an_incomplete_table_is_refused():
    with pytest.raises(ConfigError, match="expected one trial for each"):
        decide("finetune", trials([90, 89, 88])[:-1], QUICK)
    with pytest.raises(ConfigError, match="expected one of finetune"):
        decide("other", trials([90, 89, 88]), QUICK)
    with pytest.raises(ConfigError, match=r"criteria\.min_seeds"):
        Criteria(min_seeds=1)


@pytest.mark.parametrize("name", VERDICTS)
def test_every_study_has_its_presets_page_and_script(name):
    study = load_study(find_study(str(EXPERIMENTS / name)))
    assert {"smoke", "cpu", "full"} <= set(study.presets)
    assert study.name == name
    assert len(study.presets["full"].seeds) >= study.presets["full"].criteria.min_seeds
    page = (EXPERIMENTS / name / "README.md").read_text()
    assert study.claim in page.replace("\n", " ")
    assert (EXPERIMENTS / name / "run.sh").stat().st_mode & 0o100


@pytest.mark.parametrize("name", VERDICTS)
def test_the_smoke_preset_runs_in_seconds_and_a_second_time_from_the_cache(tiny, tmp_path, name):
    study = load_study(EXPERIMENTS / name)
    out = tmp_path / "results.json"
    result = run_study(study, "smoke", out=out)
    assert result.verdict.answer == "undecided at this budget"
    written = json.loads(out.read_text())
    assert written["complete"] is True
    assert written == json.loads(json.dumps(result.to_json()))
    assert out.stat().st_size < 20_000
    work = []
    again = run_study(study, "smoke", out=out, progress=lambda what, done, total: work.append(what))
    assert (again, work) == (result, [])


def test_an_interrupted_study_leaves_what_is_done_and_goes_on(tiny, tmp_path):
    class InterruptedRunError(Exception):
        pass

    def interrupt(what, done, total):
        if what.startswith("trial 3"):
            raise InterruptedRunError

    study = load_study(EXPERIMENTS / "finetune")
    out = tmp_path / "results.json"
    with pytest.raises(InterruptedRunError):
        run_study(study, "smoke", out=out, progress=interrupt)
    partial = json.loads(out.read_text())
    assert (partial["complete"], len(partial["trials"]), partial["verdict"]) == (False, 2, None)
    resumed = run_study(study, "smoke", out=out)
    assert len(resumed.trials) == 6
    assert json.loads(out.read_text())["complete"] is True


def test_the_judged_sparsity_comes_first_and_the_others_change_no_verdict(tiny, tmp_path):
    study = load_study(EXPERIMENTS / "finetune")
    out = tmp_path / "results.json"
    seen = []

    def look(what, done, total):
        if out.is_file():
            seen.append(json.loads(out.read_text()))

    result = run_study(study, "smoke", out=out, progress=look)
    # Two blocks and two seeds at 0.5, then two blocks and the first seed at 0.75.
    assert [(t.sparsity, t.seed) for t in result.trials] == [(0.5, 0)] * 2 + [(0.5, 1)] * 2 + [(0.75, 0)] * 2
    judged = [found for found in seen if len(found["trials"]) == 4]
    assert judged
    assert all(not found["complete"] for found in judged)
    assert judged[0]["verdict"] == json.loads(out.read_text())["verdict"]
    for trial in result.trials:
        assert trial.levels[0].simulated_speedup > 0
        assert trial.levels[0].measured_speedup is None


def test_pruning_at_once_to_several_sparsities_is_judged_like_a_chain_of_levels():
    sparsities = (0.5, 0.75, 0.875)
    accuracies = {(1, 1): [90, 90, 90], (2, 2): [90, 90, 70], (4, 4): [90, 70, 70]}
    chains = [trial(b, s, a, sparsities) for s in range(5) for b, a in accuracies.items()]
    single = [
        trial(b, s, [accuracy], [sparsity])
        for s in range(5)
        for b, a in accuracies.items()
        for accuracy, sparsity in zip(a, sparsities, strict=True)
    ]
    assert decide("rewind", single, QUICK) == decide("rewind", chains, QUICK)


def test_the_command_line_runs_a_study_from_its_folder(tiny, tmp_path, capsys):
    shutil.copytree(EXPERIMENTS / "reinit", tmp_path / "experiments" / "reinit")
    with pytest.raises(SystemExit) as left:
        main(["experiment", "reinit", "--resume"])
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (0, "")
    assert out.splitlines()[-1].startswith("undecided at this budget: 2 seeds")
    assert (tmp_path / "experiments" / "reinit" / "results" / "smoke.json").is_file()
    for args, message in (
        (["experiment", "nothing"], "expected a folder with config.toml"),
        (["experiment", "reinit", "--preset", "huge"], "preset: expected one of smoke, short, "),
    ):
        with pytest.raises(SystemExit) as left:
            main(args)
        assert left.value.code == 2
        assert message in capsys.readouterr().err


GOOD = """
study = "finetune"
claim = "c"
[preset.p]
model = "lenet5"
data = "synthetic"
blocks = [1, "1x4"]
seeds = [0]
sparsity = 0.5
method = "one-shot"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('study = "finetune"', 'study = "magic"', "expected a claim and a study of finetune"),
        ('study = "finetune"', "", "study: is missing"),
        ("seeds = [0]", "", "preset.p.seeds: is missing"),
        ("seeds = [0]", "seeds = [true]", "expected a list of integers"),
        ("seeds = [0]", "seeds = [0, 0]", "each once"),
        ('"1x4"', '"4x"', "expected a size"),
        ('[1, "1x4"]', "[]", "expected a list"),
        ('[1, "1x4"]', '[2, "1x4"]', "at least 2 sizes"),
        ('study = "finetune"', 'study = "shape"', "two shapes with equally many weights"),
        ("sparsity = 0.5", "sparsity = 1.5", "sparsity"),
        ("sparsity = 0.5", "sparsity = true", "expected float, got True"),
        ("sparsity = 0.5", "sparsity = 0.5\nspeed = 3", "speed: expected one of"),
        ("sparsity = 0.5", "sparsity = 0.5\nepochs = 1.5", "expected int"),
        ("sparsity = 0.5", "sparsity = 0.5\nmore_sparsities = [1]", "more_sparsities: expected a list"),
        ("sparsity = 0.5", "sparsity = 0.5\nmore_sparsities = [0.5]", "each once and not 0.5"),
        ("sparsity = 0.5", "sparsity = 0.5\nmore_sparsities = [1.5]", "expected from 0 to below 1"),
        ("sparsity = 0.5", "sparsity = 0.5\nmore_seeds = 2", "more_seeds: expected from 1 to 1, got 2"),
        ("sparsity = 0.5", 'sparsity = 0.5\nhw = "no-such"', "no-such"),
        ("sparsity = 0.5", 'sparsity = 0.5\nskip = "jump"', "skip"),
        ("sparsity = 0.5", "sparsity = 0.5\ncriteria.margin = 3", "margin: expected one of"),
        ("sparsity = 0.5", "sparsity = 0.5\ncriteria = 3", "criteria"),
        ('"one-shot"', '"magic"', "method: expected one of"),
        ("[preset.p]", "[preset", "cannot be read"),
    ],
)
def test_a_mistake_in_a_configuration_is_named(tmp_path, old, new, message):
    (tmp_path / "config.toml").write_text(GOOD)
    assert load_study(tmp_path).presets["p"].blocks == ((1, 1), (1, 4))
    (tmp_path / "config.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_study(tmp_path)


@pytest.fixture
def finished(tiny, tmp_path):
    study = load_study(EXPERIMENTS / "finetune")
    out = tmp_path / "results.json"
    run_study(study, "smoke", out=out)
    return study, out


def test_measuring_times_the_first_seed_from_its_masks_and_trains_nothing(finished, monkeypatch, tmp_path):
    study, out = finished
    before = json.loads(out.read_text())
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "empty"))  # the masks' file must do
    monkeypatch.setattr(speedup, "cores_used_by_others", lambda before, after: 0.0)
    found = measure_study(study, "smoke", out=out, threads=1)
    after = json.loads(out.read_text())
    assert (found.results, found.disturbed) == (after, ())
    assert after["measured_threads"] == 1
    for was, now in zip(before["trials"], after["trials"], strict=True):
        timed = now["levels"][0].pop("measured_speedup")
        assert (timed is not None) == (now["seed"] == 0)
        del was["levels"][0]["measured_speedup"]
    del after["measured_threads"]
    assert after == before
    assert not (tmp_path / "empty").exists()


def test_a_disturbed_timing_is_left_out_and_the_next_call_tries_it_again(finished, monkeypatch):
    study, out = finished
    busy = iter([0.0, 0.5, 0.0, 0.0])
    monkeypatch.setattr(speedup, "cores_used_by_others", lambda before, after: next(busy))
    found = measure_study(study, "smoke", out=out, threads=1)
    assert found.disturbed == (((4, 4), 0.5),)
    kept = [t["levels"][0]["measured_speedup"] for t in found.results["trials"] if t["seed"] == 0]
    assert [value is None for value in kept] == [False, True, False, False]
    monkeypatch.setattr(speedup, "cores_used_by_others", lambda before, after: 0.0)
    again = measure_study(study, "smoke", out=out, threads=1)
    assert again.disturbed == ()
    assert again.results["trials"][0]["levels"] == found.results["trials"][0]["levels"]


def test_the_masks_beside_the_results_are_those_of_the_networks(finished):
    _, out = finished
    found = load_network_masks(masks_path(out), "finetune", "smoke")
    assert set(found) == {"1x1 0.5", "4x4 0.5", "1x1 0.75", "4x4 0.75"}
    for name, masks in found.items():
        total = sum(mask.blocks_total for mask in masks.values())
        kept = sum(mask.blocks_kept for mask in masks.values())
        assert 1 - kept / total == pytest.approx(float(name.split()[1]), abs=1e-3)


def test_measuring_refuses_what_does_not_belong_together(finished):
    study, out = finished
    with pytest.raises(DataError, match="expected study 'reinit', got 'finetune'"):
        load_network_masks(masks_path(out), "reinit", "smoke")
    results = json.loads(out.read_text())
    for field, value in (("preset", "short"), ("model", "lenet5"), ("trials", [{"seed": 0}])):
        out.write_text(json.dumps(results | {field: value}))
        with pytest.raises(DataError, match=field):
            measure_study(study, "smoke", out=out, threads=1)
    out.write_text(json.dumps(results))
    data = masks_path(out).read_bytes()
    masks_path(out).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        measure_study(study, "smoke", out=out, threads=1)
    masks_path(out).unlink()
    with pytest.raises(DataError, match="not a readable"):
        measure_study(study, "smoke", out=out, threads=1)
    out.unlink()
    with pytest.raises(DataError, match="no such file") as refused:
        measure_study(study, "smoke", out=out, threads=1)
    assert "without --measure" in refused.value.hint


def test_the_command_measures_in_a_step_of_its_own(finished, capsys, monkeypatch):
    _, out = finished
    monkeypatch.setattr(speedup, "cores_used_by_others", lambda before, after: 1.0)
    folder = str(EXPERIMENTS / "finetune")
    with pytest.raises(SystemExit) as left:
        main(["experiment", folder, "--out", str(out), "--measure", "--threads", "1"])
    printed, _ = capsys.readouterr()
    assert left.value.code == 0
    assert printed.splitlines()[-1].startswith("not timed, as other programs used the machine: 1x1 at 50 %")
    for options, message in (
        (["--data", "synthetic"], "--measure takes the preset's own data"),
        (["--threads", "probe"], "--measure takes a number of --threads"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["experiment", folder, "--out", str(out), "--measure", *options])
        assert left.value.code == 2
        assert message in capsys.readouterr().err
