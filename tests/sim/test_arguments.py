"""What the accelerator and the simulation refuse, and how they say it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import Accelerator, _core, simulate_gemm
from pysim.config import PRESETS, load_accelerator
from pysim.errors import ConfigError, ShapeError
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

HW = Accelerator(rows=4, cols=4)
W = np.ones((6, 8), np.float32)
X = np.ones((8, 5), np.float32)


@pytest.mark.parametrize("skip", ["group", "mux"])
def test_input_stationary_has_no_group_and_no_mux(skip):
    with pytest.raises(ConfigError, match=f"expected one of none, tile, gather with dataflow is, got {skip}"):
        Accelerator(rows=4, cols=4, dataflow="is", skip=skip)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 0),
        ("rows", 65537),
        ("cols", -1),
        ("cols", 2.5),
        ("rows", True),
        ("mux", 0),
        ("mux", 1025),
        ("group_cols", 0),
        ("cores", 0),
        ("cores", 1025),
        ("reorder", 1),
        ("memory", 64),
        ("dataflow", "rs"),
        ("dataflow", None),
        ("skip", "all"),
        ("pipelining", "fast"),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"accelerator\.{field}: expected .*, got "):
        dataclasses.replace(HW, **{field: value})


def test_accelerator_is_frozen_and_replaceable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HW.rows = 8  # type: ignore[misc]
    assert dataclasses.replace(HW, skip="gather") == Accelerator(rows=4, cols=4, skip="gather")


def test_allowed_skips_are_exactly_those_that_can_be_built():
    for dataflow in ("ws", "os", "is"):
        base = dataclasses.replace(HW, dataflow=dataflow)
        assert base.allowed_skips()[:3] == ("none", "tile", "gather")
        for skip in base.allowed_skips():
            assert dataclasses.replace(base, skip=skip).skip == skip


def test_every_preset_loads_under_its_own_name():
    for name, hw in PRESETS.items():
        assert load_accelerator(name) is hw
        assert hw.name == name
        assert hw.skip == "none"


def test_an_unknown_preset_names_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError, match="edge-8, eyeriss, gemmini-16") as raised:
        load_accelerator("gemini-16")
    assert raised.value.hint == "Did you mean gemmini-16?"


@pytest.mark.parametrize("engine", ["event", "cycle"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"w": np.ones(8, np.float32)}, ShapeError, r"weights: expected shape \(M, K\)"),
        ({"w": np.ones((0, 8), np.float32)}, ConfigError, "m of at least 1"),
        ({"x": np.ones((7, 5), np.float32)}, ShapeError, r"inputs: expected shape \(8, N\)"),
        ({"x": np.ones(8, np.float32)}, ShapeError, r"inputs: expected shape \(8, N\)"),
        ({"x": np.ones((8, 0), np.float32)}, ShapeError, "N of at least 1"),
        ({"mask": np.ones((3, 3), bool)}, ShapeError, r"block mask: expected bool \(3, 4\)"),
        ({"mask": np.ones((3, 4), np.uint8)}, ShapeError, r"block mask: expected bool \(3, 4\)"),
        ({"positions": 3}, ConfigError, "multiple of 3 kernel positions, got 8"),
        ({"positions": 0}, ConfigError, "positions: expected an integer of at least 1"),
        ({"block": (0, 2)}, ConfigError, "block height: expected an integer of at least 1"),
        ({"block": 2}, ConfigError, r"block: expected \(height, width\), got 2"),
    ],
)
def test_a_bad_argument_is_refused_with_what_was_expected(engine, arguments, error, message):
    good = {"w": W, "x": X, "block": (2, 2), "accelerator": HW, "engine": engine}
    merged = good | arguments
    with pytest.raises(error, match=message):
        simulate_gemm(merged.pop("w"), merged.pop("x"), **merged)


@pytest.mark.parametrize("n", [0, -3, True, 2.0])
def test_a_number_of_positions_must_be_a_positive_integer(n):
    with pytest.raises((ConfigError, ShapeError)):
        simulate_gemm(W, n, block=(2, 2), accelerator=HW)


def test_cycle_engine_needs_inputs():
    with pytest.raises(ShapeError, match="got a number"):
        simulate_gemm(W, 5, block=(2, 2), accelerator=HW, engine="cycle")


@pytest.mark.parametrize(
    ("w_type", "x_type"),
    [("float64", "float64"), ("float32", "int8"), ("int8", "float32"), ("int16", "int16")],
)
def test_cycle_engine_takes_float32_or_int8_alone(w_type, x_type):
    with pytest.raises(ShapeError, match="both float32 or both int8"):
        simulate_gemm(W.astype(w_type), X.astype(x_type), block=(2, 2), accelerator=HW, engine="cycle")


def test_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match="engine: expected one of event, cycle, got 'fast'"):
        simulate_gemm(W, 5, block=(2, 2), accelerator=HW, engine="fast")


def test_cycle_engine_refuses_a_run_that_would_not_end_and_names_the_other():
    hw = Accelerator(rows=65536, cols=65536)
    with pytest.raises(ConfigError, match='use engine="event"'):
        simulate_gemm(W, X, block=(2, 2), accelerator=hw, engine="cycle")
    assert simulate_gemm(W, X, block=(2, 2), accelerator=hw).macs == 6 * 8 * 5


def test_counts_that_do_not_fit_in_64_bits_are_refused():
    grid = BlockGrid(m=2**31, k=2**31, bh=2**31, bw=2**31)
    mask = np.ones((1, 1), bool)
    with pytest.raises(ConfigError, match="fits in 64 bits"):
        simulate_layer(grid, mask, 8, HW)
    with pytest.raises(ConfigError, match="parts of the array's size"):
        simulate_layer(grid, mask, 1, HW)
    with pytest.raises(ConfigError):
        simulate_layer(grid, mask, 2**70, HW)


def test_core_refuses_arrays_that_it_would_have_to_convert():
    array = _core.ArrayConfig(
        rows=2, cols=2, dataflow="ws", skip="none", pipelining="serial", mux=2, group_cols=1
    )
    mask = np.ones((3, 4), bool)
    with pytest.raises(TypeError):
        _core.simulate_cycle(array, (6, 8, 1, 2, 2), mask, W.astype(np.float64), X)
    with pytest.raises(TypeError):
        _core.simulate_event(array, (6, 8, 1, 2, 2), mask.astype(np.uint8), 5)
    with pytest.raises(ValueError, match=r"weights: expected shape \(6, 8\), got \(6, 4\)"):
        _core.simulate_cycle(array, (6, 8, 1, 2, 2), mask, W[:, :4].copy(), X)
    with pytest.raises(ValueError, match=r"block mask: expected shape \(3, 4\), got \(3, 4, 1\)"):
        _core.simulate_event(array, (6, 8, 1, 2, 2), mask[..., None].copy(), 5)


@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(1, 60),
    positions=st.integers(1, 9),
    channels=st.integers(1, 30),
    bh=st.integers(1, 70),
    bw=st.integers(1, 40),
)
def test_block_edges_are_the_same_in_cpp_and_python(m, positions, channels, bh, bw):
    grid = BlockGrid(m=m, k=positions * channels, positions=positions, bh=bh, bw=bw)
    rows, cols = _core._testing.block_edges((m, grid.k, positions, bh, bw))
    assert rows == grid.row_edges.tolist()
    assert cols == grid.col_edges.tolist()


def test_block_edges_survive_a_block_of_any_size():
    assert _core._testing.block_edges((6, 8, 2, 2**62, 2**62)) == ([0, 6], [0, 4, 8])
