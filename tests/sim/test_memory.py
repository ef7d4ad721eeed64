"""Memory: engines agree, nothing that should help ever hurts, and bytes and cycles add up."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysim import Accelerator, _core, simulate_gemm
from pysim.config import Memory
from pysim.errors import ConfigError, ShapeError
from pysim.sim import simulate_layer
from pysim.workload import ConvGeometry
from tests.sim.drawn import (
    AMPLE,
    BANDWIDTHS,
    assert_stepped_is,
    convolutions,
    each_mode,
    examples,
    layers,
    machines,
    run,
)


def cases(dataflow, skip):
    """Layer, machine and result, for machines that can run the layer."""

    @st.composite
    def drawn(draw):
        layer, hw = draw(layers()), draw(machines(dataflow, skip))
        result = run(layer, hw)
        assume(result is not None)
        return layer, hw, result

    return drawn()


@each_mode
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_engines_agree_on_every_figure(dataflow, skip, data):
    layer, hw, expected = data.draw(cases(dataflow, skip))
    assume(expected.cycles < 50_000)
    assert_stepped_is(layer, hw, expected)


@each_mode
@examples
@given(data=st.data())
def test_a_channel_without_limits_costs_no_cycle(dataflow, skip, data):
    layer, hw, _ = data.draw(cases(dataflow, skip))
    grid, mask, n, _, _ = layer
    alone = simulate_layer(grid, mask, n, dataclasses.replace(hw, memory=None))
    for free in (run(layer, hw, bandwidth=None, latency=0), run(layer, hw, mode="ideal")):
        assert (free.cycles, free.memory.stall_cycles) == (alone.cycles, 0)
        # With the ranges of positions apart, in as many cycles, there are more folds and fewer bytes.
        assert free.folds >= alone.folds
        # Cores that end before the last one may then take other cycles than alone.
        assert dataclasses.replace(free, memory=None, folds=alone.folds, cores=alone.cores) == alone


@each_mode
@examples
@given(data=st.data())
def test_more_bandwidth_never_costs_cycles(dataflow, skip, data):
    layer, hw, _ = data.draw(cases(dataflow, skip))
    cycles = [run(layer, hw, bandwidth=bandwidth).cycles for bandwidth in BANDWIDTHS]
    assert cycles == sorted(cycles, reverse=True)


@each_mode
@examples
@given(data=st.data())
def test_less_latency_never_costs_cycles(dataflow, skip, data):
    layer, hw, _ = data.draw(cases(dataflow, skip))
    cycles = [run(layer, hw, latency=latency).cycles for latency in (0, 1, 2, 5, 11, 30, 100)]
    assert cycles == sorted(cycles)


@each_mode
@examples
@given(data=st.data())
def test_a_larger_buffer_never_costs_cycles_and_is_never_refused(dataflow, skip, data):
    layer, hw, result = data.draw(cases(dataflow, skip))
    for field in ("input_bytes", "weight_bytes", "output_bytes"):
        before = result.cycles
        for factor in (1.1, 1.4, 2, 3, 4.5, 8, 40):
            grown = run(layer, hw, **{field: int(getattr(hw.memory, field) * factor) + 1})
            assert grown is not None
            assert grown.cycles <= before
            before = grown.cycles


@each_mode
@examples
@given(data=st.data())
def test_cycles_are_compute_plus_stalls_and_respect_the_channel(dataflow, skip, data):
    layer, hw, result = data.draw(cases(dataflow, skip))
    grid, mask, n, _, _ = layer
    memory = result.memory
    assert result.cycles == memory.compute_cycles + memory.stall_cycles
    alone = simulate_layer(grid, mask, n, dataclasses.replace(hw, memory=None)).cycles
    assert alone <= result.cycles
    if hw.cores == 1:
        # More only where a fold is cut into folds of one range of positions each.
        assert memory.compute_cycles >= alone
        if dataflow != "ws" or n <= 256:
            assert memory.compute_cycles == alone
    assert min(memory.stall_input_cycles, memory.stall_weight_cycles, memory.stall_output_cycles) >= 0
    if hw.memory.bandwidth is not None:
        assert result.cycles * hw.memory.bandwidth >= memory.total_bytes


@each_mode
@examples
@given(data=st.data())
def test_kept_weights_are_read_outputs_written_and_spilled_sums_come_back(dataflow, skip, data):
    layer, hw, result = data.draw(cases(dataflow, skip))
    grid, mask, n, _, _ = layer
    sizes, memory = grid.sizes(), result.memory
    assert memory.weight_bytes * 8 >= sizes[mask].sum() * hw.memory.weight_bits
    assert memory.index_bytes * 8 >= (mask.sum() + grid.shape[0] + 1) * hw.memory.index_bits
    assert memory.output_bytes * 8 >= grid.m * n * hw.memory.output_bits
    assert memory.spill_bytes == memory.reload_bytes
    if hw.memory.output_bits == 8:
        assert memory.output_bytes == grid.m * n
    assert memory.weight_writes >= sizes[mask].sum()
    assert memory.weight_reads >= sizes[mask].sum()
    sums = memory.output_reads + memory.output_writes
    assert (sums == 0) == (result.folds == 0)


@each_mode
@examples
@given(data=st.data())
def test_what_fits_is_fetched_once(dataflow, skip, data):
    layer, hw = data.draw(layers()), dataclasses.replace(data.draw(machines(dataflow, skip)), cores=1)
    grid, mask, n, conv, _ = layer
    ample = dict.fromkeys(("input_bytes", "weight_bytes", "output_bytes"), AMPLE)
    memory = run(layer, hw, **ample, input_bits=8, weight_bits=8, index_bits=8).memory
    assert memory.weight_bytes == grid.sizes()[mask].sum()
    assert memory.spill_bytes == 0
    if conv is None:
        needed = (
            grid.expand(mask).any(axis=0) if skip in ("gather", "group", "mux") else np.ones(grid.k, bool)
        )
        if skip == "none" or (dataflow != "is" and skip != "tile"):
            assert memory.input_bytes == needed.sum() * n
        assert memory.input_bytes <= grid.k * n


@pytest.mark.parametrize("name", ["input_bytes", "weight_bytes", "output_bytes"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_buffer_that_is_too_small_is_named_with_what_it_needs(dataflow, name):
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=AMPLE, bandwidth=1.0)
    hw = Accelerator(rows=3, cols=2, dataflow=dataflow, memory=dataclasses.replace(memory, **{name: 1}))
    with pytest.raises(
        ConfigError, match=rf"memory {name}: expected at least \d+ for this layer, got 1"
    ) as e:
        simulate_gemm(np.ones((4, 6)), 5, block=(2, 2), accelerator=hw)
    needed = int(str(e.value).split("at least ")[1].split()[0])
    for size, fits in ((needed, True), (needed - 1, False)):
        machine = dataclasses.replace(hw, memory=dataclasses.replace(memory, **{name: size}))
        if fits:
            simulate_gemm(np.ones((4, 6)), 5, block=(2, 2), accelerator=machine)
        else:
            with pytest.raises(ConfigError, match=name):
                simulate_gemm(np.ones((4, 6)), 5, block=(2, 2), accelerator=machine)


def plain_pixels(conv, begin, end):
    """Distinct (image, row, column) that outputs begin to end - 1 read, by listing them."""
    seen = set()
    for position in range(begin, end):
        image, rest = divmod(position, conv.out_height * conv.out_width)
        row, column = divmod(rest, conv.out_width)
        for y, x in itertools.product(range(conv.kernel[0]), range(conv.kernel[1])):
            at_y = row * conv.stride[0] - conv.padding[0] + y * conv.dilation[0]
            at_x = column * conv.stride[1] - conv.padding[1] + x * conv.dilation[1]
            if 0 <= at_y < conv.height and 0 <= at_x < conv.width:
                seen.add((image, at_y, at_x))
    return len(seen)


@settings(max_examples=200, deadline=None)
@given(conv=convolutions(), data=st.data())
def test_pixels_of_a_range_of_outputs_are_counted_once(conv, data):
    n = 3 * conv.out_height * conv.out_width
    begin = data.draw(st.integers(0, n - 1))
    end = data.draw(st.integers(begin + 1, n))
    shape = (conv.height, conv.width, conv.out_height, conv.out_width)
    fields = (*shape, *conv.kernel, *conv.stride, *conv.padding, *conv.dilation)
    assert _core._testing.distinct_pixels(fields, begin, end) == plain_pixels(conv, begin, end)


def test_a_convolution_fetches_a_pixel_once_and_a_plain_product_once_per_kernel_position():
    conv = ConvGeometry(
        batch=2,
        in_channels=5,
        height=6,
        width=7,
        out_height=6,
        out_width=7,
        kernel=(3, 3),
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
    )
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=AMPLE, bandwidth=8.0)
    hw = Accelerator(rows=4, cols=4, dataflow="ws", memory=memory)
    w = np.ones((8, 45), np.float32)
    sizes = {"block": (2, 2), "positions": 9, "accelerator": hw}
    assert simulate_gemm(w, 84, **sizes, conv=conv).memory.input_bytes == 2 * 5 * 6 * 7
    assert simulate_gemm(w, 84, **sizes).memory.input_bytes == 45 * 84
    with pytest.raises(ShapeError, match="convolution: expected 9 kernel positions and 83 output positions"):
        simulate_gemm(w, 83, **sizes, conv=conv)


@pytest.mark.parametrize("engine", ["event", "cycle"])
def test_an_input_on_a_later_multiplexer_line_is_read_even_where_the_first_line_is_idle(engine):
    """Two features keep element 2, one keeps elements 0 and 1: one slot, in which the narrower column comes
    first. Its lanes carry (2, 0) and (-, 1): three inputs a position."""
    w = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]], np.float32)
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=AMPLE, bandwidth=8.0)
    hw = Accelerator(rows=1, cols=3, dataflow="ws", skip="mux", memory=memory)
    x = np.ones((3, 5), np.float32)
    found = simulate_gemm(w, x, block=(1, 2), accelerator=hw, engine=engine).memory
    assert (found.input_reads, found.weight_reads) == (15, 4)


def test_partial_sums_that_do_not_fit_are_written_out_and_read_back():
    """512 positions are two ranges of 256, and K is two folds. With room for one range's sums, both ranges'
    first sums leave, 2 * 256 words of 4 bytes, and come back. Serial folds of one range would cost cycles."""
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=256 * 4, bandwidth=None)
    hw = Accelerator(rows=4, cols=1, dataflow="ws", pipelining="serial", memory=memory)
    result = simulate_gemm(np.ones((1, 8)), 512, block=(1, 1), accelerator=hw)
    assert (result.folds, result.memory.spill_bytes, result.memory.reload_bytes) == (2, 2048, 2048)
    assert result.memory.output_bytes == 512
    roomy = dataclasses.replace(hw, memory=dataclasses.replace(memory, output_bytes=512 * 4))
    assert simulate_gemm(np.ones((1, 8)), 512, block=(1, 1), accelerator=roomy).memory.spill_bytes == 0


def test_ranges_of_positions_are_taken_one_after_the_other_where_that_saves_spills():
    """The same layer overlapped: four folds of 256 take as many array cycles as two of 512; no sum leaves."""
    memory = Memory(input_bytes=AMPLE, weight_bytes=AMPLE, output_bytes=256 * 4, bandwidth=8.0)
    hw = Accelerator(rows=4, cols=1, dataflow="ws", memory=memory)
    result = simulate_gemm(np.ones((1, 8)), 512, block=(1, 1), accelerator=hw)
    assert (result.folds, result.memory.spill_bytes) == (4, 0)
    assert result.memory.compute_cycles == 4 + 2 * 512 + 4 + 1 - 2
    # Weights are read from off chip once, from their buffer once a range.
    assert (result.memory.weight_writes, result.memory.weight_reads) == (8, 16)


@pytest.mark.parametrize("engine", ["event", "cycle"])
def test_the_example_of_the_machine_page_worked_by_hand(engine):
    """W 2 x 4, X 4 x 3, 2 x 2 PEs, ws, 2 bytes a cycle, all operands one byte, sums four, indices four.

    Channel: row pointers 8 bytes 0-4, weights of fold 0 4 + 4 bytes 4-8, its inputs 6 bytes 8-11, weights of
    fold 1 11-15, its inputs 15-18, outputs 6 bytes, three cycles.
    Array: preload waits 0-8 (8 weight stalls). Array cycle 2, the stream, would be machine cycle 10: inputs
    arrive at 11, 1 input stall. Fold 1's preload is array cycle 3, machine cycle 12: waits to 15, 3 weight
    stalls. Its stream is array cycle 5, machine cycle 17: inputs at 18, 1 input stall. Array cycle 10 ends at
    machine cycle 23, outputs take until 26: 3 output stalls.
    """
    w = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    memory = Memory(input_bytes=64, weight_bytes=64, output_bytes=64, bandwidth=2.0)
    hw = Accelerator(rows=2, cols=2, dataflow="ws", memory=memory)
    result = simulate_gemm(w, x, block=(2, 2), accelerator=hw, engine=engine)
    found = result.memory
    assert (result.cycles, found.compute_cycles) == (26, 10)
    assert (found.stall_weight_cycles, found.stall_input_cycles, found.stall_output_cycles) == (11, 2, 3)
    assert (found.input_bytes, found.weight_bytes, found.index_bytes, found.output_bytes) == (12, 8, 16, 6)
    # Fold 1 adds to fold 0's six sums, and all six are read again to be written out.
    assert (found.input_reads, found.weight_reads) == (12, 8)
    assert (found.output_reads, found.output_writes) == (6 + 6, 12)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_outputs_of_an_empty_layer_are_written_all_the_same(dataflow):
    memory = Memory(input_bytes=1, weight_bytes=1, output_bytes=1, bandwidth=4.0, index_bits=16)
    hw = Accelerator(rows=2, cols=2, dataflow=dataflow, skip="gather", memory=memory)
    result = simulate_gemm(np.zeros((6, 4)), 5, block=(2, 2), accelerator=hw)
    assert (result.folds, result.memory.compute_cycles, result.memory.output_bytes) == (0, 0, 30)
    assert result.cycles >= (30 + 8) / 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_bytes", 0),
        ("weight_bytes", 1.5),
        ("output_bytes", 2**50),
        ("bandwidth", 0.0),
        ("bandwidth", float("nan")),
        ("bandwidth", True),
        ("bandwidth", 2.0**50),
        ("latency", -1),
        ("mode", "fast"),
        ("mode", "rowbuffer"),
        ("input_bits", 0),
        ("index_bits", 65),
    ],
)
def test_a_memory_field_out_of_range_is_refused_by_name(field, value):
    good = Memory(input_bytes=64, weight_bytes=64, output_bytes=64, bandwidth=2.0)
    with pytest.raises(ConfigError, match=rf"memory\.({field}|dram): expected "):
        dataclasses.replace(good, **{field: value})
