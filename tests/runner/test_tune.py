"""The break-even sparsity that is found is where the two times cross."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import ConfigError
from pysim.report import render_tuning
from pysim.runner import TuneConfig, tune
from pysim.runner.tune import break_even

DENSITIES = (0.1, 0.5, 1.0)


@given(fixed=st.floats(0, 2), slope=st.floats(0.1, 10), dense=st.floats(0.1, 20))
def test_it_is_exact_where_time_is_linear_in_the_weights(fixed, slope, dense):
    found = break_even(DENSITIES, [fixed + slope * d for d in DENSITIES], dense)
    crossing = 1 - (dense - fixed) / slope
    if crossing <= 0:
        assert found == 0
    elif crossing >= 0.9:
        assert found == pytest.approx(0.9) or found == 1
    else:
        assert found == pytest.approx(crossing)


def test_hand_worked_crossings():
    assert break_even(DENSITIES, [1, 2, 3], 4) == 0
    assert break_even(DENSITIES, [5, 6, 7], 4) == 1
    assert break_even(DENSITIES, [1, 3, 5], 4) == pytest.approx(0.25)  # halfway between 0.5 and 1
    assert break_even(DENSITIES, [3, 5, 3], 4) == pytest.approx(0.7)  # the first crossing counts


def test_a_small_tuning_is_a_table_of_rising_quartiles():
    found = tune(TuneConfig(side=32, heights=(1, 4), columns=(1, 20)))
    assert [(row.height, row.n) for row in found.rows] == [(1, 1), (1, 20), (4, 1), (4, 20)]
    assert all(np.all(np.diff(row.sparsity) >= 0) for row in found.rows)
    text = render_tuning(found)
    assert "n = 20" in text
    assert str(found.machine["cpu"]) in text


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"side": 8}, {"heights": ()}, {"columns": (0,)}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        TuneConfig(**wrong)


def test_the_command_shows_what_was_kept_and_says_if_nothing_was(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path))
    command = [sys.executable, "-c", "from pysim.cli import main; main()", "tune", "--show", "--threads", "1"]

    def show(*options):
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False)

    done = show()
    assert done.returncode == 2
    assert "nothing was measured" in done.stderr
    assert "hint: pysim tune measures it." in done.stderr
    from pysim.sparse.tuning import save_tuning

    save_tuning(tune(TuneConfig(side=32, heights=(4,), columns=(8,))), 1)
    assert "height" in show().stdout
    assert json.loads(show("--json").stdout)["rows"][0]["height"] == 4
