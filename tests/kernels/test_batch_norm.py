"""Batch norm on the batch's statistics, with sum and ReLU, and its gradients: bounded against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import _core

SEEDS = st.integers(0, 2**32 - 1)
EPSILON = 1e-5
UNIT = 2.0**-24
# Adds that a sum in float32 goes through: a piece at most, lanes and a tree behind them included.
ADDS = 1024 + 8


@st.composite
def problems(draw):
    """(x, weight, bias, residual or None, relu, dy) as float32 torch tensors."""
    shape = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 9)),
        draw(st.sampled_from([1, 2, 7, 8, 16, 33, 150])),  # crosses lanes, and pieces of 1,024
    )
    if shape[0] * shape[2] * shape[3] == 1:
        shape = (2, *shape[1:])
    rng = np.random.default_rng(draw(SEEDS))
    scale, mean = draw(st.sampled_from([(1.0, 0.0), (1.0, 30.0), (1e-3, 1.0), (100.0, -5.0)]))

    def normal(*size):
        return torch.from_numpy(rng.standard_normal(size).astype(np.float32))

    x = normal(*shape) * scale + mean
    numbers = (normal(shape[1]), normal(shape[1])) if draw(st.booleans()) else (None, None)
    residual = normal(*shape) if draw(st.booleans()) else None
    return x, *numbers, residual, draw(st.booleans()), normal(*shape)


def native(problem, isa, threads=1):
    x, weight, bias, residual, relu, dy = problem
    y, mean, inverse, variance = _core.batch_norm(
        x, weight, bias, residual, relu=relu, epsilon=EPSILON, isa=isa, threads=threads
    )
    result = y if relu and residual is not None else None
    gradients = _core.batch_norm_gradient(
        dy, x, result, weight, bias, mean, inverse, relu=relu, isa=isa, threads=threads
    )
    return y, mean, inverse, variance, *gradients


def channels(values):
    """One number for each channel, to be spread over images."""
    return values[None, :, None, None]


def check_result(problem, y, mean, inverse, variance):
    """Against the definition in float64, first-order bounds doubled for what is of second order."""
    x, weight, bias, residual, relu, _ = problem
    x64 = x.double()
    axes, count = (0, 2, 3), x[:, 0].numel()
    exact_mean = x64.mean(axes)
    squares = ((x64 - channels(exact_mean)) ** 2).mean(axes)
    # Pieces are summed about their own mean, which is off by some roundings of it: that cancels but for the
    # roundings of the distances.
    reach = (x64 - channels(exact_mean)).abs().amax(axes)
    mean_bound = 2 * UNIT * (exact_mean.abs() + ADDS * UNIT * (exact_mean.abs() + reach) + 2 * ADDS * reach)
    assert ((mean.double() - exact_mean).abs() <= mean_bound).all()
    # Of each distance from the piece's mean: itself, its square and the sum; then twice the distance moved.
    square_bound = 2 * (ADDS + 4) * UNIT * (squares + reach**2) + mean_bound**2
    deviation = (squares + EPSILON).sqrt()
    inverse_bound = square_bound / (squares + EPSILON) / deviation + 2 * UNIT / deviation
    assert ((inverse.double() - 1 / deviation).abs() <= inverse_bound).all()
    unbiased = squares * count / (count - 1)
    assert ((variance.double() - unbiased).abs() <= 2 * square_bound * count / (count - 1)).all()

    scale = torch.ones_like(exact_mean) if weight is None else weight.double()
    shift = torch.zeros_like(exact_mean) if bias is None else bias.double()
    added = 0 if residual is None else residual.double()
    normed = (x64 - channels(exact_mean)) / channels(deviation) * channels(scale)
    exact = normed + channels(shift) + added
    size = normed.abs() + channels(shift.abs()) + (0 if residual is None else residual.double().abs())
    bound = 8 * UNIT * size + channels(scale.abs() * (mean_bound / deviation + reach * inverse_bound))
    exact = exact.clamp_min(0) if relu else exact
    assert ((y.double() - exact).abs() <= bound).all()


def check_gradients(problem, y, mean, inverse, found):
    """Against the formulas in float64 from the forward pass's own float32 numbers, masks and all."""
    x, weight, _, residual, relu, dy = problem
    dx, dweight, dbias, dresidual = found
    axes, count = (0, 2, 3), x[:, 0].numel()
    g = torch.where(y > 0, dy, 0).double() if relu else dy.double()
    centred = x.double() - channels(mean.double())
    reach = centred.abs()
    if relu and residual is not None:
        assert torch.equal(dresidual.double(), g)
    else:
        assert dresidual is None
    sum_g, sum_gx = g.sum(axes), (g * centred).sum(axes)
    bound_g, bound_gx = (2 * ADDS * UNIT * part.abs().sum(axes) for part in (g, g * centred))
    inv = inverse.double()
    assert ((dbias.double() - sum_g).abs() <= bound_g + UNIT * sum_g.abs()).all()
    assert ((dweight.double() - sum_gx * inv).abs() <= inv * (bound_gx + 4 * UNIT * sum_gx.abs())).all()
    scale = inv if weight is None else weight.double() * inv
    slope = -scale * inv**2 * sum_gx / count
    offset = -scale * sum_g / count
    exact = g * channels(scale) + centred * channels(slope) + channels(offset)
    size = g.abs() * channels(scale.abs()) + reach * channels(slope.abs()) + channels(offset.abs())
    bound = 8 * UNIT * size
    bound += channels(scale.abs() / count) * (channels(bound_g) + reach * channels(inv**2 * bound_gx))
    assert ((dx.double() - exact).abs() <= bound).all()


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_result_statistics_and_gradients_stay_within_their_rounding_bounds(isa, problem):
    y, mean, inverse, variance, *gradients = native(problem, isa)
    check_result(problem, y, mean, inverse, variance)
    check_gradients(problem, y, mean, inverse, gradients)


@settings(max_examples=20, deadline=None)
@given(problem=problems())
def test_bits_do_not_depend_on_the_number_of_threads(isa, problem):
    # As large as several tasks.
    x, weight, bias, residual, relu, dy = problem
    many = [None if a is None else a.repeat(9, 1, 5, 5).contiguous() for a in (x, residual, dy)]
    large = many[0], weight, bias, many[1], relu, many[2]
    one, three = (native(large, isa, threads) for threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_a_case_by_hand(isa):
    """Values 1, 3 of one channel: mean 2, variance 1, unbiased 2; without epsilon the result is -1, 1."""
    x = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    y, mean, inverse, variance = _core.batch_norm(
        x, None, None, None, relu=False, epsilon=0.0, isa=isa, threads=1
    )
    assert (y.flatten().tolist(), mean.item(), inverse.item(), variance.item()) == ([-1, 1], 2, 1, 2)
    # With two values, all of a gradient is taken by mean and variance.
    dx, dweight, dbias, _ = _core.batch_norm_gradient(
        torch.tensor([5.0, 9.0]).reshape(2, 1, 1, 1), x, None, None, None, mean, inverse,
        relu=False, isa=isa, threads=1,
    )  # fmt: skip
    assert (dx.flatten().tolist(), dweight.item(), dbias.item()) == ([0, 0], 4, 14)


def test_a_far_mean_does_not_cost_the_variance(isa):
    """4096 + {-1, 1}: the sum of squares would round the variance away; the sum about the mean is exact."""
    x = 4096 + torch.tensor([-1.0, 1.0]).repeat(3, 1, 2, 16)
    _, mean, inverse, _ = _core.batch_norm(x, None, None, None, relu=False, epsilon=0.0, isa=isa, threads=2)
    assert (mean.item(), inverse.item()) == (4096, 1)


def test_nan_passes_relu_in_both_directions(isa):
    x = torch.tensor([1.0, 3.0, 2.0, 2.0]).reshape(1, 1, 2, 2)
    residual = torch.tensor([0.0, float("nan"), -9.0, 9.0]).reshape(1, 1, 2, 2)
    y, mean, inverse, _ = _core.batch_norm(
        x, None, None, residual, relu=True, epsilon=EPSILON, isa=isa, threads=1
    )
    assert torch.equal(y.isnan().flatten(), torch.tensor([False, True, False, False]))
    dy = torch.ones_like(x)
    *_, masked = _core.batch_norm_gradient(dy, x, y, None, None, mean, inverse, relu=True, isa=isa, threads=1)
    assert masked.flatten().tolist() == [0, 1, 0, 1]


def test_bad_arguments_are_refused():
    x = torch.zeros(2, 3, 4, 5)
    rest = {"relu": False, "epsilon": EPSILON, "isa": "", "threads": 1}
    for arguments, message in (
        ((x[0], None, None, None), r"batch norm input: expected shape \(N, channels, H, W\)"),
        ((x[:0], None, None, None), "batch norm input: expected at least one value to a channel"),
        ((x.transpose(2, 3), None, None, None), "batch norm input: expected a C-contiguous array"),
        ((x, torch.ones(4), None, None), "batch norm weight: expected 3 numbers"),
        ((x, None, torch.ones(2), None), "batch norm bias: expected 3 numbers"),
        ((x, None, None, x[:1]), r"batch norm residual: expected \(2, 3, 4, 5\), got \(1, 3, 4, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.batch_norm(*arguments, **rest)
    with pytest.raises(ValueError, match="1 to 256 threads"):
        _core.batch_norm(x, None, None, None, **{**rest, "threads": 0})
    with pytest.raises(ValueError, match="batch norm output gradient: expected"):
        _core.batch_norm_gradient(
            x[:1], x, None, None, None, torch.zeros(3), torch.ones(3), relu=False, isa="", threads=1
        )
