"""The figure shows what the results file holds, and a wrong file is refused."""

from __future__ import annotations

import copy
import json

import pytest

from pysim.cli import main
from pysim.errors import ConfigError, DataError
from pysim.report import check_figure, draw_trade_off
from pysim.result import TradeOff


def level(sparsity, accuracy, simulated=2.0, measured=None):
    return {
        "sparsity": sparsity,
        "before_finetune": 10.0,
        "accuracy": accuracy,
        "simulated_speedup": simulated,
        "measured_speedup": measured,
    }


RESULTS = {
    "schema": 1,
    "study": "finetune",
    "preset": "p",
    "model": "m",
    "dataset": "d",
    "settings": {"hw": "gemmini-16", "skip": "gather"},
    "complete": False,
    "trials": [
        {"block": [4, 4], "seed": 0, "dense": 91.0, "levels": [level(0.9, 80.0, 3.0)]},
        {"block": [4, 4], "seed": 1, "dense": 93.0, "levels": [level(0.9, 84.0, 5.0, 2.5)]},
        {"block": [1, 16], "seed": 0, "dense": 91.0, "levels": [level(0.9, 85.0, None)]},
        {"block": [2, 2], "seed": 0, "dense": 91.0, "levels": [level(0.5, 90.0), level(0.9, 86.0)]},
    ],
}


def test_points_are_means_over_seeds_from_the_smallest_block_to_the_largest():
    found = TradeOff.from_json("f", RESULTS)
    assert [(p.block, p.sparsity) for p in found.points] == [
        ((2, 2), 0.5),
        ((2, 2), 0.9),
        ((1, 16), 0.9),
        ((4, 4), 0.9),
    ]
    four = found.points[-1]
    assert (four.accuracy.mean, four.accuracy.n, four.simulated, four.measured) == (82.0, 2, 4.0, 2.5)
    assert found.points[2].simulated is None
    assert (found.dense.mean, found.dense.n, found.complete) == (92.0, 2, False)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_results_give_the_same_file(tmp_path, kind):
    found = TradeOff.from_json("f", RESULTS)
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        draw_trade_off(found, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert sorted(tmp_path.iterdir()) == paths


def changed(*path_and_value):
    *path, value = path_and_value
    results = copy.deepcopy(RESULTS)
    spot = results
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value
    return results


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "the file: expected an object"),
        (changed("schema", 2), "schema: expected 1, got 2"),
        (changed("settings", 3), "settings: expected an object"),
        (changed("trials", {}), "trials: expected a list"),
        (changed("trials", []), "expected at least one"),
        (changed("trials", 0, "block", [4]), "expected height and width"),
        (changed("trials", 0, "block", [0, 4]), "expected a number from 1"),
        (changed("trials", 0, "dense", "x"), r"trials\[0\].dense: expected a number"),
        (changed("trials", 0, "levels", 0, "accuracy", 101), r"levels\[0\].accuracy: expected a number"),
        (changed("trials", 0, "levels", 0, "accuracy", float("nan")), "expected a number"),
        (changed("trials", 0, "levels", 0, "simulated_speedup", 0), "expected a number from 1e-06"),
        (changed("trials", 0, "levels", 0, "sparsity", True), "expected a number from 0 to 1, got True"),
    ],
)
def test_a_file_that_is_no_results_file_is_refused(results, message):
    with pytest.raises(DataError, match=message):
        TradeOff.from_json("f", results)


def test_the_command_draws_an_unfinished_study(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    names = [str(tmp_path / "t.svg"), str(tmp_path / "t.png")]
    with pytest.raises(SystemExit) as left:
        main(["figure", str(path), "--out", names[0], "--out", names[1], "--json"])
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (0, "")
    assert json.loads(out) == {"files": names, "complete": False}
    drawn = (tmp_path / "t.svg").read_text()
    assert "not all planned trials" in drawn
    assert "<!-- 1x16 -->" in drawn  # beside 4x4, which the line by block size goes through
    for args, message in (
        ([str(path), "--out", "t.pdf"], "expected a name that ends in .png or .svg, got t.pdf"),
        ([names[1], "--out", names[1]], "not a readable results file"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["figure", *args])
        assert left.value.code == 2
        assert message in capsys.readouterr().err


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="expected matplotlib") as refused:
        check_figure(tmp_path / "t.svg")
    assert "pip install matplotlib" in refused.value.hint
