"""The networks have the shapes that the literature gives them."""

from __future__ import annotations

import pytest
import torch

from pysim.errors import ModelError
from pysim.models import MODELS, InputShape, build_model

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
