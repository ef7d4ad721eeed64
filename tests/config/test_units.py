"""Quantities keep their exact value, and nothing without a unit is a quantity."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pysim.config.units import BANDWIDTH, DURATION, FREQUENCY, SIZE, parse_quantity, shown

KINDS = [SIZE, BANDWIDTH, FREQUENCY, DURATION]

WORKED = [
    ("24 MiB", SIZE, 24 * 1024 * 1024, "B"),
    ("1 KB", SIZE, 1000, "B"),
    ("1 kB", SIZE, 1000, "B"),
    ("1 KiB", SIZE, 1024, "B"),
    ("0.5KiB", SIZE, 512, "B"),
    ("34 GB/s", BANDWIDTH, 34 * 10**9, "B/s"),
    ("1 GiB/s", BANDWIDTH, 2**30, "B/s"),
    ("0.72 GB/s", BANDWIDTH, 720_000_000, "B/s"),
    ("16 B/cycle", BANDWIDTH, 16, "B/cycle"),
    ("2.5 B/cycle", BANDWIDTH, Fraction(5, 2), "B/cycle"),
    ("700 MHz", FREQUENCY, 700_000_000, "Hz"),
    ("1.05 GHz", FREQUENCY, 1_050_000_000, "Hz"),
    ("100 ns", DURATION, Fraction(1, 10**7), "s"),
    ("13.75 ns", DURATION, Fraction(1375, 10**11), "s"),
    ("20 cycles", DURATION, 20, "cycles"),
    ("1 cycle", DURATION, 1, "cycles"),
]


@pytest.mark.parametrize(("text", "kind", "amount", "unit"), WORKED)
def test_a_number_with_a_unit_is_exact(text, kind, amount, unit):
    quantity = parse_quantity(text, kind)
    assert (quantity.amount, quantity.unit) == (amount, unit)


@given(number=st.integers(0, 10**15 - 1), kind=st.sampled_from(KINDS), data=st.data())
def test_every_unit_multiplies_by_its_factor(number, kind, data):
    unit = data.draw(st.sampled_from(sorted(kind.units)))
    factor, base = kind.units[unit]
    for text in (f"{number} {unit}", f"{number}{unit}"):
        quantity = parse_quantity(text, kind)
        assert (quantity.amount, quantity.unit) == (number * factor, base)


@given(number=st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9, allow_nan=False))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_a_bare_number_is_refused_and_the_message_spells_it_with_a_unit(kind, number):
    unit = kind.example.split()[1]
    for value in (number, str(number) if isinstance(number, int) else number):
        with pytest.raises(ValueError, match="without a unit") as raised:
            parse_quantity(value, kind)
        assert f'write "{number} {unit}"' in str(raised.value)


@given(text=st.text(max_size=80))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_any_other_text_is_an_error_on_one_line(kind, text):
    assume(not any(character.isdigit() for character in text))
    with pytest.raises(ValueError, match=kind.what) as raised:
        parse_quantity(text, kind)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("24 mib", SIZE, 'did you mean "24 MiB"'),
        ("100 NS", DURATION, 'did you mean "100 ns"'),
        ("24 M", SIZE, "units: B, KB, MB, GB, KiB, MiB, GiB"),
        ("24 MHz", SIZE, "units: B, KB"),
        ("0.3 B", SIZE, "whole bytes"),
        ("-1 KiB", SIZE, "got"),
        ("1e3 B", SIZE, "got"),
        ("nan B", SIZE, "got"),
        ("9" * 400 + " B", SIZE, "got"),
        (True, SIZE, "got true"),
        ([1], SIZE, "got a list"),
        ({"a": 1}, SIZE, "got a table"),
        (None, SIZE, "got None"),
    ],
)
def test_what_is_wrong_is_said(text, kind, message):
    with pytest.raises(ValueError, match="expected") as raised:
        parse_quantity(text, kind)
    assert message in str(raised.value)


@given(value=st.text() | st.binary() | st.integers() | st.lists(st.integers()))
def test_shown_values_are_short_and_on_one_line(value):
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()
