"""Bias, residual and ReLU in the kernel do what torch does after it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockGrid

SEEDS = st.integers(0, 2**32 - 1)


def finish(product, bias, residual, relu):
    """In float64 on integers: exact."""
    if bias is not None:
        product = product + torch.from_numpy(bias).double().view((-1, 1) if product.ndim == 2 else (-1, 1, 1))
    if residual is not None:
        product = product + torch.from_numpy(np.ascontiguousarray(residual)).double()
    return (torch.relu(product) if relu else product).float().numpy()


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 40),
    k=st.integers(1, 50),
    n=st.integers(0, 70),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    gap=st.integers(0, 5),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    threads=st.integers(1, 3),
    seed=SEEDS,
)
def test_product_with_epilogue_is_exact_on_integers(isa, m, k, n, block, gap, options, threads, seed):
    with_bias, with_residual, relu = options
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=m, k=k, bh=block[0], bw=block[1])
    matrix = BsrMatrix.from_dense(rng.integers(-8, 9, (m, k)), grid, rng.random(grid.shape) < 0.5)
    x = rng.integers(-8, 9, (k, n)).astype(np.float32)
    bias = rng.integers(-99, 100, m).astype(np.float32) if with_bias else None
    wide = np.full((m, n + gap), np.nan, np.float32)
    residual = wide[:, :n] if with_residual else None
    if with_residual:
        residual[:] = rng.integers(-99, 100, (m, n))
    y = SpmmPlan(matrix, bias=bias, relu=relu, isa=isa, threads=threads)(x, residual=residual)
    product = torch.from_numpy(matrix.to_dense()).double() @ torch.from_numpy(x).double()
    np.testing.assert_array_equal(y, finish(product, bias, residual, relu))


@settings(max_examples=40, deadline=None)
@given(
    image=st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(3, 12), st.integers(3, 40)),
    out=st.integers(1, 9),
    groups=st.integers(1, 3),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    threads=st.integers(1, 3),
    seed=SEEDS,
)
def test_convolution_with_epilogue_is_exact_on_integers(
    isa, image, out, groups, stride, options, threads, seed
):
    with_bias, with_residual, relu = options
    batch, channels, height, width = image
    rng = np.random.default_rng(seed)
    weight = rng.integers(-8, 9, (groups * out, channels, 3, 3)).astype(np.float32)
    grid = BlockGrid(m=out, k=9 * channels, positions=9, bh=4, bw=2)
    rows = weight.transpose(0, 2, 3, 1).reshape(groups, out, -1)
    matrices = [BsrMatrix.from_dense(part, grid) for part in rows]
    x = rng.integers(-8, 9, (batch, groups * channels, height, width)).astype(np.float32)
    product = conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(weight).double(), None, stride, 1, 1, groups
    )
    bias = rng.integers(-99, 100, groups * out).astype(np.float32) if with_bias else None
    residual = rng.integers(-99, 100, product.shape).astype(np.float32) if with_residual else None
    plan = ConvPlan(
        matrices,
        kernel_size=(3, 3),
        stride=stride,
        padding=(1, 1),
        bias=bias,
        relu=relu,
        isa=isa,
        threads=threads,
    )
    np.testing.assert_array_equal(plan(x, residual=residual), finish(product, bias, residual, relu))


def test_relu_keeps_not_a_number_and_negative_zero_as_torch_does(isa):
    values = np.array([[np.nan, -np.nan, -0.0, 0.0, -1.0, 1.0, np.inf, -np.inf] * 3], np.float32)
    empty = BsrMatrix.from_dense(np.zeros((1, 1)), BlockGrid(m=1, k=1, bh=1, bw=1))
    y = SpmmPlan(empty, relu=True, isa=isa)(np.ones((1, 24), np.float32), residual=values)
    expected = torch.relu(torch.from_numpy(np.zeros_like(values)) + torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(y, expected)
    assert (np.signbit(y) == np.signbit(expected))[~np.isnan(y)].all()


def test_a_bias_or_residual_of_another_shape_is_refused():
    grid = BlockGrid(m=6, k=8, bh=2, bw=2)
    matrix = BsrMatrix.from_dense(np.ones((6, 8)), grid)
    x = np.ones((8, 5), np.float32)
    with pytest.raises(ConfigError, match="spmm: expected a bias of 6, got 5"):
        SpmmPlan(matrix, bias=np.ones(5))
    with pytest.raises(ShapeError, match="spmm residual: expected 5 columns, got 4"):
        SpmmPlan(matrix)(x, residual=np.ones((6, 4), np.float32))
    with pytest.raises(ShapeError, match="spmm residual: expected float32, got float64"):
        SpmmPlan(matrix)(x, residual=np.ones((6, 5)))
    out = np.ones((6, 5), np.float32)
    with pytest.raises(ShapeError, match="spmm output: expected memory apart from the residual"):
        SpmmPlan(matrix)(x, out, residual=out)
    conv = ConvPlan([matrix], kernel_size=(1, 1))
    image = np.ones((1, 8, 2, 2), np.float32)
    with pytest.raises(
        ShapeError, match=r"convolution residual: expected \(1, 6, 2, 2\), got \(1, 6, 2, 3\)"
    ):
        conv(image, residual=np.ones((1, 6, 2, 3), np.float32))
    out = np.ones((1, 6, 2, 2), np.float32)
    with pytest.raises(ShapeError, match="convolution output: expected memory apart from the residual"):
        conv(image, out, residual=out)
