"""The torch operators: torch's own checks of them, compilation, export, and their GPU halves by emulation."""

import copy
import gc
import io

import numpy as np
import pytest
import torch
from torch import nn

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrConv2d, BsrLinear, packing
from pysim.sparse.conv_ops import (
    bsr_conv2d,
    bsr_conv2d_input_gradient,
    bsr_conv2d_values_gradient,
    conv_on_gpu,
    dense_conv_gradients,
    dense_kernel,
    kept_blocks,
)
from pysim.sparse.linear_ops import (
    bsr_linear,
    bsr_linear_input_gradient,
    bsr_linear_values_gradient,
    gathered_values_gradient,
    linear_input_gradient_on_gpu,
    linear_on_gpu,
)


def whole_numbers(*shape):
    return torch.randint(-4, 5, shape).float()


def linear_layer(block=(4, 8), bias=True, features=(37, 22)):
    torch.manual_seed(0)
    dense = nn.Linear(*features, bias=bias)
    with torch.no_grad():
        dense.weight.copy_(whole_numbers(*dense.weight.shape))
    rows, cols = -(-features[1] // block[0]), -(-features[0] // block[1])
    keep = np.random.default_rng(0).random((1, rows, cols)) < 0.5
    return BsrLinear.from_dense(dense, block, keep)


def conv_layer(block=(4, 4), groups=2, bias=True):
    torch.manual_seed(0)
    dense = nn.Conv2d(12, 20, 3, stride=2, padding=1, groups=groups, bias=bias)
    with torch.no_grad():
        dense.weight.copy_(whole_numbers(*dense.weight.shape))
    rows, cols = -(-20 // groups // block[0]), 9 * -(-12 // groups // block[1])
    keep = np.random.default_rng(0).random((groups, rows, cols)) < 0.5
    return BsrConv2d.from_dense(dense, block, keep)


def state(layer):
    return layer.values, layer.row_ptr, layer.col_idx


WINDOW = [3, 3, 2, 2, 1, 1, 1, 1]


def test_torch_finds_nothing_wrong_with_the_operators():
    """Schema, fake tensors, autograd registration, and compilation with dynamic shapes."""
    linear, conv = linear_layer(), conv_layer()
    x, image = torch.randn(5, 37, requires_grad=True), torch.randn(2, 12, 7, 6, requires_grad=True)
    torch.library.opcheck(bsr_linear, (x, *state(linear), linear.bias, 22))
    torch.library.opcheck(bsr_linear, (x, *state(linear), None, 22))
    torch.library.opcheck(bsr_conv2d, (image, *state(conv), conv.bias, 20, WINDOW))
    dy, dimage = torch.randn(5, 22), torch.randn(2, 20, 4, 3)
    plain, weights = [t.detach() for t in state(linear)], [t.detach() for t in state(conv)]
    torch.library.opcheck(bsr_linear_input_gradient, (dy, *plain, 37))
    torch.library.opcheck(bsr_linear_values_gradient, (dy, x.detach(), *plain))
    torch.library.opcheck(bsr_conv2d_input_gradient, (dimage, *weights, [2, 12, 7, 6], WINDOW))
    torch.library.opcheck(bsr_conv2d_values_gradient, (dimage, image.detach(), *weights, WINDOW))


@pytest.mark.parametrize(
    ("make", "shape"), [(linear_layer, (3, 5, 37)), (conv_layer, (2, 12, 7, 6))], ids=["linear", "conv2d"]
)
def test_a_compiled_layer_is_one_graph_with_equal_results_and_gradients(make, shape):
    layer = make()
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = whole_numbers(*shape)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = layer(ours), compiled(theirs)
    torch.testing.assert_close(y, z, rtol=0, atol=0)
    (y * y).sum().backward()
    (z * z).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for a, b in zip(layer.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_exported_network_keeps_its_block_sparse_operators_and_survives_a_file():
    network = nn.Sequential(conv_layer(), nn.ReLU(), nn.Flatten(), linear_layer(features=(240, 22))).eval()
    image = torch.randn(2, 12, 7, 6)
    exported = torch.export.export(network, (image,))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert sum("pysim.bsr_" in name for name in names) == 2
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=0)


@pytest.mark.parametrize("block", [(1, 4), (4, 8), (16, 16), (32, 8)])
@pytest.mark.parametrize("n", [0, 3, 40])
def test_the_gpu_halves_of_the_linear_operators_compute_the_same(block, n):
    layer = linear_layer(block)
    with torch.no_grad():
        layer.bias.copy_(whole_numbers(22))
    x, dy = whole_numbers(n, 37), whole_numbers(n, 22)
    parts = [t.detach() for t in state(layer)]
    same = {"rtol": 0, "atol": 0}
    y = linear_on_gpu(x, *parts, layer.bias, layer.grid)
    torch.testing.assert_close(y, bsr_linear(x, *parts, layer.bias, 22), **same)
    dx = linear_input_gradient_on_gpu(dy, *parts, layer.grid)
    torch.testing.assert_close(dx, bsr_linear_input_gradient(dy, *parts, 37), **same)
    dw = gathered_values_gradient(dy, x, *parts[1:], layer.grid)
    torch.testing.assert_close(dw, bsr_linear_values_gradient(dy, x, *parts), **same)


@pytest.mark.parametrize("block", [(1, 4), (4, 4), (16, 8)])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_gpu_halves_of_the_convolution_operators_compute_the_same(block, groups):
    layer = conv_layer(block, groups)
    with torch.no_grad():
        layer.bias.copy_(whole_numbers(20))
    image, dy = whole_numbers(2, 12, 7, 6), whole_numbers(2, 20, 4, 3)
    parts = [t.detach() for t in state(layer)]
    same = {"rtol": 0, "atol": 0}
    y = conv_on_gpu(image, *parts, layer.bias, layer.grid, WINDOW)
    torch.testing.assert_close(y, bsr_conv2d(image, *parts, layer.bias, 20, WINDOW), **same)
    weight = dense_kernel(*parts, layer.grid, WINDOW)
    torch.testing.assert_close(weight, layer.weight, **same)
    dx, dw = dense_conv_gradients(dy, image, weight, groups, WINDOW, (True, True))
    expected = bsr_conv2d_input_gradient(dy, *parts, list(image.shape), WINDOW)
    torch.testing.assert_close(dx, expected, **same)
    blocks = kept_blocks(dw, *parts[1:], layer.grid)
    torch.testing.assert_close(blocks, bsr_conv2d_values_gradient(dy, image, *parts, WINDOW), **same)


def test_a_change_of_the_weight_is_seen_and_what_was_packed_before_is_dropped():
    layer = linear_layer(bias=False)
    parts = [t.detach() for t in state(layer)]
    x = whole_numbers(40, 37)
    before = linear_on_gpu(x, *parts, None, layer.grid)
    held = len(packing._kept)
    for _ in range(3):
        with torch.no_grad():
            layer.values.mul_(2)
        after = linear_on_gpu(x, *(t.detach() for t in state(layer)), None, layer.grid)
    torch.testing.assert_close(after, 8 * before, rtol=0, atol=0)
    assert len(packing._kept) == held


def test_what_was_packed_goes_with_the_weight():
    packing._kept.clear()
    layer = linear_layer()
    layer(torch.randn(3, 37))
    bsr_linear(torch.randn(3, 37), *state(layer), None, 22)
    assert len(packing._kept) == 1
    del layer
    gc.collect()
    other = linear_layer()
    bsr_linear(torch.randn(3, 37), *state(other), None, 22)
    assert len(packing._kept) == 1


def test_tensors_on_several_devices_or_of_several_types_are_refused():
    layer = linear_layer()
    with pytest.raises(ShapeError, match="expected values on meta, where the input is, got cpu"):
        packing.check_devices(torch.zeros(3, 37, device="meta"), *state(layer), None)
    with pytest.raises(ShapeError, match=r"expected an input of torch.float32, got torch.float16"):
        bsr_linear(torch.zeros(3, 37, dtype=torch.float16), *state(layer), None, 22)
    half = layer.half()
    with pytest.raises(ShapeError, match="float32 on the CPU"):
        bsr_linear(torch.zeros(3, 37, dtype=torch.float16), *state(half), None, 22)


@pytest.mark.parametrize(
    "product",
    [
        lambda grid, *parts: bsr_linear(*parts, None, grid.m),
        lambda grid, *parts: linear_on_gpu(*parts, None, grid),
        lambda grid, x, *parts: linear_input_gradient_on_gpu(x[:, :22], *parts, grid),
    ],
    ids=["cpu", "gpu", "gpu transposed"],
)
def test_indices_are_checked_before_they_are_packed(product):
    layer = linear_layer()
    values, row_ptr, col_idx = state(layer)
    wrong = col_idx.clone()
    wrong[0] = 10_000
    with pytest.raises((ShapeError, ConfigError), match="col_idx"):
        product(layer.grid, torch.zeros(3, 37), values, row_ptr, wrong)
