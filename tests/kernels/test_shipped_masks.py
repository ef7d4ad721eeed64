"""Real masks: the shipped ResNet-20, pruned by magnitude, at every block size and on every instruction set.

Random masks are even; magnitude leaves some block rows full and others empty.
"""

import copy
import functools

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

import pysim
from pysim.models import InputShape, build_model, pretrained_path
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.training import load_weights

BLOCKS = [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (1, 16), (16, 1), (4, 2)]


@functools.cache
def shipped(block):
    """(the shipped network with 90 % of its blocks pruned, its masks)."""
    model = build_model("resnet20", InputShape(channels=1, height=28, width=28, num_classes=10))
    load_weights(model, pretrained_path("resnet20", "fashion-mnist"))
    masks = prune_one_shot(model, PruneConfig(block=block, sparsity=0.9))
    return model.eval(), masks


@pytest.mark.parametrize("block", BLOCKS)
def test_layers_of_the_shipped_network_are_exact(isa, block):
    """Sums of at most 576 products of whole numbers up to 8 are exact in float32."""
    model, masks = shipped(block)
    rng = np.random.default_rng(0)
    uneven = 0
    for name, mask in masks.items():
        conv, grid, keep = model.get_submodule(name.removesuffix(".weight")), mask.grid, mask.keep[0]
        w = rng.integers(1, 9, (grid.m, grid.k)).astype(np.float32) * grid.expand(keep)
        matrix = BsrMatrix.from_dense(w, grid, keep)
        uneven += len(set(np.diff(matrix.row_ptr))) > 1
        x = rng.integers(-8, 9, (grid.k, 9)).astype(np.float32)
        expected = w.astype(np.int64) @ x.astype(np.int64)
        np.testing.assert_array_equal(SpmmPlan(matrix, isa=isa, threads=2)(x), expected)
        image = rng.integers(-8, 9, (2, conv.in_channels, 7, 9)).astype(np.float32)
        plan = ConvPlan([matrix], kernel_size=(3, 3), stride=conv.stride, padding=(1, 1), isa=isa, threads=2)
        weight = torch.from_numpy(w).reshape(grid.m, 3, 3, -1).permute(0, 3, 1, 2)
        exact = conv2d(torch.from_numpy(image).double(), weight.double(), None, conv.stride, 1)
        np.testing.assert_array_equal(plan(image), exact.numpy())
    assert len(masks) == 18
    assert uneven > 9 or block[0] >= 32  # layers of one or two block rows have little to differ in


@pytest.mark.parametrize("block", BLOCKS)
def test_the_whole_shipped_network_is_as_near_to_the_exact_result_as_torch_is(block):
    """Both round; the reference is the network in float64. Folded weights are rounded once more."""
    model, _ = shipped(block)
    x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        rounded = model(x)
        exact = copy.deepcopy(model).double()(x.double())
    torch_error = float((rounded - exact).abs().max())
    for fast in (
        pysim.compile(model, x, threads=2),
        pysim.compress(model, x, block=block, only_if_faster=False).model,
    ):
        with torch.no_grad():
            assert float((fast(x) - exact).abs().max()) <= 4 * torch_error
