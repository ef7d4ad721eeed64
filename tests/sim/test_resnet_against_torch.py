"""Every layer of ResNet-20, pruned at 4 x 4, stepped register by register and compared with torch."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, linear

from pysim import simulate_gemm
from pysim.config import Accelerator
from pysim.data import load_dataset
from pysim.lowering import input_matrix, output_matrix, trace, weight_matrix
from pysim.models import InputShape, build_model, pretrained_path
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.sim import simulate_layer
from pysim.training import apply_masks, load_weights
from pysim.workload import BlockMask

LAYERS = 22  # 19 convolutions of 3 x 3, two shortcuts of 1 x 1, the classifier


@cache
def network():
    """(layers, weights, masks, activations) of the shipped network on one test image."""
    dataset = load_dataset("fashion-mnist")
    height, width = dataset.image_size
    shape = InputShape(channels=1, height=height, width=width, num_classes=10)
    model = build_model("resnet20", shape).eval()
    load_weights(model, pretrained_path("resnet20", dataset.name))
    masks = prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.8, prune_all=True))
    apply_masks(model, element_masks(model, masks))
    mean, std = dataset.mean[0], dataset.std[0]
    image = (torch.from_numpy(dataset.test_images[:1].copy()).float() - mean) / std
    workload, _ = trace(model, image)
    names = frozenset(layer.name for layer in workload.layers)
    _, activations = trace(model, image, keep_activations=names)
    return workload.layers, dict(model.named_parameters()), masks, activations


def mask_of(layer):
    return network()[2].get(layer.weight) or BlockMask.all_kept(layer.grid(4, 4), layer.groups)


def step(layer, mask, w, x, hw):
    """The cycle engine's output (m, n); its counts are those of the event engine."""
    grid = mask.grid
    counts = simulate_layer(grid, mask.keep[0], layer.n, hw, conv=layer.conv)
    stepped = simulate_gemm(
        w,
        x,
        block=(4, 4),
        accelerator=hw,
        engine="cycle",
        mask=mask.keep[0],
        positions=grid.positions,
        conv=layer.conv,
    )
    assert (stepped.cycles, stepped.folds, stepped.macs) == (counts.cycles, counts.folds, counts.macs)
    return stepped.output


def quantized(tensor):
    """To whole numbers from -127 to 127, as int8 inference does."""
    return (tensor * (127 / tensor.abs().max())).round().to(torch.int8)


def product(layer, weight, source):
    """torch's own convolution or linear layer in float64: exact on whole numbers of this size."""
    w, x = weight.double(), source.double()
    if layer.conv is None:
        return linear(x, w)
    c = layer.conv
    return conv2d(x, w, None, c.stride, c.padding, c.dilation, layer.groups)


MACHINES = [
    Accelerator(rows=16, cols=16, dataflow=dataflow, skip=skip)
    for dataflow, skip in (("ws", "gather"), ("os", "group"), ("is", "gather"), ("ws", "mux"), ("os", "none"))
]
each_machine = pytest.mark.parametrize(
    "hw",
    [MACHINES[0], *(pytest.param(hw, marks=pytest.mark.slow) for hw in MACHINES[1:])],
    ids=lambda hw: f"{hw.dataflow}-{hw.skip}",
)


@each_machine
def test_float32_outputs_are_those_of_torch_within_the_rounding_of_their_sums(hw):
    """Two float32 sums of the same k products differ by at most 2 gamma_k sum(|w| |x|): Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1. One product more is for the bias that was taken off."""
    layers, weights, _, activations = network()
    assert len(layers) == LAYERS
    worst = 0.0
    for layer in layers:
        activation = activations[layer.name]
        w = weight_matrix(layer, weights[layer.weight])[0]
        x = input_matrix(layer, activation.input)[0]
        y = step(layer, mask_of(layer), w, x, hw)
        k, u = layer.k + 1, 2.0**-24
        bound = 2 * k * u / (1 - k * u) * (np.abs(w.astype(np.float64)) @ np.abs(x.astype(np.float64)))
        difference = np.abs(y.astype(np.float64) - output_matrix(layer, activation.output)[0])
        assert (difference <= bound).all(), layer.name
        worst = max(worst, float((difference / np.maximum(bound, np.finfo(np.float64).tiny)).max()))
    print(f"{hw.dataflow} {hw.skip}: largest difference is {100 * worst:.2f} % of its bound")


@each_machine
def test_int8_outputs_are_those_of_torch_bit_for_bit(hw):
    layers, weights, _, activations = network()
    for layer in layers:
        weight = quantized(weights[layer.weight].detach())
        source = quantized(activations[layer.name].input)
        w = weight_matrix(layer, weight)[0]
        x = input_matrix(layer, source.float())[0].astype(np.int8)
        y = step(layer, mask_of(layer), w, x, hw)
        expected = output_matrix(layer, product(layer, weight, source))[0]
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, expected, err_msg=layer.name)


def test_the_comparison_sees_one_weight_and_one_position_that_are_wrong():
    """int8: one weight one step off, or one column of the input moved, and the outputs differ."""
    layers, weights, _, activations = network()
    layer = layers[5]
    weight = quantized(weights[layer.weight].detach())
    source = quantized(activations[layer.name].input)
    w = weight_matrix(layer, weight)[0].copy()
    x = input_matrix(layer, source.float())[0].astype(np.int8)
    expected = output_matrix(layer, product(layer, weight, source))[0]
    row, col = np.argwhere(w)[0]
    w[row, col] += 1
    assert (step(layer, mask_of(layer), w, x, MACHINES[0]) != expected).any()
    w[row, col] -= 1
    assert (step(layer, mask_of(layer), w, np.roll(x, 1, axis=1), MACHINES[0]) != expected).any()
