"""What is lowered is what ran: every product, with its weight, and everything else by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pysim.errors import ModelError
from pysim.lowering import input_matrix, other_matrix, output_matrix, trace, weight_matrix
from pysim.models import MODELS, InputShape, build_model
from pysim.pruning import PruneConfig, prune_one_shot

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


def assert_products_are_exact(model: nn.Module, image: Tensor) -> None:
    """W @ X equals torch's output, bit for bit on integers small enough for float32."""
    names = frozenset(layer.name for layer in trace(model, image)[0].layers)
    workload, activations = trace(model, image, keep_activations=names)
    parameters = dict(model.named_parameters())
    for layer in workload.layers:
        w = weight_matrix(layer, parameters[layer.weight])
        x = input_matrix(layer, activations[layer.name].input)
        assert w.shape == (layer.groups, layer.m, layer.k)
        assert x.shape == (layer.groups, layer.k, layer.n)
        np.testing.assert_array_equal(w @ x, output_matrix(layer, activations[layer.name].output))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_a_convolution_of_any_geometry_equals_its_matrix_product(data, seed):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    conv = nn.Conv2d(
        groups * draw(st.integers(1, 4)),
        groups * draw(st.integers(1, 4)),
        kernel,
        stride=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randint(-8, 9, parameter.shape))
    image = torch.randint(-8, 9, (draw(st.integers(1, 3)), conv.in_channels, 7, 6)).float()
    if draw(st.booleans()):
        image = image.contiguous(memory_format=torch.channels_last)
    assert_products_are_exact(nn.Sequential(conv), image)


@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_model_equals_its_products(name):
    torch.manual_seed(0)
    model = build_model(name, GREY28).eval()
    prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9))
    image = torch.randn(2, 1, 28, 28)
    names = frozenset(layer.name for layer in trace(model, image)[0].layers)
    workload, activations = trace(model, image, keep_activations=names)
    parameters = dict(model.named_parameters())
    attends = name == "vit"  # a product of two activations has no weight
    assert any(layer.weight is None for layer in workload.layers) == attends
    u = 2.0**-24
    for layer in workload.layers:
        activation = activations[layer.name]
        left = (
            other_matrix(activation.other)
            if layer.weight is None
            else weight_matrix(layer, parameters[layer.weight])
        )
        w = left.astype(np.float64)
        x = input_matrix(layer, activation.input).astype(np.float64)
        bound = 2 * (layer.k + 2) * u * (np.abs(w) @ np.abs(x) + 1)  # one addition more for the bias
        assert np.all(np.abs(w @ x - output_matrix(layer, activations[layer.name].output)) <= bound)


def test_resnet20_is_lowered_layer_by_layer():
    workload, _ = trace(build_model("resnet20", GREY28), torch.zeros(1, 1, 28, 28))
    shapes = [(layer.m, layer.k, layer.n) for layer in workload.layers]
    assert len(shapes) == 22
    assert shapes[0] == (16, 9, 784)
    assert shapes[1:7] == [(16, 144, 784)] * 6
    assert shapes[7:9] == [(32, 144, 196), (32, 288, 196)]
    assert shapes[-1] == (10, 64, 1)
    # By hand: 9 x 16 + 6 x 144 x 16 at 784, 144 x 32 + 5 x 288 x 32 + 16 x 32 at 196, ...
    by_hand = 784 * (144 + 13824) + 196 * (4608 + 46080 + 512) + 49 * (18432 + 184320 + 2048) + 640
    assert sum(layer.macs for layer in workload.layers) == by_hand


def test_what_is_not_a_product_is_listed_with_its_share():
    workload, _ = trace(build_model("resnet20", GREY28), torch.zeros(1, 1, 28, 28))
    ops = {op.op for op in workload.unmapped}
    assert ops == {"native_batch_norm", "relu", "add", "mean"}
    relu = sum(op.operations for op in workload.unmapped if op.op == "relu")
    assert relu == 7 * 16 * 784 + 6 * 32 * 196 + 6 * 64 * 49
    total = sum(op.operations for op in workload.unmapped)
    macs = sum(layer.macs for layer in workload.layers)
    assert workload.unmapped_share == total / (total + 2 * macs)


def test_a_batch_norm_folds_only_into_the_layer_right_before_it():
    direct = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    workload, _ = trace(direct, torch.zeros(1, 1, 8, 8))
    assert [(op.module, op.op, op.foldable) for op in workload.unmapped] == [
        ("1", "native_batch_norm", True),
        ("2", "relu", False),
        ("3", "native_batch_norm", False),
    ]
    resnet, _ = trace(build_model("resnet20", GREY28), torch.zeros(1, 1, 28, 28))
    assert {op.op for op in resnet.unmapped if op.foldable} == {"native_batch_norm"}
    assert {op.op for op in resnet.unmapped if not op.foldable} == {"relu", "add", "mean"}


def test_attention_is_seen_as_its_products():
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    workload, _ = trace(model, torch.randn(2, 5, 32))
    assert [(x.name, x.m, x.k, x.n, x.groups) for x in workload.layers] == [
        ("self_attn", 96, 32, 10, 1),
        ("self_attn#2", 5, 8, 5, 8),
        ("self_attn#3", 8, 5, 5, 8),
        ("self_attn.out_proj", 32, 32, 10, 1),
        ("linear1", 64, 32, 10, 1),
        ("linear2", 32, 64, 10, 1),
    ]
    assert [x.weight for x in workload.layers].count(None) == 2
    assert "_safe_softmax" in {op.op for op in workload.unmapped}


def test_a_product_written_as_a_function_is_seen_like_a_module():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu_(nn.functional.linear(x, self.w)) @ torch.ones(3, 2)

    workload, activations = trace(Functional(), torch.randn(4, 5), keep_activations=frozenset({"network"}))
    assert [(x.name, x.weight, x.m, x.k, x.n) for x in workload.layers] == [
        ("network", "w", 3, 5, 4),
        ("network#2", None, 2, 3, 4),
    ]
    # relu_ works in place; what was kept is from before it.
    assert (activations["network"].output < 0).any()


def test_a_module_that_runs_twice_gives_two_layers():
    shared = nn.Linear(4, 4)
    workload, _ = trace(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(1, 4))
    assert [(x.name, x.weight) for x in workload.layers] == [("0", "0.weight"), ("0#2", "0.weight")]


def test_the_mode_of_the_model_is_left_as_it_was():
    model = build_model("resnet20", GREY28).train()
    before = model.bn.running_mean.clone()
    trace(model, torch.randn(2, 1, 28, 28))
    assert model.training
    assert torch.equal(model.bn.running_mean, before)


def test_what_cannot_be_lowered_is_refused():
    with pytest.raises(ModelError, match="transposed"):
        trace(nn.ConvTranspose2d(1, 1, 3), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ModelError, match="3 dimensions"):
        trace(nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 4))
    with pytest.raises(ModelError, match="at least one"):
        trace(nn.ReLU(), torch.zeros(1))
