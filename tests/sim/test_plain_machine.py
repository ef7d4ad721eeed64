"""The cycle engine does, on every instruction set, what plain stepping of the contract does, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import Accelerator, simulate_gemm
from pysim._core import _testing, isa_report
from pysim.config import Memory
from pysim.errors import ConfigError
from pysim.sim import simulate_layer
from pysim.sim.gemm import core_array, core_memory
from pysim.sim.mapping import Mapping
from pysim.workload import BlockGrid
from tests.sim.plain_machine import plain_run
from tests.sim.test_engines import MODES, each_mode

# "emulated16" is what AVX-512 runs, without AVX-512.
ISAS = [name for name, available, _ in isa_report() if available] + ["emulated16"]
# Nothing waits for this channel.
AMPLE = Memory(input_bytes=2**30, weight_bytes=2**30, output_bytes=2**30, bandwidth=None)


def drawn_operands(grid, n, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype == np.int8:
        return tuple(
            rng.integers(-128, 128, shape).astype(np.int8) for shape in ((grid.m, grid.k), (grid.k, n))
        )
    return tuple(rng.standard_normal(shape, dtype=np.float32) for shape in ((grid.m, grid.k), (grid.k, n)))


def run_on(isa, grid, mask, w, x, hw):
    fields = (grid.m, grid.k, grid.positions, grid.bh, grid.bw)
    return _testing.simulate_cycle_from(
        core_array(hw, grid, Mapping()), fields, mask, w, x, None, isa, core_memory(hw.memory)
    )


def assert_equal_to_plain(grid, mask, n, hw, dtype, seed):
    w, x = drawn_operands(grid, n, dtype, seed)
    plain = plain_run(grid, mask, w, x, hw)
    for isa in ISAS:
        counts, output = run_on(isa, grid, mask, w, x, hw)
        assert output.dtype == plain.output.dtype
        np.testing.assert_array_equal(output, plain.output, err_msg=isa)
        expected = (plain.cycles, plain.folds, plain.macs, plain.padded_macs)
        assert (counts.cycles, counts.folds, counts.macs, counts.padded_macs) == expected, isa
        counts, output = run_on(isa, grid, mask, w, x, replace(hw, memory=AMPLE))
        np.testing.assert_array_equal(output, plain.output, err_msg=isa)
        assert (counts.cycles, counts.folds, counts.macs, counts.padded_macs) == expected, isa
        assert_accesses_are_plain(counts.memory, plain, hw.dataflow)


def assert_accesses_are_plain(memory, plain, dataflow):
    """Those of the array; the channel reads every output of a strip or tile with folds, to write it out."""
    written = plain.output.size if dataflow == "is" and plain.folds else plain.outputs
    reads = (memory.weight_reads, memory.input_reads)
    pushed, streamed = reads[::-1] if dataflow == "is" else reads
    assert (pushed, streamed) == (plain.pushed_reads, plain.streamed_reads)
    assert memory.output_reads == plain.output_reads + written
    assert memory.output_writes == plain.output_writes


@each_mode
@settings(max_examples=25, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.int8]))
def test_every_instruction_set_steps_as_the_page_says(dataflow, skip, data, dtype):
    """Folds deeper and shallower than the array, so that rows repeat their tokens, idle, and change them."""
    positions = data.draw(st.sampled_from([1, 1, 2]))
    grid = BlockGrid(
        m=data.draw(st.integers(1, 16)),
        k=positions * data.draw(st.integers(1, 12)),
        positions=positions,
        bh=data.draw(st.integers(1, 4)),
        bw=data.draw(st.integers(1, 4)),
    )
    hw = Accelerator(
        rows=data.draw(st.integers(1, 5)),
        cols=data.draw(st.integers(1, 6)),
        dataflow=dataflow,
        skip=skip,
        pipelining=data.draw(st.sampled_from(["serial", "overlap"])),
        mux=data.draw(st.integers(1, 4)),
        group_cols=data.draw(st.none() | st.integers(1, 4)),
    )
    seed = data.draw(st.integers(0, 2**32 - 1))
    kept = data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    mask = np.random.default_rng(seed).random(grid.shape) < kept
    assert_equal_to_plain(grid, mask, data.draw(st.integers(1, 20)), hw, dtype, seed)


@each_mode
@pytest.mark.parametrize("cols", [17, 64, 65, 130])
def test_rows_of_several_vectors_and_token_words_step_as_the_page_says(dataflow, skip, cols):
    """Features fill the array's columns and three more, so that the last strip is mostly padding."""
    grid = BlockGrid(m=cols + 3 if dataflow != "is" else 9, k=7, bh=3, bw=2)
    mask = np.random.default_rng(cols).random(grid.shape) < 0.4
    hw = Accelerator(rows=3, cols=cols, dataflow=dataflow, skip=skip, group_cols=5)
    assert_equal_to_plain(grid, mask, cols + 3 if dataflow == "is" else 5, hw, np.float32, 0)


@each_mode
@pytest.mark.parametrize("isa", ISAS)
def test_arrays_of_several_token_words_count_what_the_event_engine_counts(dataflow, skip, isa):
    """Streams longer than the array is wide: rows of more than one word repeat their tokens."""
    grid = BlockGrid(m=200, k=180, bh=8, bw=4)
    mask = np.random.default_rng(1).random(grid.shape) < 0.3
    hw = Accelerator(rows=20, cols=80, dataflow=dataflow, skip=skip)
    rng = np.random.default_rng(2)
    w, x = (rng.integers(-8, 9, shape).astype(np.int8) for shape in ((200, 180), (180, 150)))
    counts, output = run_on(isa, grid, mask, w, x, hw)
    event = simulate_layer(grid, mask, 150, hw)
    assert (counts.cycles, counts.macs, counts.padded_macs) == (event.cycles, event.macs, event.padded_macs)
    np.testing.assert_array_equal(output, (w.astype(np.int64) * grid.expand(mask)) @ x.astype(np.int64))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_product_is_rounded_before_it_is_added(dataflow, isa):
    """(1 + 2**-12)**2 - (1 + 2**-11) is 2**-24, but 0 if the square is rounded first."""
    w = np.array([[-1, 1 + 2**-12]], np.float32)
    x = np.array([[1 + 2**-11], [1 + 2**-12]], np.float32)
    hw = Accelerator(rows=2, cols=1, dataflow=dataflow)
    grid = BlockGrid(m=1, k=2, bh=1, bw=1)
    _, output = run_on(isa, grid, np.ones((1, 2), bool), w, x, hw)
    assert output.tolist() == [[0.0]]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_int8_sums_wrap_in_32_bits(dataflow, isa):
    """2**17 products of 2**14 are 2**31: one more than an int32 holds."""
    w = np.full((1, 2**17), -128, np.int8)
    x = np.full((2**17, 1), -128, np.int8)
    hw = Accelerator(rows=64, cols=1, dataflow=dataflow)
    grid = BlockGrid(m=1, k=2**17, bh=1, bw=2**17)
    _, output = run_on(isa, grid, np.ones((1, 1), bool), w, x, hw)
    assert output.tolist() == [[-(2**31)]]


def test_the_environment_names_the_instruction_set(monkeypatch):
    w, x = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    hw = Accelerator(rows=2, cols=2)
    monkeypatch.setenv("PYSIM_ISA", "scalar")
    np.testing.assert_array_equal(
        simulate_gemm(w, x, block=(1, 1), accelerator=hw, engine="cycle").output, w @ x
    )
    monkeypatch.setenv("PYSIM_ISA", "sse9")
    with pytest.raises(ConfigError, match=r"PYSIM_ISA: expected one of scalar.*, got sse9"):
        simulate_gemm(w, x, block=(1, 1), accelerator=hw, engine="cycle")
    assert simulate_gemm(w, 2, block=(1, 1), accelerator=hw).macs == 8


@pytest.mark.parametrize(("dataflow", "skip"), [mode for mode in MODES if mode[1] == "none"])
def test_plain_stepping_can_see_a_wrong_start_rule(dataflow, skip, monkeypatch):
    """The reference is no echo: one fold a cycle too early, and it refuses."""
    from tests.sim import plain_machine

    grid = BlockGrid(m=7, k=10, bh=1, bw=1)
    w, x = drawn_operands(grid, 8, np.float32, 0)
    hw = Accelerator(rows=3, cols=2, dataflow=dataflow, skip=skip)
    right = plain_machine.starts_of
    plain_run(grid, np.ones((7, 10), bool), w, x, replace(hw))
    monkeypatch.setattr(
        plain_machine,
        "starts_of",
        lambda depths, hw: [(p - (f > 0), s - (f > 0)) for f, (p, s) in enumerate(right(depths, hw))],
    )
    with pytest.raises(AssertionError):
        plain_run(grid, np.ones((7, 10), bool), w, x, hw)
