"""Schedules are pure functions with known ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import ConfigError
from pysim.pruning import GROWTH, cubic, level_sparsities


@pytest.mark.parametrize("name", GROWTH)
@given(start=st.floats(0, 0.9), end=st.floats(0, 0.99), a=st.floats(0, 1), b=st.floats(0, 1))
def test_growth_runs_monotonically_from_start_to_end(name, start, end, a, b):
    start, end = min(start, end), max(start, end)
    grow = GROWTH[name]
    assert grow(start, end, 0.0) == pytest.approx(start, abs=1e-12)
    assert grow(start, end, 1.0) == pytest.approx(end, abs=1e-12)
    low, high = sorted((a, b))
    assert grow(start, end, low) <= grow(start, end, high) + 1e-12


def test_the_cubic_of_zhu_and_gupta_by_hand():
    """Half way from 0 to 0.8: 0.8 - 0.8 / 8."""
    assert cubic(0.0, 0.8, 0.5) == pytest.approx(0.7)


def test_levels_by_hand():
    assert level_sparsities(0.5, 0.2) == (0.2, 0.36, 0.488, 0.5)
    assert level_sparsities(0.36, 0.2) == (0.2, 0.36)
    assert level_sparsities(0.1, 0.2) == (0.1,)
    assert level_sparsities(0.0, 0.2) == (0.0,)


@given(target=st.integers(0, 99), rate=st.integers(1, 99))
def test_levels_rise_to_the_target(target, rate):
    levels = level_sparsities(target / 100, rate / 100)
    assert levels[-1] == target / 100
    assert all(a < b for a, b in pairwise(levels))


@pytest.mark.parametrize(
    ("target", "rate"), [(1.0, 0.2), (-0.1, 0.2), (0.5, 0.0), (0.5, 1.0), (0.5, float("nan"))]
)
def test_impossible_levels_are_refused(target, rate):
    with pytest.raises(ConfigError, match="expected from"):
        level_sparsities(target, rate)
