"""Both engines on drawn layers agree with each other, with W @ X and with a plain model of the contract."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import Accelerator, simulate_gemm
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

MODES = [
    (dataflow, skip)
    for dataflow in ("ws", "os", "is")
    for skip in ("none", "tile", "gather", "group", "mux")
    if Accelerator(rows=1, cols=1, dataflow=dataflow).allowed_skips().count(skip)
]
each_mode = pytest.mark.parametrize(("dataflow", "skip"), MODES)
examples = settings(max_examples=40, deadline=None)


@st.composite
def layers(draw):
    """(grid, mask, n, seed): ragged edges, several kernel positions, from nothing kept to everything."""
    positions = draw(st.sampled_from([1, 1, 2, 4, 9]))
    channels = draw(st.integers(1, 24 if positions == 1 else 7))
    grid = BlockGrid(
        m=draw(st.integers(1, 20)),
        k=positions * channels,
        positions=positions,
        bh=draw(st.integers(1, 6)),
        bw=draw(st.integers(1, 6)),
    )
    seed = draw(st.integers(0, 2**32 - 1))
    kept = draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]))
    mask = np.random.default_rng(seed).random(grid.shape) < kept
    return grid, mask, draw(st.integers(1, 20)), seed


@st.composite
def arrays(draw, dataflow, skip):
    """An accelerator of at most 7 x 7 PEs."""
    return Accelerator(
        rows=draw(st.integers(1, 7)),
        cols=draw(st.integers(1, 7)),
        dataflow=dataflow,
        skip=skip,
        pipelining=draw(st.sampled_from(["serial", "overlap"])),
        mux=draw(st.integers(1, 4)),
        group_cols=draw(st.none() | st.integers(1, 8)),
    )


def operands(layer, dtype):
    """Integer-valued W and X; the pruned blocks of W hold nonzero weights that must not count."""
    grid, _, n, seed = layer
    rng = np.random.default_rng(seed)
    w = rng.integers(1, 9, (grid.m, grid.k)) * rng.choice([-1, 1], (grid.m, grid.k))
    return w.astype(dtype), rng.integers(-8, 9, (grid.k, n)).astype(dtype)


def run_cycle(layer, hw, dtype=np.float32):
    grid, mask, _, _ = layer
    w, x = operands(layer, dtype)
    return simulate_gemm(
        w,
        x,
        block=(grid.bh, grid.bw),
        accelerator=hw,
        engine="cycle",
        mask=mask,
        positions=grid.positions,
    )


@each_mode
@examples
@given(data=st.data())
def test_engines_agree_on_every_figure(dataflow, skip, data):
    layer, hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    grid, mask, n, _ = layer
    assert run_cycle(layer, hw) == simulate_layer(grid, mask, n, hw)


@each_mode
@examples
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.int8]))
def test_cycle_engine_computes_the_product_exactly(dataflow, skip, data, dtype):
    """Sums of integers below 2**24 are exact in float32, so no tolerance is needed."""
    layer, hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    grid, mask, _, _ = layer
    w, x = operands(layer, dtype)
    output = run_cycle(layer, hw, dtype).output
    assert output.dtype == (np.float32 if dtype == np.float32 else np.int32)
    expected = (w.astype(np.int64) * grid.expand(mask)) @ x.astype(np.int64)
    np.testing.assert_array_equal(output, expected)


def test_cycle_engine_rounds_like_float32_sums_in_lane_order():
    """Output stationary sums one product after the other: the reference does the same, one rounding each."""
    rng = np.random.default_rng(7)
    w = rng.standard_normal((5, 40), dtype=np.float32)
    x = rng.standard_normal((40, 6), dtype=np.float32)
    expected = np.zeros((5, 6), np.float32)
    for k in range(40):
        expected += np.multiply.outer(w[:, k], x[k])
    hw = Accelerator(rows=4, cols=3, dataflow="os")
    result = simulate_gemm(w, x, block=(1, 1), accelerator=hw, engine="cycle")
    np.testing.assert_array_equal(result.output, expected)


@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_cycle_engine_adds_folds_in_order_to_sums_taken_down_the_rows(dataflow):
    rng = np.random.default_rng(8)
    w = rng.standard_normal((5, 10), dtype=np.float32)
    x = rng.standard_normal((10, 6), dtype=np.float32)
    expected = np.zeros((5, 6), np.float32)
    for begin in range(0, 10, 4):
        fold = np.zeros((5, 6), np.float32)
        for k in range(begin, min(10, begin + 4)):
            fold += np.multiply.outer(w[:, k], x[k])
        expected += fold
    hw = Accelerator(rows=4, cols=3, dataflow=dataflow)
    result = simulate_gemm(w, x, block=(1, 1), accelerator=hw, engine="cycle")
    np.testing.assert_array_equal(result.output, expected)


def test_int8_sums_use_the_whole_range_of_the_operands():
    w = np.full((3, 300), -128, np.int8)
    x = np.full((300, 2), -128, np.int8)
    for dataflow in ("ws", "os", "is"):
        hw = Accelerator(rows=4, cols=4, dataflow=dataflow)
        result = simulate_gemm(w, x, block=(1, 1), accelerator=hw, engine="cycle")
        np.testing.assert_array_equal(result.output, np.full((3, 2), 300 * 128 * 128, np.int32))


def chunks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def pack(grid, mask, features, mux):
    """Lanes of the slots that greedy column combining makes, each a list of reduction elements."""
    rows = sorted({m // grid.bh for m in features})
    columns = sorted(range(grid.shape[1]), key=lambda j: -mask[rows, j].sum())
    slots = []
    for j in columns:
        if not mask[rows, j].any():
            continue
        for slot in slots:
            if len(slot) < mux and not any((mask[rows, j] & mask[rows, other]).any() for other in slot):
                slot.append(j)
                break
        else:
            slots.append([j])
    return [lane for slot in slots for lane in range(max(np.diff(grid.col_edges)[j] for j in slot))]


def plain_folds(grid, mask, n, hw):
    """[(depth, MACs)] of every fold, element by element from the definitions of docs/machine.md."""
    kept = grid.expand(mask)
    everything, elements = list(range(grid.m)), list(range(grid.k))
    if hw.dataflow == "is":
        folds = []
        for positions, tile in itertools.product(chunks(list(range(n)), hw.cols), chunks(elements, hw.rows)):
            features = everything
            if hw.skip == "gather":
                features = [m for m in everything if kept[m, tile].any()]
            if hw.skip == "tile" and not kept[:, tile].any():
                features = []
            folds.append((len(features), len(features) * len(tile) * len(positions)))
        return [fold for fold in folds if fold[0]]

    folds = []
    for strip in chunks(everything, hw.cols):
        groups = chunks(strip, hw.group_cols_for(grid.bh)) if hw.skip == "group" else [strip]
        feeds = []
        for group in groups:
            lanes = elements
            if hw.skip == "tile":
                size = grid.k if hw.dataflow == "os" else hw.rows
                lanes = [k for chunk in chunks(elements, size) if kept[group][:, chunk].any() for k in chunk]
            elif hw.skip in ("gather", "group"):
                lanes = [k for k in elements if kept[group, k].any()]
            elif hw.skip == "mux":
                lanes = pack(grid, mask, group, hw.mux)
            feeds.append((len(group), len(lanes)))
        longest = max(lanes for _, lanes in feeds)
        if hw.dataflow == "os":
            for positions in chunks(list(range(n)), hw.rows):
                macs = sum(features * lanes * len(positions) for features, lanes in feeds)
                folds.append((longest, macs))
        else:
            for begin in range(0, longest, hw.rows):
                held = sum(features * max(0, min(lanes - begin, hw.rows)) for features, lanes in feeds)
                folds.append((n, held * n))
    return [fold for fold in folds if fold[1]]


def plain_cycles(depths, hw):
    """The sums of docs/machine.md, one fold after the other."""
    rows, cols = hw.rows, hw.cols
    if not depths:
        return 0
    if hw.pipelining == "serial":
        return sum(2 * rows + cols + depth - 2 for depth in depths)
    if hw.dataflow == "os":
        gaps = sum(a + max(0, rows - b) for a, b in itertools.pairwise(depths))
        return gaps + depths[-1] + 2 * rows + cols - 2
    return rows + sum(max(depth, rows) for depth in depths[:-1]) + depths[-1] + rows + cols - 2


@each_mode
@examples
@given(data=st.data())
def test_counts_equal_a_plain_model_of_the_contract(dataflow, skip, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    folds = plain_folds(grid, mask, n, hw)
    depths = [depth for depth, _ in folds]
    result = simulate_layer(grid, mask, n, hw)
    assert result.folds == len(folds)
    assert result.cycles == plain_cycles(depths, hw)
    assert result.macs == sum(macs for _, macs in folds)
    assert result.macs + result.padded_macs == hw.rows * hw.cols * sum(depths)
    assert result.kept_macs == grid.sizes()[mask].sum() * n


@each_mode
@examples
@given(data=st.data())
def test_performed_and_skipped_macs_add_up_to_m_k_n(dataflow, skip, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    result = simulate_layer(grid, mask, n, hw)
    assert result.macs + result.skipped_macs == grid.m * grid.k * n
    assert result.kept_macs <= result.macs
    assert result.padded_macs >= 0
    assert 0 <= result.utilization <= 1


@each_mode
@examples
@given(data=st.data())
def test_overlap_is_never_slower_than_serial(dataflow, skip, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    overlap, serial = (
        simulate_layer(grid, mask, n, dataclasses.replace(hw, pipelining=mode))
        for mode in ("overlap", "serial")
    )
    assert overlap.cycles <= serial.cycles
    assert dataclasses.replace(overlap, cycles=0, utilization=0, cores=()) == dataclasses.replace(
        serial, cycles=0, utilization=0, cores=()
    )


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@examples
@given(data=st.data())
def test_a_more_elaborate_skip_never_costs_cycles(dataflow, data):
    """none >= tile >= gather >= group, and gather >= mux. group and mux are not ordered."""
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, "none"))
    cycles = {
        skip: simulate_layer(grid, mask, n, dataclasses.replace(hw, skip=skip)).cycles
        for skip in hw.allowed_skips()
    }
    assert cycles["none"] >= cycles["tile"] >= cycles["gather"]
    if dataflow != "is":
        assert cycles["gather"] >= cycles["group"]
        assert cycles["gather"] >= cycles["mux"]


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@examples
@given(data=st.data())
def test_groups_cut_into_narrower_groups_never_cost_cycles(dataflow, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, "group"))
    narrow, times = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    wide, cut = (
        simulate_layer(grid, mask, n, dataclasses.replace(hw, group_cols=cols)).cycles
        for cols in (narrow * times, narrow)
    )
    assert cut <= wide


@pytest.mark.parametrize(("dataflow", "skip"), [mode for mode in MODES if mode[1] != "mux"])
@examples
@given(data=st.data())
def test_pruning_one_more_block_never_costs_cycles(dataflow, skip, data):
    """Not so for mux: the greedy packing may place the columns that are left less well."""
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    fewer = mask.copy()
    fewer.flat[data.draw(st.integers(0, mask.size - 1))] = False
    assert simulate_layer(grid, fewer, n, hw).cycles <= simulate_layer(grid, mask, n, hw).cycles


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@examples
@given(data=st.data())
def test_mux_of_one_input_costs_what_gather_costs(dataflow, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, "mux"))
    mux = simulate_layer(grid, mask, n, dataclasses.replace(hw, mux=1))
    assert mux == simulate_layer(grid, mask, n, dataclasses.replace(hw, skip="gather"))


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@examples
@given(data=st.data())
def test_a_group_as_wide_as_the_array_costs_what_gather_costs(dataflow, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, "group"))
    group = simulate_layer(grid, mask, n, dataclasses.replace(hw, group_cols=hw.cols))
    assert group == simulate_layer(grid, mask, n, dataclasses.replace(hw, skip="gather"))


@each_mode
def test_a_layer_with_nothing_kept_costs_nothing_unless_nothing_is_skipped(dataflow, skip):
    w = np.zeros((6, 6), np.float32)
    x = np.ones((6, 5), np.float32)
    hw = Accelerator(rows=2, cols=3, dataflow=dataflow, skip=skip)
    result = simulate_gemm(w, x, block=(2, 2), accelerator=hw, engine="cycle")
    assert not result.output.any()
    assert result == simulate_gemm(w, x, block=(2, 2), accelerator=hw)
    if skip == "none":
        assert (result.macs, result.skipped_macs) == (6 * 6 * 5, 0)
    else:
        assert (result.cycles, result.folds, result.utilization) == (0, 0, 0.0)
        assert result.skipped_macs == 6 * 6 * 5


@each_mode
@examples
@given(data=st.data())
def test_a_dense_layer_costs_the_same_under_every_skip(dataflow, skip, data):
    (grid, mask, n, _), hw = data.draw(layers()), data.draw(arrays(dataflow, skip))
    dense = np.ones_like(mask)
    none = simulate_layer(grid, dense, n, dataclasses.replace(hw, skip="none"))
    assert simulate_layer(grid, dense, n, hw) == none


def test_mask_overrides_zero_weights():
    w = np.zeros((4, 4), np.float32)
    hw = Accelerator(rows=2, cols=2, skip="gather")
    kept = simulate_gemm(w, 3, block=(2, 2), accelerator=hw, mask=np.ones((2, 2), bool))
    assert kept.macs == 4 * 4 * 3
    assert simulate_gemm(w, 3, block=(2, 2), accelerator=hw).macs == 0


def test_strided_and_transposed_operands_give_the_same_output():
    rng = np.random.default_rng(3)
    w = np.asfortranarray(rng.integers(-4, 5, (6, 8)).astype(np.float32))
    x = rng.integers(-4, 5, (10, 8)).astype(np.float32).T[:, ::2]
    hw = Accelerator(rows=3, cols=3)
    result = simulate_gemm(w, x, block=(2, 2), accelerator=hw, engine="cycle")
    np.testing.assert_array_equal(result.output, w @ x)


def test_event_engine_takes_no_longer_for_more_positions():
    """A layer of 10^15 MACs: only a count that does not step through them comes back."""
    grid = BlockGrid(m=1000, k=1000, bh=10, bw=10)
    hw = Accelerator(rows=16, cols=16, dataflow="is")
    result = simulate_layer(grid, np.ones((100, 100), bool), 10**9, hw)
    assert result.macs == 10**15
    assert result.folds == 63 * 10**9 // 16
