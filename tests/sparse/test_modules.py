"""Block-sparse layers do what torch's dense layers do with the same weight, forward, backward and on disk."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrConv2d, BsrLinear, BsrMatrix
from pysim.workload import BlockGrid

SEEDS = st.integers(0, 2**32 - 1)
BLOCKS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def whole_numbers(module_or_tensor, seed):
    """Fills with integers from -8 to 8, so that float32 sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tensors = (
            module_or_tensor.parameters() if isinstance(module_or_tensor, nn.Module) else [module_or_tensor]
        )
        for tensor in tensors:
            tensor.copy_(torch.randint(-8, 9, tensor.shape, generator=generator))
    return module_or_tensor


def prune(layer, block, seed):
    """Zeroes half of the blocks in place; returns the masks."""
    rng = np.random.default_rng(seed)
    weight = layer.weight.detach()
    groups = getattr(layer, "groups", 1)
    positions = int(np.prod(weight.shape[2:]))
    grid = BlockGrid(
        m=len(weight) // groups, k=weight[0].numel(), positions=positions, bh=block[0], bw=block[1]
    )
    keep = rng.random((groups, *grid.shape)) < 0.5
    mask = torch.from_numpy(np.stack([grid.expand(part) for part in keep])).reshape(len(weight), -1)
    if weight.ndim == 4:
        out, channels, height, width = weight.shape
        mask = mask.view(out, height, width, channels).permute(0, 3, 1, 2)
    weight.mul_(mask)
    return keep, mask


def run_both(dense, sparse, x, seed):
    """(output, dX, dW, dbias) of the dense layer in float64 and of the sparse one: exact on integers."""
    results = []
    reference = copy.deepcopy(dense).double()
    for layer, source in ((reference, x.double()), (sparse, x.clone())):
        source.requires_grad_()
        y = layer(source)
        y.backward(whole_numbers(torch.empty_like(y), seed))
        weight_gradient = layer.weight.grad if layer is reference else layer.values.grad
        bias_gradient = None if layer.bias is None else layer.bias.grad
        results.append((y.detach(), source.grad, weight_gradient, bias_gradient))
    return results


def check_equal(dense, sparse, keep, x, seed):
    expected, found = run_both(dense, sparse, x, seed)
    for i in (0, 1, 3):
        if expected[i] is not None:
            torch.testing.assert_close(found[i].double(), expected[i], rtol=0, atol=0)
    packed = type(sparse).from_dense(with_weight(dense, expected[2].float()), block_of(sparse), keep)
    torch.testing.assert_close(found[2], packed.values.detach(), rtol=0, atol=0)


def with_weight(dense, weight):
    other = copy.deepcopy(dense)
    with torch.no_grad():
        other.weight.copy_(weight)
    return other


def block_of(sparse):
    return sparse.grid.bh, sparse.grid.bw


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 40),
    inputs=st.integers(1, 40),
    lead=st.lists(st.integers(0, 5), max_size=3),
    bias=st.booleans(),
    block=BLOCKS,
    seed=SEEDS,
)
def test_linear_layers_agree_exactly_on_integers(out, inputs, lead, bias, block, seed):
    dense = whole_numbers(nn.Linear(inputs, out, bias=bias), seed)
    keep, _ = prune(dense, block, seed)
    sparse = BsrLinear.from_dense(dense, block, keep)
    check_equal(dense, sparse, keep, whole_numbers(torch.empty(*lead, inputs), seed + 1), seed + 2)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([1, 1, 2, 5]),
    channels=st.integers(1, 6),
    out=st.integers(1, 6),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    mode=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    batch=st.sampled_from([None, 1, 3]),
    bias=st.booleans(),
    block=BLOCKS,
    seed=SEEDS,
)
def test_convolution_layers_agree_exactly_on_integers(
    groups, channels, out, kernel, stride, padding, mode, batch, bias, block, seed
):
    dense = nn.Conv2d(
        groups * channels, groups * out, kernel, stride, padding, 1, groups, bias, padding_mode=mode
    )
    keep, _ = prune(whole_numbers(dense, seed), block, seed)
    sparse = BsrConv2d.from_dense(dense, block, keep)
    size = (groups * channels, 7, 9) if batch is None else (batch, groups * channels, 7, 9)
    check_equal(dense, sparse, keep, whole_numbers(torch.empty(size), seed + 1), seed + 2)


@pytest.mark.parametrize("kernel", [(2, 4), (3, 3), (1, 2)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_padding_by_name_pads_as_torch_does(kernel, padding, mode):
    dense = whole_numbers(
        nn.Conv2d(4, 6, kernel, padding=padding, dilation=(1, 2), padding_mode=mode), seed=0
    )
    x = whole_numbers(torch.empty(2, 4, 8, 9), seed=1)
    sparse = BsrConv2d.from_dense(dense, (2, 2))
    expected = dense.double()(x.double())
    torch.testing.assert_close(sparse(x).double(), expected, rtol=0, atol=0)
    torch.testing.assert_close(sparse.to_dense()(x).double(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_input_layout_and_inference_mode_change_nothing(channels_last):
    dense = whole_numbers(nn.Conv2d(4, 6, 3, padding=1), seed=0)
    sparse = BsrConv2d.from_dense(dense, (2, 2))
    x = whole_numbers(torch.empty(2, 4, 8, 9), seed=1)
    expected = sparse(x).detach()
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    y = sparse(x)  # trained
    assert torch.equal(y, expected)
    with torch.inference_mode():
        z = sparse(x)
        assert torch.equal(z, expected)
        assert y.is_contiguous() == z.is_contiguous() == dense(x).is_contiguous() == (not channels_last)
        made_inside = BsrConv2d.from_dense(dense, (2, 2))
        assert torch.equal(made_inside(x), expected)
        made_inside.values.zero_()
        assert torch.equal(made_inside(x), sparse.bias.view(1, -1, 1, 1).expand_as(expected))


def test_a_step_of_an_optimiser_is_the_masked_dense_step():
    """Momentum and weight decay too: what is stored moves as the dense weight under a mask would."""
    torch.manual_seed(0)
    dense = whole_numbers(nn.Linear(12, 10), seed=0)
    keep, mask = prune(dense, (4, 4), seed=0)
    sparse = BsrLinear.from_dense(dense, (4, 4), keep)
    optimisers = [
        torch.optim.SGD(layer.parameters(), lr=0.25, momentum=0.5, weight_decay=0.5)  # powers of two: exact
        for layer in (dense, sparse)
    ]
    for step in range(3):
        x = whole_numbers(torch.empty(5, 12), seed=step)
        gradient = whole_numbers(torch.empty(5, 10), seed=step + 9)
        for layer, optimiser in zip((dense, sparse), optimisers, strict=True):
            optimiser.zero_grad()
            layer(x).backward(gradient)
            optimiser.step()
        with torch.no_grad():
            dense.weight.mul_(mask)
        assert torch.equal(sparse.weight, dense.weight)
        assert torch.equal(sparse.bias, dense.bias)
        assert torch.equal(sparse(x), dense(x))


def test_only_the_gradients_that_are_asked_for_are_computed():
    sparse = BsrLinear.from_dense(nn.Linear(6, 4), (2, 2))
    x = torch.ones(3, 6)
    sparse.values.requires_grad_(False)
    sparse(x).sum().backward()
    assert sparse.values.grad is None
    assert torch.equal(sparse.bias.grad, torch.full((4,), 3.0))
    x.requires_grad_()
    sparse.bias.requires_grad_(False)
    sparse(x).sum().backward()
    torch.testing.assert_close(x.grad, sparse.weight.sum(0).expand(3, 6))


def test_weights_changed_between_forward_and_backward_are_an_error_as_in_torch():
    sparse = BsrLinear.from_dense(nn.Linear(6, 4), (2, 2))
    y = sparse(torch.ones(3, 6))
    with torch.no_grad():
        sparse.values.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_of_real_numbers_stay_within_the_rounding_bound():
    """|dX - exact| <= gamma(m) |W|^T |dY|, |dW - exact| <= gamma(n) |dY| |X|^T; u = 2**-24 (Higham, 3.1)."""
    torch.manual_seed(0)
    dense = nn.Linear(60, 50)
    keep, mask = prune(dense, (4, 4), seed=0)
    sparse = BsrLinear.from_dense(dense, (4, 4), keep)
    x = torch.randn(200, 60, requires_grad=True)
    dy = torch.randn(200, 50)
    sparse(x).backward(dy)
    w64, x64, dy64 = dense.weight.detach().double(), x.detach().double(), dy.double()

    def gamma(terms):
        return sum(terms * u / (1 - terms * u) for u in (2.0**-24, 2.0**-53))

    assert ((x.grad - dy64 @ w64).abs() <= gamma(50) * (dy64.abs() @ w64.abs())).all()
    dw = BsrLinear(
        BsrMatrix(
            grid=sparse.grid,
            row_ptr=sparse.row_ptr[0].numpy(),
            col_idx=sparse.col_idx.numpy(),
            values=sparse.values.grad.numpy(),
        )
    ).weight
    assert ((dw - (dy64.t() @ x64) * mask).abs() <= gamma(200) * (dy64.abs().t() @ x64.abs())).all()


def network(block=(4, 4), seed=0):
    torch.manual_seed(seed)
    conv, linear = nn.Conv2d(4, 8, 3, groups=2), nn.Linear(8, 5)
    prune(conv, block, seed)
    prune(linear, block, seed)
    return nn.Sequential(
        BsrConv2d.from_dense(conv, block),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        BsrLinear.from_dense(linear, block),
    )


def test_state_goes_through_safetensors_even_with_other_kept_blocks():
    saved, other = network(seed=0), network(seed=1)
    x = torch.randn(2, 4, 6, 6)
    assert saved[0].values.shape != other[0].values.shape
    assert not torch.equal(saved(x), other(x))
    other.load_state_dict(load(save(saved.state_dict())))
    assert torch.equal(saved(x), other(x))
    other(x).sum().backward()
    assert other[0].values.grad.shape == saved[0].values.shape


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("4.col_idx", lambda t: t + 1000, "BSR col_idx: expected strictly rising indices"),
        ("0.col_idx", lambda t: t.flip(0).contiguous(), "BSR col_idx: expected strictly rising"),
        ("4.col_idx", lambda t: t.long(), "BSR col_idx: expected int32"),
        ("4.col_idx", lambda t: t[:-1], "BSR row_ptr: expected counts that add up"),
        ("4.row_ptr", lambda t: -t, "BSR row_ptr: expected counts"),
        ("4.row_ptr", lambda t: t[0], "BSR row_ptr: expected 1 groups"),
        ("4.row_ptr", lambda t: t[:, :-1].contiguous(), "BSR row_ptr"),
        ("0.row_ptr", lambda t: t[:1], "BSR row_ptr: expected 2 groups"),
        ("4.values", lambda t: t[:-1], "BSR values: expected float32"),
        ("4.values", lambda t: t.reshape(-1, 2, 8), "BSR values: expected float32"),
    ],
)
def test_a_state_with_indices_out_of_place_is_refused_and_changes_nothing(name, change, message):
    module = network()
    x = torch.randn(2, 4, 6, 6)
    before = module(x)
    state = module.state_dict()
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict({**state, name: change(state[name])})
    assert torch.equal(module(x), before)


def test_copies_and_pickles_compute_the_same():
    module = network()
    x = torch.randn(2, 4, 6, 6)
    y = module(x)
    assert torch.equal(copy.deepcopy(module)(x), y)
    assert torch.equal(pickle.load(io.BytesIO(pickle.dumps(module)))(x), y)


def test_a_layer_becomes_dense_again_and_keeps_its_mode():
    module = network().eval()
    dense = nn.Sequential(*(layer.to_dense() if hasattr(layer, "grid") else layer for layer in module))
    assert not any(layer.training for layer in dense)
    for layer in (0, 4):
        assert torch.equal(dense[layer].weight, module[layer].weight)
        assert torch.equal(dense[layer].bias, module[layer].bias)


def test_threads_do_not_change_the_bits():
    module, x = network(), torch.randn(16, 4, 30, 30)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(module(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_bad_inputs_and_settings_are_refused():
    linear = BsrLinear.from_dense(nn.Linear(6, 4), (2, 2))
    with pytest.raises(ShapeError, match=r"BsrLinear: expected shape \(..., 6\), got \(3, 5\)"):
        linear(torch.ones(3, 5))
    with pytest.raises(ShapeError, match=r"spmm input: expected float32, got torch\.float64"):
        linear(torch.ones(3, 6, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"expected float32 values on the CPU, got torch\.float64"):
        copy.deepcopy(linear).double()(torch.ones(3, 6))
    with pytest.raises(ShapeError, match=r"weight: expected float32 on the CPU, got torch\.float64"):
        BsrLinear.from_dense(nn.Linear(6, 4).double(), (2, 2))
    with pytest.raises(ShapeError, match=r"bias of shape \(4,\), got \(5,\)"):
        BsrLinear(linear.matrices()[0], torch.ones(5))
    with pytest.raises(ShapeError, match=r"block mask: expected \(1, block rows, columns\)"):
        BsrLinear.from_dense(nn.Linear(6, 4), (2, 2), np.ones((2, 3), bool))
    with pytest.raises(ConfigError, match="one kernel position, got 3"):
        BsrLinear(BsrMatrix.from_dense(np.ones((2, 6)), BlockGrid(m=2, k=6, positions=3, bh=1, bw=1)))
    conv = BsrConv2d.from_dense(nn.Conv2d(6, 4, 3), (2, 2))
    with pytest.raises(ShapeError, match=r"BsrConv2d: expected shape \(N, 6, H, W\), got \(1, 5, 9, 9\)"):
        conv(torch.ones(1, 5, 9, 9))
    with pytest.raises(ConfigError, match="a padded side of at least 3, got 2"):
        conv(torch.ones(1, 6, 2, 9))
    with pytest.raises(ConfigError, match="padding mode"):
        BsrConv2d(conv.matrices(), kernel_size=(3, 3), padding_mode="mirror")
    with pytest.raises(ConfigError, match="padding of two or four integers"):
        BsrConv2d(conv.matrices(), kernel_size=(3, 3), padding=(1, 2, 3))
    with pytest.raises(ConfigError, match="matrices of 25 kernel positions, got 9"):
        BsrConv2d(conv.matrices(), kernel_size=(5, 5))
