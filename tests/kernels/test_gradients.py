"""W^T dY, and dW at the kept blocks, on every instruction set: exact on integers, bounded on reals."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockGrid

SEEDS = st.integers(0, 2**32 - 1)
DENSITIES = st.sampled_from([0.0, 0.2, 0.6, 1.0])


@st.composite
def grids(draw):
    positions = draw(st.sampled_from([1, 1, 2, 9]))
    return BlockGrid(
        m=draw(st.integers(1, 90)),
        k=positions * draw(st.integers(1, 120 // positions)),
        positions=positions,
        bh=draw(st.integers(1, 40)),
        bw=draw(st.integers(1, 20)),
    )


def integers(rng, *shape):
    return rng.integers(-8, 9, shape).astype(np.float32)


def in_a_wider_array(array, gap):
    """The same rows, further apart, with NaN between them."""
    wide = np.full((array.shape[0], array.shape[1] + gap), np.nan, np.float32)
    wide[:, : array.shape[1]] = array
    return wide[:, : array.shape[1]]


@settings(max_examples=40, deadline=None)
@given(
    grid=grids(),
    density=DENSITIES,
    n=st.integers(0, 70),
    threads=st.integers(1, 3),
    gap=st.integers(0, 5),
    seed=SEEDS,
)
def test_both_gradients_of_a_product_are_exact_on_integers(isa, grid, density, n, threads, gap, seed):
    rng = np.random.default_rng(seed)
    keep = rng.random(grid.shape) < density
    matrix = BsrMatrix.from_dense(integers(rng, grid.m, grid.k), grid, keep)
    dy = in_a_wider_array(integers(rng, grid.m, n), gap)
    x = in_a_wider_array(integers(rng, grid.k, n), gap)
    backward = SpmmPlan(matrix, transposed=True, isa=isa, threads=threads)
    np.testing.assert_array_equal(backward(dy), (matrix.to_dense().T.astype(np.float64) @ dy))
    values = SpmmPlan(matrix, trainable=True, isa=isa, threads=threads).weight_gradient(dy, x)
    expected = BsrMatrix.from_dense(dy.astype(np.float64) @ x.T.astype(np.float64), grid, keep)
    np.testing.assert_array_equal(values, expected.values)  # zeros where ragged blocks leave W


@st.composite
def convolutions(draw):
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, out = draw(st.integers(1, 10)), draw(st.integers(1, 10))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = draw(st.tuples(st.integers(1, 14), st.integers(1, 40)))
    arguments = {
        "stride": draw(st.tuples(small, small)),
        "padding": draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
        "dilation": draw(st.tuples(small, small)),
    }
    for axis in range(2):
        reach = arguments["dilation"][axis] * (kernel[axis] - 1) + 1
        assume(size[axis] + 2 * arguments["padding"][axis] >= reach)
    block = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    batch = draw(st.sampled_from([0, 1, 2, 7]))
    return (batch, groups * channels, *size), (groups * out, channels, *kernel), arguments, groups, block


def prune(rng, weight, groups, block, density):
    """(weight with zeros in pruned blocks, masks as (groups, rows, k), one matrix per group)."""
    out, channels, height, width = weight.shape
    grid = BlockGrid(
        m=out // groups, k=height * width * channels, positions=height * width, bh=block[0], bw=block[1]
    )
    keep = rng.random((groups, *grid.shape)) < density
    rows = as_rows(weight, groups) * np.stack([grid.expand(mask) for mask in keep])
    matrices = [BsrMatrix.from_dense(w, grid, mask) for w, mask in zip(rows, keep, strict=True)]
    pruned = rows.reshape(out, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pruned), keep, matrices


def as_rows(weight, groups):
    return weight.transpose(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def torch_gradients(x, weight, dy, arguments, groups):
    """(dX, dW) in float64, where sums of these integers are exact."""
    x, weight, dy = (torch.from_numpy(a).double() for a in (x, weight, dy))
    rest = {**arguments, "groups": groups}
    return (
        torch.nn.grad.conv2d_input(x.shape, weight, dy, **rest).numpy(),
        torch.nn.grad.conv2d_weight(x, weight.shape, dy, **rest).numpy(),
    )


@settings(max_examples=80, deadline=None)
@given(problem=convolutions(), density=DENSITIES, threads=st.integers(1, 3), seed=SEEDS)
def test_both_gradients_of_a_convolution_are_exact_on_integers(isa, problem, density, threads, seed):
    x_shape, weight_shape, arguments, groups, block = problem
    rng = np.random.default_rng(seed)
    weight, keep, matrices = prune(rng, integers(rng, *weight_shape), groups, block, density)
    plan = ConvPlan(
        matrices, kernel_size=weight_shape[2:], trainable=True, isa=isa, threads=threads, **arguments
    )
    x = integers(rng, *x_shape)
    dy = integers(rng, *plan(x).shape)
    dx, dw = torch_gradients(x, weight, dy, arguments, groups)
    np.testing.assert_array_equal(plan.input_gradient(dy, x_shape[2:]), dx)
    found = plan.weight_gradient(dy, x)
    for values, rows, matrix, mask in zip(found, as_rows(dw, groups), matrices, keep, strict=True):
        np.testing.assert_array_equal(values, BsrMatrix.from_dense(rows, matrix.grid, mask).values)


def bound(terms):
    """gamma of a float32 sum of so many products, and of its float64 reference (Higham, section 3.1)."""
    return sum(terms * u / (1 - terms * u) for u in (2.0**-24, 2.0**-53))


def test_errors_stay_within_the_rounding_bound_and_bits_do_not_depend_on_threads(isa):
    rng = np.random.default_rng(0)
    grid = BlockGrid(m=70, k=150, bh=4, bw=4)
    keep = rng.random(grid.shape) < 0.3
    matrix = BsrMatrix.from_dense(rng.standard_normal((70, 150)), grid, keep)
    dy, x = (rng.standard_normal((rows, 1500)).astype(np.float32) for rows in (70, 150))
    w64, dy64, x64 = (a.astype(np.float64) for a in (matrix.to_dense(), dy, x))

    backward = [SpmmPlan(matrix, transposed=True, isa=isa, threads=t)(dy) for t in (1, 2, 5)]
    assert (abs(backward[0] - w64.T @ dy64) <= bound(70) * (abs(w64.T) @ abs(dy64))).all()
    assert len({part.tobytes() for part in backward}) == 1

    weights = [
        SpmmPlan(matrix, trainable=True, isa=isa, threads=t).weight_gradient(dy, x) for t in (1, 2, 5, 1)
    ]
    exact = BsrMatrix.from_dense(np.zeros((70, 150)), grid, keep)
    dense = np.zeros((70, 150))
    dense[:] = BsrMatrix(
        grid=grid, row_ptr=exact.row_ptr, col_idx=exact.col_idx, values=weights[0]
    ).to_dense()
    error = abs(dense - (dy64 @ x64.T) * grid.expand(keep))
    assert (error <= bound(1500) * (abs(dy64) @ abs(x64.T))).all()
    assert len({part.tobytes() for part in weights}) == 1


def test_errors_of_a_convolution_stay_within_the_rounding_bound(isa):
    rng = np.random.default_rng(1)
    arguments = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    weight = rng.standard_normal((16, 12, 3, 3)).astype(np.float32)
    weight, keep, matrices = prune(rng, weight, 1, (4, 4), 0.4)
    x = rng.standard_normal((5, 12, 21, 19)).astype(np.float32)
    plans = [
        ConvPlan(matrices, kernel_size=(3, 3), trainable=True, isa=isa, threads=t, **arguments)
        for t in (1, 2, 3)
    ]
    dy = rng.standard_normal(plans[0](x).shape).astype(np.float32)
    dx, dw = torch_gradients(x, weight, dy, arguments, 1)
    dx_size, dw_size = torch_gradients(abs(x), abs(weight), abs(dy), arguments, 1)
    found = [plan.input_gradient(dy, (21, 19)) for plan in plans]
    assert (abs(found[0] - dx) <= bound(16 * 9) * dx_size).all()
    assert len({part.tobytes() for part in found}) == 1

    values = [plan.weight_gradient(dy, x)[0] for plan in plans]
    terms = dy.size // 16
    exact, size = (
        BsrMatrix.from_dense(as_rows(a, 1)[0], matrices[0].grid, keep[0]).values for a in (dw, dw_size)
    )
    # Both were rounded to float32 when they were packed.
    assert (
        abs(values[0] - exact.astype(np.float64)) <= bound(terms) * size + 2**-24 * (abs(exact) + size)
    ).all()
    assert len({part.tobytes() for part in values}) == 1


def test_gradients_agree_with_the_forward_product():
    """<dY, W X> = <W^T dY, X> = <dW, W>, exactly, on integers: three kernels, one bilinear form."""
    rng = np.random.default_rng(2)
    _, _, matrices = prune(rng, integers(rng, 6, 5, 3, 3), 1, (2, 2), 0.5)
    plan = ConvPlan(matrices, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), trainable=True)
    x = integers(rng, 3, 5, 8, 7)
    y = plan(x)
    dy = integers(rng, *y.shape)
    forward = (dy.astype(np.int64) * y.astype(np.int64)).sum()
    assert (plan.input_gradient(dy, (8, 7)).astype(np.int64) * x.astype(np.int64)).sum() == forward
    (dw,) = plan.weight_gradient(dy, x)
    assert (dw.astype(np.int64) * matrices[0].values.astype(np.int64)).sum() == forward


def test_what_no_tap_reads_has_no_gradient(isa):
    """A 1 x 1 kernel with stride 3 reads a ninth of the image."""
    matrix = BsrMatrix.from_dense(np.ones((1, 1)), BlockGrid(m=1, k=1, bh=1, bw=1))
    plan = ConvPlan([matrix], kernel_size=(1, 1), stride=(3, 3), trainable=True, isa=isa)
    dx = plan.input_gradient(np.full((1, 1, 2, 2), 5, np.float32), (6, 5))
    expected = np.zeros((6, 5), np.float32)
    expected[::3, ::3] = 5
    np.testing.assert_array_equal(dx[0, 0], expected)


def test_bad_calls_for_gradients_are_refused():
    grid = BlockGrid(m=6, k=8, bh=2, bw=2)
    matrix = BsrMatrix.from_dense(np.ones((6, 8)), grid)
    dy, x = np.ones((6, 5), np.float32), np.ones((8, 5), np.float32)
    with pytest.raises(ConfigError, match="expected a plan made with trainable=True"):
        SpmmPlan(matrix).weight_gradient(dy, x)
    with pytest.raises(ConfigError, match="at most one of trainable and transposed"):
        SpmmPlan(matrix, trainable=True, transposed=True)
    plan = SpmmPlan(matrix, trainable=True)
    with pytest.raises(ShapeError, match=r"spmm output gradient: expected shape \(6, n\), got 8 rows"):
        plan.weight_gradient(x, x)
    with pytest.raises(ShapeError, match="spmm output gradient: expected 5 columns, got 4"):
        plan.weight_gradient(dy[:, :4], x)
    with pytest.raises(ShapeError, match="spmm input: expected float32"):
        plan.weight_gradient(dy, x.astype(np.float64))

    image = np.ones((2, 8, 3, 3), np.float32)
    with pytest.raises(ConfigError, match="expected a plan made with trainable=True"):
        ConvPlan([matrix], kernel_size=(1, 1)).weight_gradient(image, image)
    with pytest.raises(ConfigError, match="expected a plan made with trainable=True"):
        ConvPlan([matrix], kernel_size=(1, 1)).input_gradient(image, (3, 3))
    conv = ConvPlan([matrix], kernel_size=(1, 1), trainable=True)
    with pytest.raises(ShapeError, match=r"output gradient: expected \(2, 6, 3, 3\), got \(2, 8, 3, 3\)"):
        conv.weight_gradient(image, image)
    with pytest.raises(ShapeError, match=r"output gradient: expected \(2, 6, 4, 3\), got \(2, 6, 3, 3\)"):
        conv.input_gradient(image[:, :6].copy(), (4, 3))
    with pytest.raises(ShapeError, match="output gradient: expected 4 dimensions, got 3"):
        conv.input_gradient(image[0], (3, 3))
    with pytest.raises(ConfigError, match="an image of at least 1 x 1, got 0 x 3"):
        conv.input_gradient(image, (0, 3))
    with pytest.raises(ConfigError, match="size: expected two integers"):
        conv.input_gradient(image, 3)
