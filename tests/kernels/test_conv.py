"""Block-sparse convolution against torch's, on every instruction set: exact on integers, bounded on reals."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from pysim.sparse import BsrMatrix, ConvPlan
from pysim.workload import BlockGrid


@st.composite
def convolutions(draw):
    """(shape of x, shape of the weight, arguments of conv2d, block)."""
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, "depthwise"]))
    if groups == "depthwise":
        groups, channels = draw(st.integers(2, 9)), 1
    else:
        channels = draw(st.integers(1, 20))
    out = draw(st.integers(1, 20))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    image = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    arguments = {
        "stride": draw(st.tuples(small, small)),
        "padding": draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
        "dilation": draw(st.tuples(small, small)),
        "groups": groups,
    }
    for axis in range(2):
        reach = arguments["dilation"][axis] * (kernel[axis] - 1) + 1
        assume(image[axis] + 2 * arguments["padding"][axis] >= reach)
    batch = draw(st.sampled_from([0, 1, 1, 2, 5, 7]))
    block = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    return (batch, groups * channels, *image), (groups * out, channels, *kernel), arguments, block


def grid_of(weight_shape, groups, block):
    out, channels, *kernel = weight_shape
    positions = kernel[0] * kernel[1]
    return BlockGrid(m=out // groups, k=positions * channels, positions=positions, bh=block[0], bw=block[1])


def prune(weight, groups, block, keep):
    """(the weight with zeros in pruned blocks, one matrix per group), float32.

    The definition, spelled out: the reduction runs over (kernel row, kernel column, channel).
    """
    grid = grid_of(weight.shape, groups, block)
    out, channels, height, width = weight.shape
    rows = weight.transpose(0, 2, 3, 1).reshape(groups, out // groups, -1)
    pruned = rows * np.stack([grid.expand(mask) for mask in keep])
    matrices = [BsrMatrix.from_dense(w, grid, mask) for w, mask in zip(pruned, keep, strict=True)]
    dense = pruned.reshape(out, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(dense), matrices


def draw_keep(rng, weight_shape, groups, block):
    shape = (groups, *grid_of(weight_shape, groups, block).shape)
    return rng.random(shape) < rng.choice([0.0, 0.2, 0.6, 1.0], (groups, shape[1], 1))


def plan_of(matrices, weight_shape, arguments, **others):
    rest = {name: value for name, value in arguments.items() if name != "groups"}
    return ConvPlan(matrices, kernel_size=weight_shape[2:], **rest, **others)


def reference(x, weight, bias, arguments):
    """torch's convolution in float64, where sums of these integers are exact."""
    shift = None if bias is None else torch.from_numpy(bias).double()
    return conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), shift, **arguments).numpy()


@settings(max_examples=80, deadline=None)
@given(
    problem=convolutions(),
    with_bias=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_convolution_is_exact_on_integers(isa, problem, with_bias, threads, seed):
    x_shape, weight_shape, arguments, block = problem
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, x_shape).astype(np.float32)
    weight = rng.integers(-8, 9, weight_shape).astype(np.float32)
    bias = rng.integers(-50, 51, weight_shape[0]).astype(np.float32) if with_bias else None
    groups = arguments["groups"]
    keep = draw_keep(rng, weight_shape, groups, block)
    weight, matrices = prune(weight, groups, block, keep)
    plan = plan_of(matrices, weight_shape, arguments, bias=bias, isa=isa, threads=threads)
    expected = reference(x, weight, bias, arguments)
    assert plan.isa == isa
    np.testing.assert_array_equal(plan(x), expected)
    memory = np.full(expected.size + 40, np.nan, np.float32)
    out = memory[19 : 19 + expected.size].reshape(expected.shape)
    np.testing.assert_array_equal(plan(x, out), expected)
    assert np.isnan(memory).sum() == 40


CASES = [
    # x, weight, arguments
    ((1, 16, 28, 28), (16, 16, 3, 3), {"stride": (1, 1), "padding": (1, 1)}),
    ((2, 16, 28, 28), (32, 16, 3, 3), {"stride": (2, 2), "padding": (1, 1)}),
    ((5, 32, 14, 14), (64, 32, 1, 1), {"stride": (2, 2), "padding": (0, 0)}),
    ((1, 24, 15, 33), (24, 1, 5, 5), {"stride": (1, 2), "padding": (2, 2), "groups": 24}),
    ((9, 12, 17, 9), (8, 6, 3, 3), {"stride": (1, 1), "padding": (2, 2), "dilation": (2, 2), "groups": 2}),
]


@pytest.mark.parametrize(("x_shape", "weight_shape", "arguments"), CASES)
def test_error_stays_within_the_rounding_bound(isa, x_shape, weight_shape, arguments):
    """As for the matrix product; the bias is one addition more."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape).astype(np.float32)
    bias = rng.standard_normal(weight_shape[0]).astype(np.float32)
    groups = arguments.get("groups", 1)
    keep = draw_keep(rng, weight_shape, groups, (4, 4))
    weight, matrices = prune(rng.standard_normal(weight_shape).astype(np.float32), groups, (4, 4), keep)
    plan = plan_of(matrices, weight_shape, arguments, bias=bias, isa=isa, threads=2)
    k = weight[0].size + 1
    gammas = [k * u / (1 - k * u) for u in (2.0**-24, 2.0**-53)]
    allowed = sum(gammas) * reference(abs(x), abs(weight), abs(bias), arguments)
    assert (abs(plan(x) - reference(x, weight, bias, arguments)) <= allowed).all()


@pytest.mark.parametrize(("x_shape", "weight_shape", "arguments"), CASES)
def test_bits_do_not_depend_on_threads_batch_or_run(isa, x_shape, weight_shape, arguments):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(x_shape).astype(np.float32)
    groups = arguments.get("groups", 1)
    keep = draw_keep(rng, weight_shape, groups, (4, 4))
    _, matrices = prune(rng.standard_normal(weight_shape).astype(np.float32), groups, (4, 4), keep)
    plans = [plan_of(matrices, weight_shape, arguments, isa=isa, threads=threads) for threads in (1, 2, 3, 8)]
    first = plans[0](x)
    for plan in plans * 2:
        assert plan(x).tobytes() == first.tobytes()
    for image, expected in zip(x, first, strict=True):
        assert plans[1](image[None]).tobytes() == expected.tobytes()


def test_one_plan_serves_images_of_any_size(isa):
    rng = np.random.default_rng(2)
    weight = rng.integers(-8, 9, (7, 5, 3, 3)).astype(np.float32)
    weight, matrices = prune(weight, 1, (2, 2), draw_keep(rng, weight.shape, 1, (2, 2)))
    plan = ConvPlan(matrices, kernel_size=(3, 3), isa=isa)
    # Large first: what an earlier, larger image left in the workspace must not show.
    for height, width in [(40, 31), (3, 3), (9, 17), (3, 50), (40, 31)]:
        x = rng.integers(-8, 9, (2, 5, height, width)).astype(np.float32)
        np.testing.assert_array_equal(plan(x), reference(x, weight, None, {}))


def test_torch_and_numpy_give_the_same_bits(isa):
    rng = np.random.default_rng(3)
    _, matrices = prune(
        rng.standard_normal((8, 8, 3, 3)).astype(np.float32), 1, (4, 4), np.ones((1, 2, 18), bool)
    )
    plan = ConvPlan(matrices, kernel_size=(3, 3), isa=isa)
    x = rng.standard_normal((1, 8, 9, 9)).astype(np.float32)
    y = plan(torch.from_numpy(x).requires_grad_())
    assert isinstance(y, torch.Tensor)
    assert y.numpy().tobytes() == plan(x).tobytes()
