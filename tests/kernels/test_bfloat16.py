"""Weights kept as bfloat16: rounded as torch rounds, then multiplied like the float32 weights they became."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError
from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.workload import BlockGrid


def rounded(w):
    return torch.from_numpy(w).bfloat16().float().numpy()


@settings(max_examples=50, deadline=None)
@given(
    m=st.integers(1, 50),
    k=st.integers(1, 90),
    block=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    n=st.integers(0, 20) | st.integers(0, 110),
    gap=st.integers(0, 5),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_product_is_exact_on_small_integers(isa, m, k, block, n, gap, options, threads, seed):
    """Integers of 8 bits are bfloat16 numbers, and their sums are exact: no rounding is left."""
    with_bias, with_residual, relu, transposed = options
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=m, k=k, bh=block[0], bw=block[1])
    matrix = BsrMatrix.from_dense(rng.integers(-8, 9, (m, k)), grid, rng.random(grid.shape) < rng.random())
    w = matrix.to_dense().T if transposed else matrix.to_dense()
    wide = np.full((w.shape[1], n + gap), np.nan, np.float32)
    x = wide[:, :n]
    x[:] = rng.integers(-8, 9, x.shape)
    bias = rng.integers(-99, 100, w.shape[0]).astype(np.float32) if with_bias else None
    residual = rng.integers(-99, 100, (w.shape[0], n)).astype(np.float32) if with_residual else None
    plan = SpmmPlan(
        matrix,
        bias=bias,
        relu=relu,
        transposed=transposed,
        weight_dtype="bfloat16",
        isa=isa,
        threads=threads,
    )
    expected = w @ x
    if bias is not None:
        expected = expected + bias[:, None]
    if residual is not None:
        expected = expected + residual
    np.testing.assert_array_equal(plan(x, residual=residual), np.maximum(expected, 0) if relu else expected)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 9, 64])
@pytest.mark.parametrize("block", [(1, 1), (2, 4), (4, 1), (4, 4), (5, 3), (16, 16)])
def test_result_is_that_of_the_rounded_weights(isa, block, n):
    """Both sum k products in float32, in some order: each is within gamma_k of the exact sum."""
    rng = np.random.default_rng(n)
    grid = BlockGrid(m=45, k=203, bh=block[0], bw=block[1])
    keep = rng.random(grid.shape) < 0.4
    matrix = BsrMatrix.from_dense(rng.standard_normal((grid.m, grid.k)), grid, keep)
    x = rng.standard_normal((grid.k, n)).astype(np.float32)
    w = rounded(matrix.to_dense())
    assert (w != matrix.to_dense()).any()
    y = SpmmPlan(matrix, weight_dtype="bfloat16", isa=isa, threads=2)(x)
    exact = w.astype(np.float64) @ x.astype(np.float64)
    u = 2.0**-24
    gamma = grid.k * u / (1 - grid.k * u)
    assert (abs(y - exact) <= 1.001 * gamma * (abs(w).astype(np.float64) @ abs(x))).all()


@pytest.mark.parametrize("n", [17, 64, 200])
def test_many_columns_have_the_bits_of_the_float32_kernel(isa, n):
    rng = np.random.default_rng(n)
    grid = BlockGrid(m=45, k=203, bh=4, bw=4)
    matrix = BsrMatrix.from_dense(rng.standard_normal((45, 203)), grid, rng.random(grid.shape) < 0.4)
    same = BsrMatrix.from_dense(rounded(matrix.to_dense()), grid)
    x = rng.standard_normal((203, n)).astype(np.float32)
    y = SpmmPlan(matrix, weight_dtype="bfloat16", isa=isa)(x)
    assert y.tobytes() == SpmmPlan(same, isa=isa)(x).tobytes()


def test_rounding_is_to_nearest_even_and_keeps_what_is_no_number(isa):
    """By hand: 1 + 2^-8 is halfway between 1 and 1 + 2^-7, and 1 is even; 1 + 3 * 2^-8 goes to 1 + 2^-6."""
    tiny = np.float32(1e-45)
    w = np.array(
        [[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, np.inf, np.nan, tiny, -0.0]],
        np.float32,
    )
    matrix = BsrMatrix.from_dense(w.T.copy(), BlockGrid(m=9, k=1, bh=1, bw=1), np.ones((9, 1), bool))
    y = SpmmPlan(matrix, weight_dtype="bfloat16", isa=isa)(np.ones((1, 1), np.float32))[:, 0]
    expected = [1, 1 + 2**-6, -1, 1 + 2**-7, np.inf, np.inf, np.nan, 0, 0]
    np.testing.assert_array_equal(y, np.array(expected, np.float32))
    random = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    values = random.view(np.float32).reshape(-1, 1).copy()
    grid = BlockGrid(m=4096, k=1, bh=4, bw=1)
    plan = SpmmPlan(
        BsrMatrix.from_dense(values, grid, np.ones(grid.shape, bool)), weight_dtype="bfloat16", isa=isa
    )
    np.testing.assert_array_equal(plan(np.ones((1, 1), np.float32)), rounded(values))


def test_gradients_of_weights_do_not_mind(isa):
    rng = np.random.default_rng(0)
    grid = BlockGrid(m=20, k=30, bh=4, bw=4)
    matrix = BsrMatrix.from_dense(rng.standard_normal((20, 30)), grid)
    x, dy = (rng.standard_normal((rows, 7)).astype(np.float32) for rows in (30, 20))
    kept = [
        SpmmPlan(matrix, trainable=True, weight_dtype=dtype, isa=isa).weight_gradient(dy, x)
        for dtype in ("float32", "bfloat16")
    ]
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize("dtype", ["float16", "int8", "", None])
def test_other_weight_types_are_refused(dtype):
    matrix = BsrMatrix.from_dense(np.ones((2, 2)), BlockGrid(m=2, k=2, bh=1, bw=1))
    with pytest.raises(ConfigError, match="weight_dtype: expected float32 or bfloat16, got"):
        SpmmPlan(matrix, weight_dtype=dtype)
