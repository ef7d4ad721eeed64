"""Images whose channels lie side by side: the same bits, and results in the same order of axes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.sparse import BsrMatrix, ConvPlan
from pysim.workload import BlockGrid

SEEDS = st.integers(0, 2**32 - 1)


def conv_plan(rng, channels, out, kernel=(3, 3), groups=1, **arguments):
    positions = kernel[0] * kernel[1]
    grid = BlockGrid(m=out, k=positions * channels, positions=positions, bh=4, bw=2)
    rows = rng.standard_normal((groups, out, positions * channels))
    matrices = [BsrMatrix.from_dense(w, grid, rng.random(grid.shape) < 0.5) for w in rows]
    return ConvPlan(matrices, kernel_size=kernel, **arguments)


def last(x):
    """The same numbers, channels side by side."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@settings(max_examples=60, deadline=None)
@given(
    image=st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(3, 12), st.integers(3, 40)),
    out=st.integers(1, 9),
    kernel=st.sampled_from([(1, 1), (3, 1), (3, 3), (2, 3)]),
    groups=st.integers(1, 3),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    options=st.tuples(
        st.booleans(), st.sampled_from(["", "first", "last"]), st.sampled_from(["", "first", "last"])
    ),
    threads=st.integers(1, 3),
    seed=SEEDS,
)
def test_the_order_of_axes_changes_no_bit(
    isa, image, out, kernel, groups, stride, padding, options, threads, seed
):
    rng = np.random.default_rng(seed)
    relu, residual_order, out_order = options
    batch, channels, height, width = image
    arguments = {"stride": stride, "padding": padding, "relu": relu, "threads": threads, "isa": isa}
    plan = conv_plan(rng, channels, out, kernel, groups, **arguments)
    x = rng.standard_normal((batch, groups * channels, height, width)).astype(np.float32)
    shape = plan(x).shape
    residual = rng.standard_normal(shape).astype(np.float32) if residual_order else None
    expected = plan(x, residual=residual)
    if residual_order == "last":
        residual = last(residual)
    memory = np.full(expected.size + 40, np.nan, np.float32)
    target = memory[20 : 20 + expected.size]
    if out_order == "last":
        target = target.reshape(batch, shape[2], shape[3], shape[1]).transpose(0, 3, 1, 2)
    y = plan(last(x), target.reshape(shape) if out_order else None, residual=residual)
    assert y.tobytes() == expected.tobytes()
    assert np.isnan(memory).sum() == (40 if out_order else memory.size)


@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (1, 8, 5, 5), (3, 8, 1, 4)])
@pytest.mark.parametrize("like", [torch.from_numpy, lambda x: x])
def test_a_result_has_the_memory_format_of_its_input(shape, like):
    rng = np.random.default_rng(0)
    plan = conv_plan(rng, 8, 6, padding=(1, 1))
    x = rng.standard_normal(shape).astype(np.float32)
    first, second = (torch.as_tensor(plan(like(image))) for image in (x, last(x)))
    assert first.is_contiguous()
    assert second.is_contiguous(memory_format=torch.channels_last)
    assert not second.is_contiguous()
    assert torch.equal(first, second)


def test_an_image_that_is_both_is_taken_as_the_usual_order():
    """With one channel or one pixel the two orders are the same memory."""
    plan = conv_plan(np.random.default_rng(0), 1, 6, padding=(1, 1))
    x = torch.ones(2, 1, 5, 5).to(memory_format=torch.channels_last)
    assert plan(x).is_contiguous()


def test_gradients_of_weights_do_not_depend_on_the_order_of_the_input(isa):
    rng = np.random.default_rng(1)
    plan = conv_plan(rng, 5, 6, padding=(1, 1), stride=(2, 2), trainable=True, threads=2, isa=isa)
    x = rng.standard_normal((3, 5, 11, 10)).astype(np.float32)
    dy = rng.standard_normal(plan(x).shape).astype(np.float32)
    (expected,), (found,) = plan.weight_gradient(dy, x), plan.weight_gradient(dy, last(x))
    assert expected.tobytes() == found.tobytes()


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=SEEDS)
def test_what_another_layer_left_in_the_workspace_does_not_show(isa, order, seed):
    """Zeros around the pixels stay between calls; layers with zeros elsewhere must put them there anew."""
    rng = np.random.default_rng(seed)
    layers = [
        (conv_plan(rng, 4, 4, padding=(1, 1), isa=isa), (1, 4, 8, 8)),
        (conv_plan(rng, 4, 3, padding=(1, 1), isa=isa), (2, 4, 8, 8)),  # zeros in the same places
        (conv_plan(rng, 4, 4, (1, 1), isa=isa), (1, 4, 10, 10)),  # planes as large, without zeros
        (conv_plan(rng, 4, 4, padding=(0, 2), isa=isa), (1, 4, 10, 6)),
        (conv_plan(rng, 4, 4, padding=(1, 1), stride=(2, 2), isa=isa), (1, 4, 8, 8)),
        (conv_plan(rng, 9, 4, padding=(2, 2), isa=isa), (1, 9, 7, 7)),
    ]
    images = [rng.standard_normal(shape).astype(np.float32) for _, shape in layers]
    alone = []
    for (plan, _), x in zip(layers, images, strict=True):
        huge = np.full((1, x.shape[1], 40, 40), np.nan, np.float32)
        plan(huge)  # its own workspace first: other zeros, and no number where the pixels were
        alone.append(plan(x).tobytes())
    for i in order:
        x = images[i] if i % 2 else last(images[i])
        assert layers[i][0](x).tobytes() == alone[i]
