"""The ``full`` presets on files of CIFAR-10's form, and what others published beside what they find."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import DataError
from pysim.report import render_study
from pysim.result import Expected, LevelResult, Sample, Trial, compare_expected
from pysim.runner.study import load_study, run_study
from pysim.runner.verdict import VERDICTS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ANCHORED = ("finetune", "rewind", "reinit")
GOOD = {
    "schema": 1,
    "source": "Someone",
    "model": "m",
    "dataset": "d",
    "dense": {"mean": 91.71, "sd": 0.23, "n": 3},
    "rows": [
        {"method": "one-shot", "init": None, "what": "at once", "points": [[0.5, 91.0], [0.6, 90.0]]},
        {"method": "one-shot", "init": "reinit", "what": "fresh", "points": [[0.9, 87.0]]},
    ],
}


def read(name):
    return load_study(EXPERIMENTS / name).expected("full")


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """32 random images to train on and 32 to test, in files of CIFAR-10's form where the presets look."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for file in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (32, 3073)).astype(np.uint8)
        records[:, 0] = np.arange(32) % 10
        (folder / file).write_bytes(records.tobytes())


@pytest.mark.parametrize("name", VERDICTS)
def test_the_full_preset_reads_cifar10_comes_to_a_verdict_and_stands_beside_what_was_published(
    cifar10, tmp_path, name
):
    """As configured, but for few blocks, seeds and epochs, and files of a few random images."""
    study = load_study(EXPERIMENTS / name)
    full = study.presets["full"]
    assert full.data == "cifar10:data/cifar10"
    small = replace(
        full,
        model="lenet300" if name == "shape" else full.model,
        blocks=((4, 4), (1, 16)) if name == "shape" else ((1, 1), (16, 16)),
        seeds=(0, 1),
        sparsity=0.36,
        more_sparsities=(),
        epochs=1,
        dense_epochs=2,
        dense_lr=0.01,
        rewind_step=min(full.rewind_step, 1),
    )
    study = replace(study, presets={"full": small})
    result = run_study(study, "full", out=tmp_path / "results.json")
    assert (result.model, result.dataset) == (small.model, "cifar10")
    assert result.verdict.answer == "undecided at this budget"
    assert [len(trial.levels) for trial in result.trials] == [2 if name == "rewind" else 1] * 4
    written = json.loads((tmp_path / "results.json").read_text())["expected"]
    text = render_study(result)
    if name not in ANCHORED:
        assert (result.expected, written) == (None, None)
        assert "published" not in text
        return
    (point,) = result.expected.points
    singles = [t.accuracy for t in result.trials if t.block == (1, 1)]
    assert (point.sparsity, point.expected_sparsity, point.measured) == (0.36, 0.36, Sample.of(singles))
    assert written["points"][0]["expected"] == point.expected == read(name).rows[0].points[0][1]
    # The first level of the chain is at 20 %, sixteen points from the nearest.
    assert result.expected.without == ((0.2,) if name == "rewind" else ())
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("block 1x1 beside Renda"))
    assert lines[start + 3].split()[-1] == f"{point.measured.mean - point.expected:+.2f}"
    assert lines[start + 2].split()[:2] == ["dense", f"{result.expected.measured_dense.mean:.2f}"]
    assert "91.71 %  0.23" in lines[start + 2]


def test_the_anchors_are_those_of_the_paper():
    by_method = {(row.method, row.init): dict(row.points) for name in ANCHORED for row in read(name).rows}
    assert len(by_method) == 4
    assert {len(points) for points in by_method.values()} == {8}
    assert {read(name).dense for name in ANCHORED} == {Sample(mean=91.71, sd=0.23, n=3)}
    at_79 = {key: points[0.79] for key, points in by_method.items()}
    assert at_79 == {
        ("one-shot", None): 90.39,
        ("imp", None): 91.04,
        ("lr-rewind", None): 91.90,
        ("one-shot", "reinit"): 88.43,
    }


@pytest.mark.parametrize("name", ANCHORED)
def test_a_study_has_the_row_of_its_own_method_and_other_presets_have_none(name):
    study = load_study(EXPERIMENTS / name)
    full = study.presets["full"]
    expected = study.expected("full")
    assert (expected.model, full.data.partition(":")[0]) == (full.model, expected.dataset)
    assert (full.method, full.init) == (expected.rows[0].method, expected.rows[0].init)
    assert [preset for preset in study.presets if study.expected(preset) is not None] == ["full"]


def trial(seed, levels, dense=92.0, block=(1, 1)):
    return Trial(
        block=block,
        seed=seed,
        dense=dense,
        levels=tuple(LevelResult(sparsity=s, before_finetune=10.0, accuracy=a) for s, a in levels),
        sparsity_prunable=0.5,
        sparsity_model=0.5,
        blocks_kept=1,
        blocks_total=2,
        empty=(),
        dead=(),
        file=None,
    )


def compared(trials, **changes):
    how = {"model": "m", "dataset": "d", "method": "one-shot", "init": None, **changes}
    return compare_expected(Expected.from_json("f", GOOD), trials, **how)


def test_the_nearest_sparsity_within_five_points_stands_beside_by_hand():
    trials = [
        trial(0, [(0.45, 90.0), (0.56, 89.0), (0.7, 80.0)]),
        trial(1, [(0.45, 92.0), (0.56, 90.0), (0.7, 81.0)], dense=91.0),
        trial(0, [(0.5, 70.0)], block=(4, 4)),
    ]
    found = compared(trials)
    assert [(p.sparsity, p.measured.mean, p.expected_sparsity, p.expected) for p in found.points] == [
        (0.45, 91.0, 0.5, 91.0),
        (0.56, 89.5, 0.6, 90.0),
    ]
    assert found.points[0].measured.sd == pytest.approx(math.sqrt(2))
    assert (found.without, found.measured_dense, found.what) == ((0.7,), Sample.of([92.0, 91.0]), "at once")


def test_other_networks_data_and_methods_are_not_compared():
    trials = [trial(0, [(0.5, 90.0)])]
    assert compared(trials) is not None
    for changes in ({"model": "n"}, {"dataset": "e"}, {"method": "imp"}, {"init": "rewind"}):
        assert compared(trials, **changes) is None
    assert compared([trial(0, [(0.5, 90.0)], block=(4, 4))]) is None
    assert compared([trial(0, [(0.9, 80.0)])], init="reinit").points[0].expected == 87.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 2, "schema: expected 1, got 2"),
        ("source", "a\nb", "source: expected printable text"),
        ("model", "m" * 201, "model: expected printable text"),
        ("dataset", None, "dataset: expected printable text"),
        ("dense", [], "dense: expected an object"),
        ("dense", {"mean": 101, "sd": 0, "n": 1}, r"dense\.mean: expected a number from 0 to 100"),
        ("dense", {"mean": 1, "sd": math.nan, "n": 1}, r"dense\.sd"),
        ("dense", {"mean": 1, "sd": 0, "n": True}, r"dense\.n"),
        ("rows", {}, "rows: expected a list"),
        ("rows", [3], r"rows\[0\]: expected an object"),
        ("points", [], r"rows\[0\]\.points: expected from 1 to 1000, got 0"),
        ("points", [[0.5, 90.0]] * 1001, "got 1001"),
        ("points", [[0.5]], r"points\[0\]: expected sparsity and accuracy, got 1"),
        ("points", [[0.5, 90.0], [0.5, 91.0]], "expected rising sparsities"),
        ("points", [[0.5, 900.0]], r"points\[0\]: expected a number from 0 to 100"),
        ("method", 3, r"rows\[0\]\.method"),
    ],
)
def test_a_mistake_in_a_file_is_named(field, value, message):
    content = json.loads(json.dumps(GOOD))
    if field in ("points", "method"):
        content["rows"] = [content["rows"][0] | {field: value}]
    else:
        content[field] = value
    with pytest.raises(DataError, match=message):
        Expected.from_json("f", content)


def test_a_file_that_is_none_stops_the_study_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(EXPERIMENTS / "finetune", tmp_path / "finetune")
    study = load_study(tmp_path / "finetune")
    file = tmp_path / "finetune" / "expected" / "smoke.json"
    for content, message in ((b"{", "not a readable"), (b"[" * 5000, "not a readable"), (b"[]", "an object")):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            run_study(study, "smoke", out=tmp_path / "results.json")
    file.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(DataError, match="at most 1048576 bytes"):
        run_study(study, "smoke", out=tmp_path / "results.json")
    assert not (tmp_path / "cache").exists()


@given(
    published=st.dictionaries(st.integers(0, 99), st.integers(0, 100), min_size=1),
    sparsities=st.sets(st.integers(0, 99), min_size=1),
)
def test_every_sparsity_is_beside_its_nearest_or_said_to_have_none(published, sparsities):
    points = [[s / 100, float(a)] for s, a in sorted(published.items())]
    expected = Expected.from_json("f", GOOD | {"rows": [GOOD["rows"][0] | {"points": points}]})
    found = compare_expected(
        expected,
        [trial(0, [(s / 100, 50.0) for s in sorted(sparsities)])],
        model="m",
        dataset="d",
        method="one-shot",
        init=None,
    )
    seen = {round(100 * p.sparsity): round(100 * p.expected_sparsity) for p in found.points}
    assert set(seen) | {round(100 * s) for s in found.without} == sparsities
    for sparsity in sparsities:
        nearest = min(abs(sparsity - other) for other in published)
        assert (sparsity in seen) == (nearest <= 5)
        assert sparsity not in seen or abs(seen[sparsity] - sparsity) == nearest
