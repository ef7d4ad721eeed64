"""From float32 to 8 bits and back, against torch's quantised tensors and operators."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, Int8SpmmPlan, Quantization, quantize_weights
from pysim.workload import BlockGrid


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 30),
    k=st.integers(1, 40),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    magnitude=st.sampled_from([1e-42, 1e-20, 1.0, 1e30]),
    seed=st.integers(0, 2**32 - 1),
)
def test_weights_are_off_by_half_a_step_of_their_row_at_most(m, k, block, magnitude, seed):
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=m, k=k, bh=block[0], bw=block[1])
    mask = rng.random(grid.shape) < 0.5
    matrix = BsrMatrix.from_dense(rng.normal(0, magnitude, (m, k)) * (rng.random((m, 1)) < 0.9), grid, mask)
    small, scale = quantize_weights(matrix)
    assert scale.shape == (m,)
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    np.testing.assert_array_equal(small.col_idx, matrix.col_idx)
    w, q = matrix.to_dense().astype(np.float64), small.to_dense().astype(np.float64)
    step = scale[:, None].astype(np.float64)
    # Half a step, and what rounding the scale and the quotient to float32 may add to 127 steps.
    assert (abs(w - q * step) <= step * (0.5 + 127 * 2.0**-22)).all()
    assert abs(q).max() <= 127
    largest = abs(w).max(axis=1)
    assert (abs(q).max(axis=1)[largest > 127 * np.finfo(np.float32).tiny] == 127).all()
    assert (scale[largest == 0] == 1).all()


def test_weights_by_hand():
    """127 steps of 0.5 hold 63.5; 1.25 is 2.5 steps, 1.75 is 3.5: both go to the even neighbour."""
    matrix = BsrMatrix.from_dense([[-63.5, 1.25, 1.75], [0, 0, 0]], BlockGrid(m=2, k=3, bh=1, bw=3))
    small, scale = quantize_weights(matrix)
    assert scale.tolist() == [0.5, 1.0]
    assert small.to_dense().tolist() == [[-127, 2, 4], [0, 0, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(ShapeError, match="expected finite weights"):
        quantize_weights(BsrMatrix.from_dense([[bad]], BlockGrid(m=1, k=1, bh=1, bw=1)))


def test_a_block_far_larger_than_the_matrix_is_no_harm():
    grid = BlockGrid(m=3, k=5, bh=2**60, bw=1)
    small, scale = quantize_weights(BsrMatrix.from_dense(np.zeros((3, 5)), grid))
    assert scale.tolist() == [1, 1, 1]
    assert Int8SpmmPlan(small)(np.ones((5, 9), np.uint8)).tolist() == np.zeros((3, 9)).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@settings(max_examples=60, deadline=None)
@given(low=st.floats(-1e6, 1e6, width=32), high=st.floats(-1e6, 1e6, width=32))
def test_a_range_is_held_and_zero_is_exact(dtype, low, high):
    quantization = Quantization.of([low, high], dtype)
    ends = np.array([low, high, 0], np.float32)
    back = quantization.dequantize(quantization.quantize(ends))
    assert back[2] == 0
    # Half a step for the number, half for the zero point, and float32's rounding of 255 steps.
    assert (abs(back.astype(np.float64) - ends) <= quantization.scale * (1 + 255 * 2.0**-22)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dtype": "int16", "scale": 1.0, "zero_point": 0},
            "dtype: expected one of uint8, int8, got 'int16'",
        ),
        (
            {"dtype": "int8", "scale": 0.0, "zero_point": 0},
            "scale: expected a finite number above 0",
        ),
        ({"dtype": "int8", "scale": np.inf, "zero_point": 0}, "scale: expected a finite number above 0"),
        (
            {"dtype": "int8", "scale": 1.0, "zero_point": 128},
            "zero_point: expected from -128 to 127",
        ),
        ({"dtype": "uint8", "scale": 1.0, "zero_point": -1}, "zero_point: expected from 0 to 255, got -1"),
    ],
)
def test_a_quantization_out_of_range_cannot_exist(options, message):
    with pytest.raises(ConfigError, match=message):
        Quantization(**options)


@pytest.mark.parametrize("sample", [[], [np.nan], [1, np.inf]])
def test_a_sample_without_a_range_is_refused(sample):
    with pytest.raises(ConfigError, match="expected a sample of finite numbers"):
        Quantization.of(sample)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_numbers_are_quantised_as_by_torch():
    """Scales that are powers of two: torch multiplies by 1 / scale, which then is the same."""
    x = np.random.default_rng(0).normal(0, 3, 1000).astype(np.float32)
    for dtype, kind in (("uint8", torch.quint8), ("int8", torch.qint8)):
        for scale, zero_point in ((2.0**-5, 3), (2.0**-3, 100), (0.5, 0)):
            expected = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero_point, kind).int_repr()
            ours = Quantization(dtype=dtype, scale=scale, zero_point=zero_point).quantize(x)
            np.testing.assert_array_equal(ours, expected.numpy())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("relu", [False, True])
def test_a_layer_is_torchs_quantised_linear_bit_for_bit(relu):
    """Inputs of 7 bits: torch's kernels may saturate beyond that on CPUs without VNNI."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without fbgemm")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        rng = np.random.default_rng(1)
        grid = BlockGrid(m=48, k=96, bh=4, bw=4)
        w = (rng.normal(0, 1, (48, 96)) * grid.expand(rng.random(grid.shape) < 0.3)).astype(np.float32)
        small, w_scale = quantize_weights(BsrMatrix.from_dense(w, grid))
        x = rng.integers(0, 128, (20, 96)).astype(np.uint8)
        x_scale, x_zero, y_scale, y_zero = np.float32(0.031), 57, np.float32(0.17), 121
        qw = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(small.to_dense()),
            torch.from_numpy(w_scale),
            torch.zeros(48, dtype=torch.long),
            0,
        )
        qx = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), float(x_scale), x_zero)
        packed = torch.ops.quantized.linear_prepack(qw, None)
        operator = torch.ops.quantized.linear_relu if relu else torch.ops.quantized.linear
        expected = operator(qx, packed, float(y_scale), y_zero).int_repr().numpy()
    finally:
        torch.backends.quantized.engine = before
    plan = Int8SpmmPlan(
        small,
        input_zero_point=x_zero,
        scale=x_scale * w_scale / y_scale,
        output="uint8",
        output_zero_point=y_zero,
        relu=relu,
    )
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(plan(np.ascontiguousarray(x.T)).T, expected)


def test_a_float_layer_in_8_bits_is_close_to_itself():
    """The error of a sum is at most that of its operands: half a step of W and x each, product by product."""
    rng = np.random.default_rng(2)
    grid = BlockGrid(m=32, k=64, bh=4, bw=4)
    matrix = BsrMatrix.from_dense(rng.normal(0, 1, (32, 64)), grid, rng.random(grid.shape) < 0.5)
    x = np.abs(rng.normal(0, 1, (64, 30))).astype(np.float32)
    small, w_scale = quantize_weights(matrix)
    quantization = Quantization.of(x)
    q = quantization.quantize(x)
    plan = Int8SpmmPlan(
        small,
        input_zero_point=quantization.zero_point,
        scale=w_scale * np.float32(quantization.scale),
        output="float32",
    )
    w = matrix.to_dense().astype(np.float64)
    kept = (w != 0).astype(np.float64)
    half = 0.5 + 255 * 2.0**-22  # a step, and the rounding of scale and quotient to float32
    half_w, half_x = half * w_scale[:, None].astype(np.float64), half * quantization.scale
    allowed = half_w * (kept @ x) + half_x * abs(w).sum(1)[:, None] + half_w * half_x * kept.sum(1)[:, None]
    y = plan(q)
    assert (abs(y - w @ x) <= allowed + 2.0**-22 * abs(y)).all()
