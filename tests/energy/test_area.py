"""Area adds up by component from published figures."""

from __future__ import annotations

import dataclasses

import pytest

from pysim.config import PRESETS, Accelerator
from pysim.energy import area, register_bits_per_pe
from pysim.errors import ConfigError

HW = PRESETS["gemmini-16"]


def changed(memory=None, **fields):
    return dataclasses.replace(HW, memory=dataclasses.replace(HW.memory, **(memory or {})), **fields)


@pytest.mark.parametrize(("dataflow", "bits"), [("ws", 40 + 24), ("is", 40 + 24), ("os", 8 + 8 + 96)])
def test_a_pe_has_the_registers_of_the_machine_page(dataflow, bits):
    assert register_bits_per_pe(changed(dataflow=dataflow)) == bits


def test_the_held_operand_has_three_registers():
    narrow = {"weight_bits": 2, "input_bits": 16, "accumulator_bits": 20}
    assert register_bits_per_pe(changed(narrow, dataflow="ws")) == 16 + 3 * 2 + 20
    assert register_bits_per_pe(changed(narrow, dataflow="is")) == 2 + 3 * 16 + 20


def test_a_worked_example():
    """16 x 16 PEs with 64 register bits; buffers of 256, 256 and 64 KiB."""
    sizes = {"input_bytes": 2**18, "weight_bytes": 2**18, "output_bytes": 2**16}
    result = area(changed(sizes))
    expected = {
        "multipliers": 256 * 282e-6,
        "accumulators": 256 * 137e-6,
        "registers": 256 * 64 * 5.98e-6,
        "input buffer": 0.839,
        "weight buffer": 0.839,
        "output buffer": 0.209,
    }
    assert result.components == pytest.approx(expected, rel=1e-15)
    assert result.total == pytest.approx(sum(expected.values()), rel=1e-15)


def test_cores_multiply_everything():
    one, four = area(changed()), area(changed(cores=4))
    assert four.components == {name: 4 * part for name, part in one.components.items()}


def test_what_has_no_published_area_is_an_error():
    with pytest.raises(ConfigError, match="expected operand widths"):
        area(Accelerator(rows=1, cols=1))
    with pytest.raises(ConfigError, match="expected int8 MACs"):
        area(changed(mac_type="fp16"))
    with pytest.raises(ConfigError, match="expected int8 MACs"):
        area(changed({"accumulator_bits": 16}))
    with pytest.raises(ConfigError, match="expected a buffer of 64 to 4096 KiB, got 32 KiB"):
        area(changed({"weight_bytes": 2**15}))
