"""The vector unit: cycles of elements that are not part of a matrix product."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.config import VectorUnit
from pysim.errors import ConfigError


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 10**6))
def test_enough_cycles_for_the_elements_and_not_one_turn_more(lanes, per_element, elements):
    unit = VectorUnit(lanes=lanes, cycles_per_element=per_element)
    turns, rest = divmod(unit.cycles(elements), per_element)
    assert rest == 0
    assert turns * lanes >= elements > (turns - 1) * lanes - (elements == 0)


def test_by_hand():
    assert VectorUnit(lanes=16).cycles(12544) == 784
    assert VectorUnit(lanes=16, cycles_per_element=3).cycles(17) == 6


@pytest.mark.parametrize("fields", [{"lanes": 0}, {"lanes": 2**21}, {"lanes": 4, "cycles_per_element": 0}])
def test_impossible_units_are_refused(fields):
    with pytest.raises(ConfigError, match="vector"):
        VectorUnit(**fields)
