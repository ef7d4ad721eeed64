"""What the kernels refuse: every broken matrix, array or setting ends in an error that says what is wrong."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockGrid

GRID = BlockGrid(m=6, k=8, bh=2, bw=2)
ROW_PTR = np.array([0, 2, 2, 4], np.int64)
COL_IDX = np.array([0, 3, 1, 2], np.int32)
VALUES = np.ones((4, 2, 2), np.float32)
X = np.ones((8, 5), np.float32)
IMAGE = np.ones((2, 8, 5, 5), np.float32)


def matrix(**changes):
    parts = {"grid": GRID, "row_ptr": ROW_PTR, "col_idx": COL_IDX, "values": VALUES}
    return BsrMatrix(**{**parts, **changes})


def core_plan(row_ptr=ROW_PTR, col_idx=COL_IDX, values=VALUES, grid=(6, 8, 1, 2, 2), isa="", threads=1):
    return _core.SpmmPlan(grid, row_ptr, col_idx, values, isa=isa, threads=threads)


BROKEN_INDICES = [
    ({"row_ptr": np.array([1, 2, 2, 4])}, "row_ptr: expected 0 first, got 1"),
    ({"row_ptr": np.array([0, 2, 1, 4])}, "row_ptr: expected values that rise"),
    ({"row_ptr": np.array([0, 2, 2, 5])}, "row_ptr: expected values that rise to 4, got 5 at 3"),
    ({"row_ptr": np.array([0, 2, 2, 3])}, "row_ptr: expected 4 last, got 3"),
    ({"row_ptr": np.array([0, -1, 2, 4])}, "row_ptr: expected values that rise"),
    ({"row_ptr": np.array([0, 2**62, -(2**62), 4])}, "row_ptr: expected values that rise"),
    ({"col_idx": np.array([0, 4, 1, 2], np.int32)}, "col_idx: expected strictly rising indices below 4"),
    ({"col_idx": np.array([-1, 3, 1, 2], np.int32)}, "col_idx: expected .*, got -1 at 0"),
    ({"col_idx": np.array([3, 0, 1, 2], np.int32)}, "col_idx: expected strictly rising .*, got 0 at 1"),
    ({"col_idx": np.array([0, 3, 2, 2], np.int32)}, "col_idx: expected strictly rising .*, got 2 at 3"),
    ({"col_idx": np.array([0, 2**31 - 1, 1, 2], np.int32)}, "col_idx: expected .*, got 2147483647 at 1"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN_INDICES)
def test_a_matrix_with_a_broken_index_cannot_exist(changes, message):
    with pytest.raises(ShapeError, match=f"BSR {message}"):
        matrix(**changes)


@pytest.mark.parametrize(("changes", "message"), BROKEN_INDICES)
def test_the_core_checks_indices_itself(changes, message):
    with pytest.raises(ValueError, match=f"BSR {message}"):
        core_plan(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_ptr": ROW_PTR.astype(np.int32)}, r"BSR row_ptr: expected int64 \(4,\), got int32"),
        ({"row_ptr": ROW_PTR[:3]}, r"BSR row_ptr: expected int64 \(4,\), got int64 \(3,\)"),
        ({"row_ptr": [0, 2, 2, 4]}, "BSR row_ptr: expected int64 .*, got list"),
        ({"col_idx": COL_IDX.astype(np.int64)}, r"BSR col_idx: expected int32 \(4,\), got int64"),
        ({"col_idx": COL_IDX[None]}, r"BSR col_idx: expected int32"),
        ({"col_idx": None}, "BSR col_idx: expected int32 .*, got NoneType"),
        ({"col_idx": COL_IDX[:3]}, r"BSR values: expected float32 \(3, 2, 2\), got float32 \(4, 2, 2\)"),
        ({"values": VALUES.astype(np.float64)}, "BSR values: expected float32 .*, got float64"),
        ({"values": VALUES.reshape(4, 4)}, r"BSR values: expected float32 \(4, 2, 2\), got float32 \(4, 4\)"),
        ({"values": VALUES.astype(">f4")}, "BSR values: expected float32 .*, got >f4"),
    ],
)
def test_a_matrix_of_wrong_types_or_shapes_cannot_exist(changes, message):
    with pytest.raises(ShapeError, match=message):
        matrix(**changes)


def test_a_matrix_neither_changes_with_nor_locks_the_callers_arrays():
    values = VALUES.copy()
    m = matrix(values=values)
    plan = SpmmPlan(m)
    expected = plan(X)
    values[:] = 7  # allowed: the array is still the caller's
    np.testing.assert_array_equal(plan(X), expected)
    with pytest.raises(ValueError, match="read-only"):
        m.values[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.grid = GRID  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"row_ptr": ROW_PTR.astype(np.int32)}, TypeError),
        ({"col_idx": COL_IDX.astype(np.int64)}, TypeError),
        ({"values": VALUES.astype(np.float64)}, TypeError),
        ({"values": VALUES.astype(">f4")}, TypeError),
        ({"values": VALUES.tolist()}, TypeError),
        ({"values": np.ones((4, 2, 4), np.float32)[..., ::2]}, ValueError),
        ({"values": VALUES[:3]}, ValueError),
        ({"row_ptr": np.zeros(8, np.int64)[::2]}, ValueError),
        ({"row_ptr": ROW_PTR[:3]}, ValueError),
        ({"grid": (6, 8, 1, 2)}, TypeError),
        ({"grid": (6, 8, 3, 2, 2)}, ValueError),
        ({"grid": (0, 8, 1, 2, 2)}, ValueError),
        ({"grid": (6, 8, 1, 0, 2)}, ValueError),
        ({"grid": (6, 8, 1, 2, -2)}, ValueError),
        ({"grid": (-6, 8, 1, 2, 2)}, ValueError),
        ({"grid": (2**70, 8, 1, 2, 2)}, TypeError),
        ({"grid": (2**63 - 1, 8, 1, 2, 2)}, ValueError),
        ({"grid": (6, 2**63 - 1, 1, 2, 2)}, ValueError),
        ({"isa": "mmx"}, ValueError),
        ({"isa": 512}, TypeError),
        ({"threads": 0}, ValueError),
        ({"threads": 257}, ValueError),
        ({"threads": -(2**31)}, ValueError),
        ({"threads": 2**40}, TypeError),
        ({"threads": 1.5}, TypeError),
    ],
)
def test_the_core_refuses_what_it_would_have_to_convert_or_guess(changes, error):
    with pytest.raises(error):
        core_plan(**changes)


HUGE = 2**63 - 1


@pytest.mark.parametrize(
    "grid",
    [(2**31, 1, 1, 2**31, 1), (2**31, 1, 1, 2**60, 1), (1, 2**31, 1, 1, 2**60), (HUGE, 1, 1, 2**60, 1)],
)
def test_a_matrix_without_blocks_cannot_claim_a_size_beyond_31_bits(grid):
    """No stored block is needed to claim rows: without a bound the plan's slabs would fill the memory."""
    rows = -(-grid[0] // grid[3])
    values = np.zeros((0, grid[3], grid[4]), np.float32)
    with pytest.raises(ValueError, match=r"BSR: expected [mk] below 2\^31, got"):
        core_plan(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32), values, grid)


@pytest.mark.parametrize(
    "grid",
    [
        (HUGE, 1, 1, HUGE, HUGE),
        (1, HUGE, 1, HUGE, HUGE),
        (2, 2, 1, HUGE, HUGE),
        (HUGE, HUGE, HUGE, HUGE, HUGE),
    ],
)
def test_sizes_at_the_end_of_64_bits_are_refused(grid):
    with pytest.raises(ValueError, match=r"BSR|block grid"):
        core_plan(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros((0, 1, 1), np.float32), grid)


def test_a_block_far_larger_than_the_matrix_is_no_harm():
    grid = BlockGrid(m=3, k=5, bh=2**60, bw=1)
    empty = BsrMatrix.from_dense(np.zeros((3, 5)), grid)
    np.testing.assert_array_equal(SpmmPlan(empty)(np.ones((5, 9), np.float32)), np.zeros((3, 9)))
    assert _core._testing.block_edges((3, 5, 1, HUGE, HUGE)) == ([0, 3], [0, 5])


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
        np.ones((len(col_idx), *block), np.float32),
    )
    try:
        plan = core_plan(*parts, (m, k, positions, *block))
    except ValueError:
        return
    grid = BlockGrid(m=m, k=k, positions=positions, bh=block[0], bw=block[1])
    w = BsrMatrix(grid=grid, row_ptr=parts[0], col_idx=parts[1], values=parts[2]).to_dense()
    x, y = np.ones((k, 3), np.float32), np.empty((m, 3), np.float32)
    plan.run(x, y)
    np.testing.assert_array_equal(y, w @ x)


READ_ONLY = np.ones((6, 5), np.float32)
READ_ONLY.flags.writeable = False
ODD = np.frombuffer(bytearray(4 * 40 + 1), np.uint8)[1:].view(np.float32).reshape(8, 5)
BASE = np.ones((14, 5), np.float32)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (np.ones((7, 5), np.float32), None, r"spmm input: expected shape \(8, n\), got 7 rows"),
        (np.ones(8, np.float32), None, r"spmm input: expected shape \(k, n\), got \(8,\)"),
        (np.ones((8, 5)), None, "input: expected float32, got float64"),
        (np.ones((8, 5), np.float16), None, "input: expected float32, got float16"),
        (np.ones((8, 5), ">f4"), None, "input: expected float32, got >f4"),
        ([[1.0] * 5] * 8, None, "input: expected a float32 array, got list"),
        (None, None, "input: expected a float32 array, got NoneType"),
        (torch.ones((8, 5), dtype=torch.bfloat16), None, "input: expected float32, got torch.bfloat16"),
        (torch.ones((8, 5), dtype=torch.float64), None, "input: expected float32, got torch.float64"),
        (torch.ones((8, 5), device="meta"), None, "expected a dense tensor on the CPU, got .* on meta"),
        (torch.ones((8, 5)).to_sparse(), None, "expected a dense tensor on the CPU, got torch.sparse_coo"),
        (np.ones((5, 8), np.float32).T, None, "spmm input: expected contiguous rows"),
        (np.ones((8, 10), np.float32)[:, ::2], None, "spmm input: expected contiguous rows"),
        (np.ones((8, 5), np.float32)[:, ::-1], None, "spmm input: expected contiguous rows"),
        (np.ones((8, 5), np.float32)[::-1], None, "spmm input: expected rows that do not overlap"),
        (
            np.broadcast_to(np.ones(5, np.float32), (8, 5)),
            None,
            "spmm input: expected rows that do not overlap",
        ),
        (ODD, None, "spmm input: expected aligned memory"),
        (X, np.ones((6, 4), np.float32), "spmm output: expected 5 columns, got 4"),
        (X, np.ones((5, 5), np.float32), r"spmm output: expected shape \(6, n\), got 5 rows"),
        (X, np.ones((6, 5)), "output: expected float32, got float64"),
        (X, np.ones((5, 6), np.float32).T, "spmm output: expected contiguous rows"),
        (
            X,
            np.broadcast_to(np.ones(5, np.float32), (6, 5)),
            "spmm output: expected rows that do not overlap",
        ),
        (X, READ_ONLY, "not writeable"),
        (X, [[1.0] * 5] * 6, "output: expected a float32 array, got list"),
        (BASE[:8], BASE[7:13], "spmm output: expected memory apart from the input"),
        (BASE[:8], BASE[:6], "spmm output: expected memory apart from the input"),
    ],
)
def test_a_product_refuses_arrays_that_do_not_fit(x, out, message):
    with pytest.raises(ShapeError, match=message):
        SpmmPlan(matrix())(x, out)


def test_a_product_accepts_neighbours_and_the_other_kind_of_array():
    plan = SpmmPlan(matrix())
    y = plan(BASE[:8], BASE[8:])
    np.testing.assert_array_equal(y, plan(np.ones((8, 5), np.float32)))
    out = torch.empty(6, 5)
    assert plan(X, out) is out


def conv(matrices=None, **changes):
    arguments = {"kernel_size": (1, 1), **changes}
    return ConvPlan([matrix()] if matrices is None else matrices, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrices": []}, "expected at least one group, got none"),
        ({"matrices": [VALUES]}, "expected BsrMatrix, got ndarray"),
        ({"kernel_size": (3, 3)}, "matrices of 9 kernel positions, got 1"),
        ({"kernel_size": 1}, "kernel_size: expected two integers, got 1"),
        ({"kernel_size": (1,)}, r"kernel_size: expected two integers, got \(1,\)"),
        ({"kernel_size": (0, 1)}, "kernel of 1 to 2.20, got 0"),
        ({"stride": (0, 1)}, "stride of 1 to 2.20, got 0"),
        ({"stride": (1, 2.5)}, "stride: expected two integers"),
        ({"stride": (2**21, 1)}, "stride of 1 to 2.20"),
        ({"padding": (0, -1)}, "padding of 0 to 2.20, got -1"),
        ({"padding": "same"}, "padding: expected two integers, got 'same'"),
        ({"dilation": (2**40, 1)}, "dilation of 1 to 2.20"),
        ({"dilation": (2**80, 1)}, "dilation: expected two integers"),
        ({"bias": [1.0]}, "a bias of 6, got 1"),
        ({"bias": ["a"] * 6}, "bias: expected 6 numbers"),
        ({"isa": "mmx"}, "isa: expected one of scalar"),
        ({"isa": 512}, "isa: expected a name, got 512"),
        ({"threads": 0}, "1 to 256 threads, got 0"),
        ({"threads": 1.5}, "threads: expected an integer, got 1.5"),
    ],
)
def test_a_convolution_refuses_bad_settings_when_it_is_made(arguments, message):
    with pytest.raises(ConfigError, match=message):
        conv(**arguments)


def test_groups_of_unequal_height_or_width_are_refused():
    other = BsrMatrix.from_dense(np.ones((4, 8)), BlockGrid(m=4, k=8, bh=2, bw=2))
    with pytest.raises(ConfigError, match="groups of equal height, got 4 and 6 features"):
        conv([matrix(), other])
    other = BsrMatrix.from_dense(np.ones((6, 4)), BlockGrid(m=6, k=4, bh=2, bw=2))
    with pytest.raises(ConfigError, match="groups of equal width, got 4 and 8 channels"):
        conv([matrix(), other])


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (
            np.ones((2, 7, 5, 5), np.float32),
            None,
            ShapeError,
            r"expected shape \(N, 8, H, W\), got \(2, 7, 5, 5\)",
        ),
        (np.ones((8, 5, 5), np.float32), None, ShapeError, r"expected shape \(N, 8, H, W\), got \(8, 5, 5\)"),
        (IMAGE.astype(np.float64), None, ShapeError, "expected float32, got float64"),
        (IMAGE.tolist(), None, ShapeError, "expected a float32 array, got list"),
        (torch.ones(2, 8, 5, 5, dtype=torch.bfloat16), None, ShapeError, "got torch.bfloat16"),
        (torch.ones(2, 8, 5, 5).transpose(2, 3), None, ShapeError, "expected a C-contiguous array"),
        (
            torch.ones(5, 2, 8, 5).movedim(0, 3),
            None,
            ShapeError,
            "expected a C-contiguous array, or a channels-last",
        ),
        (np.ones((2, 8, 5, 10), np.float32)[..., ::2], None, ShapeError, "expected a C-contiguous array"),
        (np.ones((2, 8, 0, 5), np.float32), None, ConfigError, "an image of at least 1 x 1, got 0 x 5"),
        (IMAGE, np.ones((2, 6, 5, 4), np.float32), ShapeError, r"output: expected \(2, 6, 5, 5\), got"),
        (
            IMAGE,
            np.ones((2, 6, 25), np.float32),
            ShapeError,
            r"output: expected shape \(N, channels, H, W\), got \(2, 6, 25\)",
        ),
        (IMAGE, IMAGE[:, :6], ShapeError, "expected a C-contiguous array"),
    ],
)
def test_a_convolution_refuses_arrays_that_do_not_fit(x, out, error, message):
    with pytest.raises(error, match=message):
        conv()(x, out)


def test_a_convolution_refuses_an_output_that_overlaps_its_input():
    memory = np.ones(2 * 8 * 25 + 10, np.float32)
    with pytest.raises(ShapeError, match="memory apart from the input"):
        conv()(memory[:400].reshape(2, 8, 5, 5), memory[110:].reshape(2, 6, 5, 5))


def test_an_image_smaller_than_the_kernel_is_refused_by_its_size():
    grid = BlockGrid(m=6, k=72, positions=9, bh=2, bw=2)
    plan = conv([BsrMatrix.from_dense(np.ones((6, 72)), grid)], kernel_size=(3, 3), dilation=(2, 2))
    with pytest.raises(ConfigError, match="a padded side of at least 5, got 4"):
        plan(np.ones((1, 8, 4, 9), np.float32))


def test_planes_that_would_not_fit_are_refused_before_memory_is_taken():
    plan = conv(padding=(2**20, 2**20))
    with pytest.raises(ConfigError, match=r"padded planes of fewer than 2\^31 elements"):
        plan(IMAGE)
