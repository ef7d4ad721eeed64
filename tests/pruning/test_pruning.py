"""Masks keep exactly the asked number of blocks, the best ones, and nothing regrows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pysim.errors import ConfigError, ModelError
from pysim.models import InputShape, build_model
from pysim.pruning import (
    PruneConfig,
    element_masks,
    kept_count,
    mean_magnitude,
    prunable_weights,
    prune_one_shot,
    top_blocks,
)
from pysim.workload import BlockGrid

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


@given(blocks=st.integers(1, 10**6), percent=st.integers(0, 99))
def test_the_kept_count_is_exact_rational_arithmetic(blocks, percent):
    """Half a block rounds towards pruning it; at least one block stays."""
    pruned = int(Fraction(percent, 100) * blocks + Fraction(1, 2))
    assert kept_count(blocks, percent / 100) == max(1, blocks - pruned)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 24), levels=st.integers(1, 5))
def test_exactly_the_best_blocks_stay_and_ties_go_to_the_lowest_index(seed, count, levels):
    scores = np.random.default_rng(seed).integers(0, levels, (2, 3, 4)).astype(float)
    keep = top_blocks(scores, count)
    assert keep.sum() == count
    ranked = sorted(range(24), key=lambda i: (-scores.flat[i], i))
    assert sorted(np.flatnonzero(keep)) == sorted(ranked[:count])


@given(
    m=st.integers(1, 9),
    channels=st.integers(1, 7),
    positions=st.integers(1, 3),
    bh=st.integers(1, 4),
    bw=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_average_over_real_elements_only(m, channels, positions, bh, bw, seed):
    grid = BlockGrid(m=m, k=channels * positions, positions=positions, bh=bh, bw=bw)
    w = np.random.default_rng(seed).integers(-8, 9, (2, m, grid.k)).astype(np.float32)
    scores = mean_magnitude(w, grid)
    rows, cols = grid.row_edges, grid.col_edges
    for index in np.ndindex(scores.shape):
        g, i, j = index
        block = np.abs(w[g, rows[i] : rows[i + 1], cols[j] : cols[j + 1]]).astype(np.float64)
        assert scores[index] == block.sum() / block.size  # sums of small integers are exact


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (1, 16), (16, 1), (3, 5)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_one_shot_pruning_keeps_the_exact_count_in_every_layer(block, sparsity):
    torch.manual_seed(0)
    model = build_model("resnet20", GREY28)
    masks = prune_one_shot(model, PruneConfig(block=block, sparsity=sparsity))
    assert len(masks) == 18
    weights = dict(model.named_parameters())
    for name, elements in element_masks(model, masks).items():
        mask = masks[name]
        assert mask.blocks_kept == kept_count(mask.blocks_total, sparsity)
        assert int(elements.sum()) == mask.weights_kept
        assert not (weights[name] * ~elements).any()
        assert int((weights[name] != 0).sum()) == mask.weights_kept  # random weights are not zero


def test_first_convolution_classifier_and_shortcuts_stay_dense_unless_asked():
    model = build_model("resnet20", GREY28)
    default = set(prunable_weights(model))
    everything = set(prunable_weights(model, prune_all=True))
    assert everything - default == {
        "conv.weight",
        "fc.weight",
        "blocks.3.shortcut.0.weight",
        "blocks.6.shortcut.0.weight",
    }


def test_a_block_is_output_channels_by_input_channels_at_one_kernel_position():
    """A 2 x 2 kernel over 2 channels; only kernel position (1, 0) of output channel 1 is large."""
    model = nn.Sequential(nn.Conv2d(2, 2, 2, bias=False), nn.Conv2d(2, 2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(0.1)
        model[1].weight[1, :, 1, 0] = 5
    masks = prune_one_shot(model, PruneConfig(block=(1, 2), sparsity=0.875))
    (mask,) = masks.values()
    assert mask.keep.tolist() == [[[False] * 4, [False, False, True, False]]]
    assert model[1].weight.nonzero().tolist() == [[1, 0, 1, 0], [1, 1, 1, 0]]


def test_a_grouped_convolution_is_pruned_group_by_group_with_one_count():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 12, 3, groups=4))
    masks = prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5))
    (mask,) = masks.values()
    assert mask.keep.shape == (4, 2, 9)
    assert mask.blocks_kept == 36
    elements = element_masks(model, masks)["1.weight"]
    assert torch.equal(model[1].weight != 0, elements)


def test_impossible_settings_are_refused():
    for sparsity in (-0.1, 1.0, 1.2, float("nan")):
        with pytest.raises(ConfigError, match="sparsity"):
            PruneConfig(block=(4, 4), sparsity=sparsity)
    with pytest.raises(ConfigError, match="block"):
        PruneConfig(block=(0, 4), sparsity=0.5)
    with pytest.raises(ModelError, match="left to prune"):
        prune_one_shot(nn.Sequential(nn.Conv2d(1, 4, 3)), PruneConfig(block=(4, 4), sparsity=0.5))


def test_a_weight_that_two_layers_share_is_left_dense_or_refused_by_name():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[2].weight = model[1].weight
    for settings in ({}, {"only": ("2",)}):
        with pytest.raises(ModelError, match="but 1 and 2 share one") as caught:
            prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5, **settings))
        assert caught.value.hint == "Leave them dense: --keep-dense 1 --keep-dense 2"
    masks = prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5, keep_dense=("1", "2")))
    assert list(masks) == ["0.weight"]
