"""The networks have the shapes that the literature gives them."""

from __future__ import annotations

import pytest
import torch

from pysim.errors import ModelError
from pysim.lowering import trace
from pysim.models import MODELS, InputShape, build_model
from pysim.pruning import PruneConfig, prunable_weights, prune_one_shot

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)
RGB32 = InputShape(channels=3, height=32, width=32, num_classes=7)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [GREY28, RGB32])
def test_every_model_maps_images_to_logits(name, shape):
    model = build_model(name, shape).eval()
    images = torch.zeros(2, shape.channels, shape.height, shape.width)
    assert model(images).shape == (2, shape.num_classes)


def test_resnet20_has_the_weights_of_the_paper():
    """He et al. count 0.27 million; by hand, option B: 432 + 267,264 + 2,560 + 640 weights."""
    model = build_model("resnet20", InputShape(channels=3, height=32, width=32, num_classes=10))
    assert sum(p.numel() for p in model.parameters() if p.ndim >= 2) == 432 + 267_264 + 2_560 + 640


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet32", 32), ("resnet56", 56)])
def test_depth_counts_the_weighted_layers_of_the_main_path(name, layers):
    model = build_model(name, RGB32)
    main = [n for n, p in model.named_parameters() if p.ndim >= 2 and "shortcut" not in n]
    assert len(main) == layers


def test_an_unknown_model_and_too_small_images_are_refused():
    with pytest.raises(ModelError, match="expected one of resnet20"):
        build_model("resnet21", GREY28)
    with pytest.raises(ModelError, match="12 x 12"):
        build_model("lenet5", InputShape(channels=1, height=8, width=8, num_classes=10))


def matrix_weights(name, shape):
    model = build_model(name, shape)
    return sum(p.numel() for n, p in model.named_parameters() if p.ndim >= 2)


def test_the_larger_networks_have_the_weights_of_their_papers():
    """VGG-16 D: 14.7 million in its convolutions. WRN-16-4: 2.7 million (Zagoruyko and Komodakis, table 4).

    LeNet-300-100: 266,200 without biases. By hand for the rest: the sum over layers.
    """
    shape = InputShape(channels=3, height=32, width=32, num_classes=10)
    vgg = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 5 * 512**2)
    assert matrix_weights("vgg16", shape) == vgg + 5120
    assert 14.70e6 < vgg < 14.72e6
    assert 2.7e6 < matrix_weights("wrn16-4", shape) < 2.8e6
    assert matrix_weights("lenet300", GREY28) == 784 * 300 + 300 * 100 + 100 * 10
    pairs = [(32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    mobile = 27 * 32 + sum(9 * a + a * b for a, b in pairs) + 2560
    assert matrix_weights("mobilenet", shape) == mobile
    # Patches, positions, four layers of 12 x 64^2, classifier.
    assert matrix_weights("vit", shape) == 48 * 64 + 64 * 64 + 4 * 12 * 64**2 + 640


@pytest.mark.parametrize("name", ["vgg16", "wrn16-4", "mobilenet", "vit", "lenet300"])
def test_what_pruning_leaves_dense_in_each_network(name):
    model = build_model(name, GREY28)
    default, everything = prunable_weights(model), prunable_weights(model, prune_all=True)
    dense = [name.removesuffix(".weight") for name in everything if name not in default]
    expected = {
        "vgg16": ["stages.0.0", "fc"],
        "wrn16-4": ["conv", "blocks.0.shortcut", "blocks.2.shortcut", "blocks.4.shortcut", "fc"],
        "mobilenet": ["conv", *(f"pairs.{i}.depthwise" for i in range(7)), "fc"],
        "vit": ["patches", "fc"],
        "lenet300": ["fc3"],
    }
    assert dense == expected[name]


@pytest.mark.parametrize("name", ["wrn16-4", "mobilenet", "vit", "lenet300"])
def test_the_networks_can_be_lowered_pruned_and_trained(name):
    torch.manual_seed(0)
    model = build_model(name, GREY28)
    workload, _ = trace(model, torch.zeros(1, 1, 28, 28))
    named = {layer.weight for layer in workload.layers}
    masks = prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.5))
    assert set(masks) <= named
    loss = model.train()(torch.randn(4, 1, 28, 28)).square().mean()
    loss.backward()
    assert all(model.get_parameter(name).grad.isfinite().all() for name in masks)


def test_a_vision_transformer_needs_whole_patches():
    with pytest.raises(ModelError, match="multiples of 4"):
        build_model("vit", InputShape(channels=1, height=30, width=28, num_classes=10))
