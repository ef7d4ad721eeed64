"""What 8-bit products refuse, each with an error that says what is wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, Int8BsrMatrix, Int8SpmmPlan, SpmmPlan
from pysim.workload import BlockGrid

GRID = BlockGrid(m=6, k=8, bh=2, bw=2)
ROW_PTR = np.array([0, 2, 2, 4], np.int64)
COL_IDX = np.array([0, 3, 1, 2], np.int32)
VALUES = np.ones((4, 2, 2), np.int8)
X = np.ones((8, 5), np.uint8)
HUGE = 2**63 - 1


def matrix(**changes):
    parts = {"grid": GRID, "row_ptr": ROW_PTR, "col_idx": COL_IDX, "values": VALUES}
    return Int8BsrMatrix(**{**parts, **changes})


def core_plan(row_ptr=ROW_PTR, col_idx=COL_IDX, values=VALUES, grid=(6, 8, 1, 2, 2), **changes):
    options = {
        "signed_input": False,
        "input_zero_point": 0,
        "sum_bias": [],
        "scale": [],
        "bias": [],
        "output": "int32",
        "output_zero_point": 0,
        "relu": False,
        "isa": "",
        "threads": 1,
        **changes,
    }
    isa, threads = options.pop("isa"), options.pop("threads")
    values_of_options = tuple(options.values())
    return _core.Int8SpmmPlan(
        grid, row_ptr, col_idx, values, options=values_of_options, isa=isa, threads=threads
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": VALUES.astype(np.uint8)}, "BSR values: expected int8 .*, got uint8"),
        ({"values": VALUES.astype(np.float32)}, "BSR values: expected int8 .*, got float32"),
        ({"values": VALUES[:3]}, r"BSR values: expected int8 \(4, 2, 2\), got int8 \(3, 2, 2\)"),
        ({"col_idx": np.array([0, 4, 1, 2], np.int32)}, "col_idx: expected strictly rising indices below 4"),
        ({"row_ptr": np.array([0, 2, 1, 4])}, "row_ptr: expected values that rise"),
    ],
)
def test_a_broken_8_bit_matrix_cannot_exist(changes, message):
    with pytest.raises(ShapeError, match=message):
        matrix(**changes)


@pytest.mark.parametrize("weights", [128, -129, 1.5, np.nan, 1e9, "a"])
def test_weights_that_are_not_8_bit_integers_are_refused(weights):
    with pytest.raises(ShapeError, match="expected integers from -128 to 127"):
        Int8BsrMatrix.from_dense(np.full((6, 8), weights), GRID)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"row_ptr": ROW_PTR.astype(np.int32)}, TypeError),
        ({"col_idx": COL_IDX.astype(np.int64)}, TypeError),
        ({"values": VALUES.astype(np.uint8)}, TypeError),
        ({"values": VALUES.astype(np.float32)}, TypeError),
        ({"values": VALUES.tolist()}, TypeError),
        ({"values": np.ones((4, 2, 4), np.int8)[..., ::2]}, ValueError),
        ({"values": VALUES[:3]}, ValueError),
        ({"row_ptr": np.array([0, 2, 2, 5])}, ValueError),
        ({"row_ptr": np.array([0, 2**62, -(2**62), 4])}, ValueError),
        ({"row_ptr": ROW_PTR[:3]}, ValueError),
        ({"col_idx": np.array([-1, 3, 1, 2], np.int32)}, ValueError),
        ({"col_idx": np.array([0, 2**31 - 1, 1, 2], np.int32)}, ValueError),
        ({"grid": (HUGE, 8, 1, 2, 2)}, ValueError),
        ({"grid": (6, HUGE, 1, 2, 2)}, ValueError),
        ({"grid": (6, 8, 3, 2, 2)}, ValueError),
        ({"isa": "mmx"}, ValueError),
        ({"threads": 0}, ValueError),
        ({"threads": 257}, ValueError),
        ({"input_zero_point": 256}, ValueError),
        ({"input_zero_point": -1}, ValueError),
        ({"input_zero_point": -129, "signed_input": True}, ValueError),
        ({"input_zero_point": 128, "signed_input": True}, ValueError),
        ({"sum_bias": [1] * 5}, ValueError),
        ({"sum_bias": [2**31 - 1] * 6}, ValueError),
        ({"sum_bias": [2**31] * 6}, TypeError),
        ({"scale": [1.0] * 6}, ValueError),
        ({"bias": [1.0] * 6}, ValueError),
        ({"output_zero_point": 1}, ValueError),
        ({"output": "float32"}, ValueError),
        ({"output": "float32", "scale": [1.0] * 5}, ValueError),
        ({"output": "float32", "scale": [np.nan] * 6}, ValueError),
        ({"output": "float32", "scale": [np.inf] * 6}, ValueError),
        ({"output": "float32", "scale": [1.0] * 6, "bias": [-np.inf] * 6}, ValueError),
        ({"output": "float32", "scale": [1.0] * 6, "bias": [1.0]}, ValueError),
        ({"output": "float32", "scale": [1.0] * 6, "output_zero_point": 3}, ValueError),
        ({"output": "uint8", "scale": [1.0] * 6, "output_zero_point": -1}, ValueError),
        ({"output": "uint8", "scale": [1.0] * 6, "output_zero_point": 256}, ValueError),
        ({"output": "int8", "scale": [1.0] * 6, "output_zero_point": 128}, ValueError),
        ({"output": "int16"}, ValueError),
    ],
)
def test_the_core_checks_by_itself(changes, error):
    with pytest.raises(error):
        core_plan(**changes)


@pytest.mark.parametrize("grid", [(2**31, 1, 1, 2**31, 1), (1, 2**31, 1, 1, 2**60), (HUGE, 1, 1, 2**60, 1)])
def test_a_matrix_without_blocks_cannot_claim_a_size_beyond_31_bits(grid):
    rows = -(-grid[0] // grid[3])
    values = np.zeros((0, grid[3], grid[4]), np.int8)
    with pytest.raises(ValueError, match=r"BSR: expected [mk] below 2\^31, got"):
        core_plan(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32), values, grid)


def test_a_wide_matrix_without_blocks_costs_no_memory():
    plan = core_plan(
        np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros((0, 1, 1), np.int8), (1, 2**31 - 1, 1, 1, 1)
    )
    y = np.ones((1, 1), np.int32)
    plan.run(np.broadcast_to(np.uint8(1), (2**31 - 1, 0)), np.empty((1, 0), np.int32))
    del plan, y


@settings(max_examples=300, deadline=None)
@given(
    row_ptr=st.lists(st.integers(-2, 12) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8),
    col_idx=st.lists(st.integers(-2, 9) | st.integers(-(2**31), 2**31 - 1), max_size=10),
    m=st.integers(0, 14),
    k=st.integers(0, 18),
    positions=st.integers(0, 3),
    block=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_any_indices_either_multiply_rightly_or_raise(row_ptr, col_idx, m, k, positions, block):
    parts = (
        np.array(row_ptr, np.int64),
        np.array(col_idx, np.int32),
        np.ones((len(col_idx), *block), np.int8),
    )
    try:
        plan = core_plan(*parts, (m, k, positions, *block))
    except ValueError:
        return
    grid = BlockGrid(m=m, k=k, positions=positions, bh=block[0], bw=block[1])
    w = Int8BsrMatrix(grid=grid, row_ptr=parts[0], col_idx=parts[1], values=parts[2]).to_dense()
    x, y = np.full((k, 3), 200, np.uint8), np.empty((m, 3), np.int32)
    plan.run(x, y)
    np.testing.assert_array_equal(y, w.astype(np.int32) @ x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dtype": "float32"}, "input_dtype: expected one of uint8, int8, got 'float32'"),
        ({"output": "int16"}, "output: expected one of int32, float32, uint8, int8, got 'int16'"),
        ({"output": "uint8"}, "scale: expected one for uint8 output"),
        ({"scale": 1.0}, "scale: expected none for int32 output"),
        ({"output": "uint8", "scale": [1.0] * 5}, r"scale: expected shape \(6,\) or one number, got \(5,\)"),
        ({"output": "uint8", "scale": ["a"] * 6}, "scale: expected 6 numbers or one"),
        ({"output": "uint8", "scale": np.nan}, "int8 spmm scale: expected finite numbers, got nan"),
        ({"output": "float32", "scale": 1e39}, "int8 spmm scale: expected finite numbers, got inf"),
        ({"input_zero_point": 256}, "int8 spmm input zero point: expected from 0 to 255, got 256"),
        ({"input_zero_point": -129, "input_dtype": "int8"}, "input zero point: expected from -128 to 127"),
        ({"input_zero_point": 1.0}, "input_zero_point: expected an integer, got 1.0"),
        (
            {"output": "int8", "scale": 1.0, "output_zero_point": 128},
            "output zero point: expected from -128 to 127, got 128",
        ),
        ({"output_zero_point": 1}, "expected an output zero point for 8-bit output only, got 1"),
        ({"bias": np.ones(5, np.int32)}, r"bias: expected shape \(6,\), got \(5,\)"),
        ({"bias": np.ones(6, np.float32)}, "bias: expected integers for int32 output, got floats"),
        ({"bias": ["a"] * 6}, "bias: expected integers or floats, got <U1"),
        ({"bias": np.full(6, 2**31)}, "bias: expected integers of 32 bits, got larger ones"),
        ({"bias": np.full(6, np.inf), "output": "float32", "scale": 1.0}, "bias: expected finite numbers"),
        ({"isa": "mmx"}, "isa: expected one of scalar.*, got mmx"),
        ({"isa": 512}, "isa: expected a name, got 512"),
        ({"threads": 0}, "int8 spmm: expected 1 to 256 threads, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Int8SpmmPlan(matrix(), **options)


def test_float_and_8_bit_matrices_do_not_mix():
    floats = BsrMatrix.from_dense(np.ones((6, 8)), GRID)
    with pytest.raises(ConfigError, match="int8 spmm: expected Int8BsrMatrix, got BsrMatrix"):
        Int8SpmmPlan(floats)
    with pytest.raises(ConfigError, match="spmm: expected BsrMatrix, got Int8BsrMatrix"):
        SpmmPlan(matrix())


READ_ONLY = np.ones((6, 5), np.int32)
READ_ONLY.flags.writeable = False
BASE = np.ones((14, 5), np.uint8)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (np.ones((7, 5), np.uint8), None, r"int8 spmm input: expected shape \(8, n\), got 7 rows"),
        (np.ones(8, np.uint8), None, r"int8 spmm input: expected shape \(k, n\), got \(8,\)"),
        (X.astype(np.int8), None, "input: expected uint8, got int8"),
        (X.astype(np.float32), None, "input: expected uint8, got float32"),
        ([[1] * 5] * 8, None, "input: expected a uint8 array, got list"),
        (torch.ones((8, 5), dtype=torch.int8), None, "input: expected uint8, got torch.int8"),
        (torch.ones((8, 5), device="meta", dtype=torch.uint8), None, "expected a dense tensor on the CPU"),
        (np.ones((5, 8), np.uint8).T, None, "input: expected contiguous rows, got a stride of 8 bytes"),
        (np.ones((8, 10), np.uint8)[:, ::2], None, "input: expected contiguous rows"),
        (np.ones((8, 5), np.uint8)[::-1], None, "input: expected rows that do not overlap"),
        (np.broadcast_to(np.ones(5, np.uint8), (8, 5)), None, "input: expected rows that do not overlap"),
        (X, np.ones((6, 4), np.int32), "output: expected 5 columns, got 4"),
        (X, np.ones((5, 5), np.int32), r"output: expected shape \(6, n\), got 5 rows"),
        (X, np.ones((6, 5), np.int64), "output: expected int32, got int64"),
        (X, np.ones((6, 5), np.uint8), "output: expected int32, got uint8"),
        (X, np.ones((5, 6), np.int32).T, "output: expected contiguous rows"),
        (X, READ_ONLY, "not writeable"),
    ],
)
def test_a_product_refuses_arrays_that_do_not_fit(x, out, message):
    with pytest.raises(ShapeError, match=message):
        Int8SpmmPlan(matrix())(x, out)


def test_an_output_that_overlaps_the_input_is_refused():
    plan = Int8SpmmPlan(matrix(), scale=1.0, output="uint8")
    with pytest.raises(ShapeError, match="int8 spmm output: expected memory apart from the input"):
        plan(BASE[:8], BASE[7:13])
    assert (plan(BASE[:8], BASE[8:14]) >= 0).all()


@pytest.mark.parametrize("y", [np.ones((6, 5), np.float32), np.ones((6, 5), np.uint8), [[0]]])
def test_the_core_refuses_outputs_of_another_type(y):
    with pytest.raises((TypeError, ValueError)):
        core_plan().run(X, y)
    with pytest.raises((TypeError, ValueError)):
        core_plan(signed_input=True).run(X, np.empty((6, 5), np.int32))
