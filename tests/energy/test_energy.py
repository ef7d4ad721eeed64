"""Energy adds up by component, is linear and monotone, and comes from published figures alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pysim.config import PRESETS, Accelerator
from pysim.energy import (
    ENERGY_TABLES,
    ActionCounts,
    BufferTraffic,
    energy,
    energy_table,
    frames_per_second,
    missing_figures,
    seconds,
)
from pysim.energy.tables import SizeCurve
from pysim.errors import ConfigError

KIB = 1024
COUNT = st.integers(0, 10**12)
U = 2.0**-53  # half an ulp of 1: the relative error of one rounding


@st.composite
def action_counts(draw):
    buffers = tuple(
        BufferTraffic(
            name=name,
            capacity_bytes=draw(st.integers(8 * KIB, 24 * KIB * KIB)),
            read_bytes=draw(COUNT),
            written_bytes=draw(COUNT),
        )
        for name in draw(st.sampled_from([(), ("input",), ("input", "weight", "output")]))
    )
    types = draw(st.sets(st.sampled_from(["int8", "int32", "fp16", "fp32"])))
    return ActionCounts(
        macs={kind: draw(COUNT) for kind in sorted(types)},
        gated_slots=draw(COUNT),
        register_bits_read=draw(COUNT),
        register_bits_written=draw(COUNT),
        buffers=buffers,
        dram_read_bytes=draw(COUNT),
        dram_written_bytes=draw(COUNT),
    )


DRAM = st.sampled_from(sorted(ENERGY_TABLES["45nm"].dram_byte))


def scaled(counts, factor):
    return dataclasses.replace(
        counts,
        macs={kind: factor * count for kind, count in counts.macs.items()},
        buffers=tuple(
            dataclasses.replace(b, read_bytes=factor * b.read_bytes, written_bytes=factor * b.written_bytes)
            for b in counts.buffers
        ),
        **{
            name: factor * getattr(counts, name)
            for name in (
                "gated_slots",
                "register_bits_read",
                "register_bits_written",
                "dram_read_bytes",
                "dram_written_bytes",
            )
        },
    )


def with_one_more(counts):
    """All counts that differ from these in one action more."""
    for kind in counts.macs:
        yield dataclasses.replace(counts, macs=dict(counts.macs) | {kind: counts.macs[kind] + 1})
    for field in dataclasses.fields(counts):
        if field.name not in ("macs", "buffers"):
            yield dataclasses.replace(counts, **{field.name: getattr(counts, field.name) + 1})
    for i, buffer in enumerate(counts.buffers):
        for name in ("read_bytes", "written_bytes"):
            more = dataclasses.replace(buffer, **{name: getattr(buffer, name) + 1})
            yield dataclasses.replace(counts, buffers=(*counts.buffers[:i], more, *counts.buffers[i + 1 :]))


@given(counts=action_counts(), dram=DRAM)
def test_the_total_is_the_sum_of_the_components(counts, dram):
    result = energy(counts, "45nm", dram)
    assert result.total == math.fsum(result.components.values())
    assert all(part >= 0 for part in result.components.values())
    assert len(result.components) == len(counts.macs) + 1 + 2 + 2 * len(counts.buffers) + 2


@given(counts=action_counts(), dram=DRAM, power=st.integers(0, 10))
def test_energy_is_linear(counts, dram, power):
    """Powers of two scale floats exactly, so no tolerance is needed."""
    one = energy(counts, "45nm", dram)
    many = energy(scaled(counts, 2**power), "45nm", dram)
    assert many.components == {name: 2**power * part for name, part in one.components.items()}
    assert many.total == 2**power * one.total


@given(counts=action_counts(), dram=DRAM, factor=st.integers(0, 1000))
def test_energy_is_linear_in_any_factor_within_rounding(counts, dram, factor):
    one = energy(counts, "45nm", dram).total
    many = energy(scaled(counts, factor), "45nm", dram).total
    # One rounding of each product and one of the sum, on both sides, and one of the product here: 5 U, and
    # one more U is far above what second-order terms can add.
    assert abs(many - factor * one) <= 6 * U * factor * one


@given(counts=action_counts(), dram=DRAM)
def test_one_action_more_never_costs_less(counts, dram):
    before = energy(counts, "45nm", dram)
    for more in with_one_more(counts):
        after = energy(more, "45nm", dram)
        assert all(after.components[name] >= part for name, part in before.components.items())
        assert after.total >= before.total


@given(counts=action_counts(), dram=DRAM)
def test_components_are_counted_apart(counts, dram):
    """Each component alone costs what it costs among the others."""
    whole = energy(counts, "45nm", dram).components
    alone = energy(ActionCounts(macs=counts.macs), "45nm").components
    assert all(whole[name] == part for name, part in alone.items() if name.startswith("MAC"))
    alone = energy(ActionCounts(buffers=counts.buffers), "45nm").components
    assert all(whole[name] == part for name, part in alone.items() if " buffer " in name)


def test_a_worked_example():
    """1000 int8 MACs, 64 KiB buffer, LPDDR4; with a pencil: 300 + 0.9 + 323 + 646 + 6400 pJ."""
    counts = ActionCounts(
        macs={"int8": 1000},
        gated_slots=500,
        register_bits_read=60,
        register_bits_written=40,
        buffers=(BufferTraffic(name="input", capacity_bytes=64 * KIB, read_bytes=100, written_bytes=200),),
        dram_read_bytes=75,
        dram_written_bytes=25,
    )
    result = energy(counts, "45nm", "LPDDR4")
    assert result.unit == "pJ"
    expected = {
        "MAC int8": 300,
        "gated slots": 0,
        "register read": 0.54,
        "register write": 0.36,
        "input buffer read": 323,
        "input buffer write": 646,
        "DRAM read": 4800,
        "DRAM write": 1600,
    }
    assert result.components == pytest.approx(expected, rel=1e-15)
    assert result.total == pytest.approx(7669.9, rel=1e-15)
    assert result.gated_slots == 500
    assert result.energy_delay(2.0) == 2 * result.total


def test_eyeriss_counts_in_macs_by_its_published_ratios():
    """A 16-bit word: register 1, global buffer 6, DRAM 200 MACs."""
    word = ActionCounts(
        macs={"int16": 1},
        register_bits_read=16,
        buffers=(BufferTraffic(name="global", capacity_bytes=108 * KIB, read_bytes=2),),
        dram_read_bytes=2,
    )
    result = energy(word, "eyeriss-relative", "DRAM")
    assert result.unit == "MAC equivalents"
    assert sorted(part for part in result.components.values() if part) == [1, 1, 6, 200]
    assert any("ratios" in note for note in result.notes)


PUBLISHED_KIB = {8: 0.77, 32: 2.13, 64: 3.23, 128: 4.04, 256: 4.85, 512: 6.33}
PUBLISHED_MIB = {1: 9.0, 4: 17.7, 8: 23.1, 24: 41.9}


def sram():
    curve = ENERGY_TABLES["45nm"].buffer_byte
    assert isinstance(curve, SizeCurve)
    return curve


def test_sram_is_what_cacti_says_at_its_points():
    for kib, value in PUBLISHED_KIB.items():
        assert sram().at(kib * KIB) == value
    for mib, value in PUBLISHED_MIB.items():
        assert sram().at(mib * KIB * KIB) == value


@given(sizes=st.tuples(*[st.integers(8 * KIB, 24 * KIB * KIB)] * 2))
def test_a_larger_buffer_never_costs_less_a_byte(sizes):
    small, large = sorted(sizes)
    assert sram().at(small) <= sram().at(large)


def test_between_two_points_the_curve_is_straight_in_log_log():
    # The geometric mean of sizes has the geometric mean of energies: 16 KiB between 8 and 32.
    assert sram().at(16 * KIB) == pytest.approx(math.sqrt(0.77 * 2.13), rel=1e-15)


@pytest.mark.parametrize("size", [1, 8 * KIB - 1, 24 * KIB * KIB + 1, 2**40])
def test_a_buffer_beyond_the_points_is_an_error_if_it_is_used(size):
    used = BufferTraffic(name="b", capacity_bytes=size, read_bytes=1)
    with pytest.raises(ConfigError, match="expected a buffer of 8 to 24576 KiB"):
        energy(ActionCounts(buffers=(used,)), "45nm")
    unused = dataclasses.replace(used, read_bytes=0)
    assert energy(ActionCounts(buffers=(unused,)), "45nm").total == 0


MISSING = [
    (ActionCounts(macs={"bf16": 1}), "45nm", None, "MACs of bf16, got none; it has int8, int32, fp16, fp32"),
    (ActionCounts(macs={"int16": 1}), "45nm", None, "MACs of int16"),
    (ActionCounts(macs={"int8": 1}), "eyeriss-relative", None, "MACs of int8, got none; it has int16"),
    (ActionCounts(register_bits_read=1), "7nm", None, "register bits"),
    (
        ActionCounts(buffers=(BufferTraffic(name="b", capacity_bytes=1, written_bytes=1),)),
        "7nm",
        None,
        "buffer",
    ),
    (ActionCounts(dram_read_bytes=1), "45nm", None, "off-chip bytes of no named kind of memory"),
    (ActionCounts(dram_written_bytes=1), "45nm", "DDR4", "off-chip bytes of DDR4, got none; it has DDR3"),
    (ActionCounts(dram_read_bytes=1), "eyeriss-relative", "DDR3", "off-chip bytes of DDR3"),
]


@pytest.mark.parametrize(
    ("counts", "technology", "dram", "message"), MISSING, ids=[m[3][:40] for m in MISSING]
)
def test_an_action_without_a_figure_is_an_error_that_names_it(counts, technology, dram, message):
    with pytest.raises(ConfigError) as raised:
        energy(counts, technology, dram)
    assert f"energy table {technology}: expected a figure for" in str(raised.value)
    assert message in str(raised.value)


def test_an_action_that_did_not_occur_needs_no_figure():
    for table in ENERGY_TABLES:
        assert energy(ActionCounts(macs={"bf16": 0}), table, "DDR9").total == 0


def test_every_figure_has_a_source_and_what_is_unsure_is_said_with_the_result():
    for table in ENERGY_TABLES.values():
        single = [table.gated_slot, table.register_bit, table.buffer_byte]
        for figure in (*table.macs.values(), *table.dram_byte.values(), *single):
            assert figure is None or figure.source
    hbm = energy(ActionCounts(dram_read_bytes=1), "45nm", "HBM2")
    assert any(note.startswith("unverified: off-chip bytes of HBM2") for note in hbm.notes)
    assert any(
        note.startswith("assumed: gated slots") for note in energy(ActionCounts(gated_slots=1), "7nm").notes
    )
    assert any("leakage" in note for note in hbm.notes)


def test_seven_nanometres_need_less_than_forty_five():
    old, new = energy_table("45nm"), energy_table("7nm")
    assert all(figure.value < old.macs[kind].value for kind, figure in new.macs.items())
    assert {figure.mark for figure in new.macs.values()} == {"unverified"}


def test_the_page_gives_the_figures_of_the_tables():
    page = (Path(__file__).parent.parent.parent / "docs" / "hardware.md").read_text()
    for table in ENERGY_TABLES.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{table.name}`"))
        for kind, figure in table.macs.items():
            assert f"{kind} {figure.value:g}" in row
        shown = page if table.name == "7nm" else row
        for kind, figure in table.dram_byte.items():
            if table.unit == "pJ":
                assert f"{kind} {figure.value / 8:g}" in shown


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(ConfigError, match="45nm, 7nm, eyeriss-relative") as raised:
        energy(ActionCounts(), "45 nm")
    assert raised.value.hint == "Did you mean 45nm?"


@pytest.mark.parametrize("value", [-1, 1.5, True, 2**63, None])
def test_counts_are_integers_that_are_not_negative(value):
    with pytest.raises(ConfigError, match="expected an integer"):
        ActionCounts(macs={"int8": value})
    with pytest.raises(ConfigError, match="gated_slots: expected an integer"):
        ActionCounts(gated_slots=value)
    with pytest.raises(ConfigError, match="buffer b: read_bytes"):
        BufferTraffic(name="b", capacity_bytes=1, read_bytes=value)
    with pytest.raises(ConfigError, match="capacity_bytes"):
        BufferTraffic(name="b", capacity_bytes=0)


def test_two_buffers_of_one_name_are_an_error():
    one = BufferTraffic(name="b", capacity_bytes=1)
    with pytest.raises(ConfigError, match="expected a name for each"):
        ActionCounts(buffers=(one, one))


def test_cycles_become_seconds_and_frames_by_the_clock():
    assert seconds(700, 700e6) == 1e-6
    assert frames_per_second(4, 1000, 1e9) == 4e6
    for clock in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="expected Hz above 0"):
            seconds(1, clock)
    with pytest.raises(ConfigError, match="cycles"):
        frames_per_second(1, 0, 1e9)
    with pytest.raises(ConfigError, match="seconds"):
        energy(ActionCounts(), "45nm").energy_delay(-1)


@given(cycles=st.integers(0, 10**15), clock=st.floats(1e3, 1e12))
def test_twice_the_clock_is_half_the_time(cycles, clock):
    assume(clock * 2 < math.inf)
    assert seconds(cycles, 2 * clock) * 2 == seconds(cycles, clock)


def test_presets_say_what_keeps_their_energy_from_being_known():
    missing = {name: missing_figures(hw) for name, hw in PRESETS.items()}
    assert missing["gemmini-16"] == missing["eyeriss"] == missing["edge-8"] == missing["tpu-v1"] == ()
    assert missing["scalesim-tpu"] == ("no technology is named",)
    assert missing["tpu-v4"] == ("MACs of bf16", "register bits", "buffer bytes")


def test_missing_figures_are_exactly_those_that_energy_refuses():
    """For each preset with a table: one of every action, on its own, works unless it is listed."""
    for hw in PRESETS.values():
        if hw.technology is None:
            continue
        listed = " ".join(missing_figures(hw))
        actions = {
            "MACs": ActionCounts(macs={hw.mac_type: 1}),
            "register": ActionCounts(register_bits_read=1),
            "off-chip": ActionCounts(dram_read_bytes=1),
            "buffer": ActionCounts(
                buffers=(BufferTraffic(name="w", capacity_bytes=hw.memory.weight_bytes, read_bytes=1),)
            ),
        }
        for word, counts in actions.items():
            try:
                energy(counts, hw.technology, hw.dram_type)
                works = True
            except ConfigError:
                works = False
            assert works == (word not in listed), (hw.name, word)


def test_a_buffer_beyond_the_points_is_listed_as_missing():
    hw = PRESETS["gemmini-16"]
    assert hw.memory is not None
    small = dataclasses.replace(hw, memory=dataclasses.replace(hw.memory, weight_bytes=1))
    assert len(missing_figures(small)) == 1
    bare = Accelerator(rows=1, cols=1, technology="45nm", mac_type="int8")
    assert missing_figures(bare) == ("traffic: the hardware has no memory",)
