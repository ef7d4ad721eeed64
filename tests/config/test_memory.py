"""No memory and no accelerator can exist whose numbers make no sense."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pysim.config import Accelerator, Dram, Memory
from pysim.errors import ConfigError

DRAM = Dram(banks=8, row_bytes=8192, t_cl=11, t_rcd=11, t_rp=11, t_rfc=208, t_refi=6240)
MEMORY = Memory(input_bytes=1, weight_bytes=1, output_bytes=1, bandwidth=1.0, dram=DRAM)

MEMORY_FIELDS = {
    "input_bytes": 1,
    "weight_bytes": 1,
    "output_bytes": 1,
    "latency": 0,
    "input_bits": 1,
    "weight_bits": 1,
    "output_bits": 1,
    "accumulator_bits": 1,
    "index_bits": 0,
}
DRAM_FIELDS = {"banks": 1, "row_bytes": 64, "burst_bytes": 1, "t_refi": 231} | dict.fromkeys(
    ("t_cl", "t_rcd", "t_rp", "t_rfc"), 0
)


def test_every_number_is_in_the_lists_of_this_test():
    assert {f.name for f in dataclasses.fields(Memory)} - {"bandwidth", "mode", "dram"} == set(MEMORY_FIELDS)
    assert {f.name for f in dataclasses.fields(Dram)} == set(DRAM_FIELDS)


@pytest.mark.parametrize(
    ("base", "field", "least"),
    [(MEMORY, *item) for item in MEMORY_FIELDS.items()] + [(DRAM, *item) for item in DRAM_FIELDS.items()],
)
def test_a_field_takes_its_least_value_and_nothing_below(base, field, least):
    assert getattr(dataclasses.replace(base, **{field: least}), field) == least
    for value in (least - 1, 2**62, 1.5, True, "1", None):
        with pytest.raises(ConfigError, match=rf"{field}: expected"):
            dataclasses.replace(base, **{field: value})


def test_bandwidth_is_positive_or_unlimited():
    assert dataclasses.replace(MEMORY, bandwidth=None).bandwidth is None
    assert dataclasses.replace(MEMORY, bandwidth=3).bandwidth == 3
    for value in (0, -1.0, math.nan, math.inf, True, "1"):
        with pytest.raises(ConfigError, match=r"memory\.bandwidth: expected 2\*\*-20 to"):
            dataclasses.replace(MEMORY, bandwidth=value)


def test_dram_rows_are_whole_bursts_and_refreshes_leave_time():
    with pytest.raises(ConfigError, match="expected a multiple of burst_bytes 64, got 8200"):
        dataclasses.replace(DRAM, row_bytes=8200)
    with pytest.raises(ConfigError, match=r"expected above t_rp \+ t_rfc \+ t_rcd = 230, got 230"):
        dataclasses.replace(DRAM, t_refi=230)


def test_the_mode_is_one_of_three_and_rowbuffer_needs_banks():
    assert dataclasses.replace(MEMORY, mode="rowbuffer").mode == "rowbuffer"
    with pytest.raises(ConfigError, match=r"memory\.mode: expected one of ideal, bandwidth, rowbuffer"):
        dataclasses.replace(MEMORY, mode="dram")
    with pytest.raises(ConfigError, match=r"memory\.dram: expected banks"):
        dataclasses.replace(MEMORY, mode="rowbuffer", dram=None)


def test_cores_clock_and_number_format_are_checked():
    base = Accelerator(rows=1, cols=1)
    for cores in (0, 1025, 1.0):
        with pytest.raises(ConfigError, match=r"accelerator\.cores: expected"):
            dataclasses.replace(base, cores=cores)
    for clock in (0, -1.0, math.nan, math.inf, "1 GHz"):
        with pytest.raises(ConfigError, match=r"accelerator\.clock_hz: expected Hz above 0"):
            dataclasses.replace(base, clock_hz=clock)
    with pytest.raises(ConfigError, match=r"accelerator\.mac_type: expected one of int8"):
        dataclasses.replace(base, mac_type="int4")
