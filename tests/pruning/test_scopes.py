"""Exactly n blocks in every scope, nothing regrows, controls keep what they promise to keep."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pysim.errors import ConfigError, ModelError, ShapeError
from pysim.models import InputShape, build_model
from pysim.pruning import (
    SCOPES,
    SCORES,
    EmptyLayerWarning,
    PruneConfig,
    dead_parts,
    describe_dead,
    kept_count,
    prunable_weights,
    prune_one_shot,
)
from pysim.pruning.scopes import LayerScores, apportion

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


def small(seed=0):
    """Three layers of very different sizes and weight scales, one of them grouped."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.Conv2d(8, 12, 3, groups=2),
        nn.Conv2d(12, 7, 1),
        nn.Flatten(),
        nn.Linear(7 * 4 * 4, 20),
        nn.Linear(20, 10),
    )
    with torch.no_grad():
        model[2].weight.mul_(0.01)
    return model


EXAMPLES = [(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8))]


def keep_of(masks):
    return {name: mask.keep.copy() for name, mask in masks.items()}


# synflow once: its 100 rounds take their time and go through the same counts.
SCORED = [
    (structured, score, scope)
    for structured in (False, True)
    for score in SCORES
    for scope in SCOPES
    if score != "synflow" or (scope == "global" and not structured)
]


@pytest.mark.parametrize(("structured", "score", "scope"), SCORED)
def test_every_score_in_every_scope_keeps_exactly_n(structured, score, scope):
    cases = (((2, 3), 0.9), ((1, 1), 0.35), ((4, 4), 0.0), ((16, 16), 0.5))
    for block, sparsity in cases[: 1 if score == "synflow" else None]:
        config = PruneConfig(
            block=block, sparsity=sparsity, score=score, scope=scope, structured=structured, prune_all=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyLayerWarning)
            masks = prune_one_shot(small(), config, examples=EXAMPLES)
        units = [m.keep.any(axis=2) if structured else m.keep for m in masks.values()]
        if structured:
            assert all((m.keep.all(axis=2) | ~m.keep.any(axis=2)).all() for m in masks.values())
        if scope == "layer":
            assert [u.sum() for u in units] == [kept_count(u.size, sparsity) for u in units]
        else:
            assert sum(u.sum() for u in units) == kept_count(sum(u.size for u in units), sparsity)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    levels=st.integers(1, 4),
    sparsity=st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_global_keeps_the_best_of_all_and_ties_go_to_the_lowest_index(sizes, levels, sparsity, seed):
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, levels, size).astype(float) for size in sizes]
    counts = SCOPES["global"]([LayerScores(scores=s, dims=(1, 1)) for s in scores], sparsity)
    flat = np.concatenate(scores)
    best = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[: kept_count(len(flat), sparsity)]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert counts == [sum(owner[i] == layer for i in best) for layer in range(len(sizes))]


@given(
    caps=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    part=st.floats(0, 1),
)
def test_apportioned_counts_sum_to_the_total_within_the_caps(caps, seed, part):
    total = round(sum(caps) * part)
    shares = np.random.default_rng(seed).random(len(caps)) + 0.01
    counts = apportion(shares, np.array(caps, dtype=float), total)
    assert sum(counts) == total
    assert all(0 <= count <= cap for count, cap in zip(counts, caps, strict=True))
    if total >= sum(cap > 0 for cap in caps):
        assert all(count > 0 for count, cap in zip(counts, caps, strict=True) if cap)


def test_erk_by_hand():
    """Layers of 4 x 4 and 16 x 16: shares 8 and 32 of 100 kept blocks, but only 16 exist in the first.

    In proportion: 20 and 80. The first holds 16; the other takes the remaining 84.
    """
    layers = [LayerScores(scores=np.zeros((n, n)), dims=(n, n)) for n in (4, 16)]
    assert SCOPES["erk"](layers, 1 - 100 / 272) == [16, 84]
    # 10 blocks: 2 and 8, no cap reached.
    assert SCOPES["erk"](layers, 1 - 10 / 272) == [2, 8]


def test_a_global_threshold_empties_a_layer_of_small_weights_and_says_so():
    config = PruneConfig(block=(2, 3), sparsity=0.5, scope="global", prune_all=True)
    with pytest.warns(EmptyLayerWarning, match=r"2\.weight"):
        masks = prune_one_shot(small(), config)
    (empty,) = [part for part in dead_parts(masks) if part.empty]
    assert empty.weight == "2.weight"
    assert empty.outputs == tuple(range(7))
    assert empty.inputs == tuple(range(12))
    assert not any("2.weight" in line for line in describe_dead(masks))
    normed = prune_one_shot(
        small(), PruneConfig(block=(2, 3), sparsity=0.5, scope="global-norm", prune_all=True)
    )
    assert normed["2.weight"].blocks_kept > 0


def test_dead_channels_by_hand():
    """Two groups of 2 outputs by 3 inputs, one by one: only weight (1, 2) of group 1 is large."""
    model = nn.Sequential(nn.Conv2d(6, 4, 1, groups=2, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].weight[3, 2] = 5
    masks = prune_one_shot(model, PruneConfig(block=(1, 1), sparsity=0.9, prune_all=True))
    (part,) = dead_parts(masks)
    assert (part.empty, part.outputs, part.inputs) == (False, (0, 1, 2), (0, 1, 2, 3, 4))
    assert describe_dead(masks) == [
        "0.weight: 3 output channel(s) without a weight (0, 1, 2), "
        "5 input channel(s) without a weight (0, 1, 2, 3, 4)"
    ]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("score", ["l1", "taylor", "random"])
def test_pruning_further_never_grows_a_block_back(scope, score):
    model = small()
    config = {"block": (2, 2), "score": score, "scope": scope, "prune_all": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyLayerWarning)
        masks = prune_one_shot(model, PruneConfig(sparsity=0.5, **config), examples=EXAMPLES)
        first = keep_of(masks)
        with torch.no_grad():  # what was pruned becomes the most attractive
            for name in masks:
                weight = model.get_parameter(name)
                weight[weight == 0] = 100
        masks = prune_one_shot(model, PruneConfig(sparsity=0.8, **config), masks=masks, examples=EXAMPLES)
    for name, mask in masks.items():
        assert not (mask.keep & ~first[name]).any()
    total = sum(mask.blocks_total for mask in masks.values())
    if scope != "layer":
        assert sum(mask.blocks_kept for mask in masks.values()) == kept_count(total, 0.8)


def test_less_sparsity_than_there_is_and_masks_of_other_blocks_are_refused():
    model = small()
    masks = prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.8))
    with pytest.raises(ConfigError, match="do not grow back"):
        prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5), masks=masks)
    with pytest.raises(ShapeError, match="mask of"):
        prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9), masks=masks)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16))
def test_a_shuffled_mask_keeps_every_layers_count_and_the_weights_it_uncovers(seed):
    chosen = prune_one_shot(small(), PruneConfig(block=(2, 2), sparsity=0.7, scope="erk"))
    model, dense = small(), small()
    config = PruneConfig(block=(2, 2), sparsity=0.7, scope="erk", mask="shuffle", seed=seed)
    masks = prune_one_shot(model, config)
    assert {n: m.blocks_kept for n, m in masks.items()} == {n: m.blocks_kept for n, m in chosen.items()}
    assert any((masks[name].keep != chosen[name].keep).any() for name in masks)
    for name, mask in masks.items():
        kept = int((model.get_parameter(name) != 0).sum())
        assert kept == mask.weights_kept
        weight = model.get_parameter(name)
        assert torch.equal(weight[weight != 0], dense.get_parameter(name)[weight != 0])


def test_random_blocks_keep_the_scopes_count():
    config = PruneConfig(block=(1, 1), sparsity=0.7, scope="global", mask="random", prune_all=True, seed=3)
    masks = prune_one_shot(small(), config)
    total = sum(mask.blocks_total for mask in masks.values())
    assert sum(mask.blocks_kept for mask in masks.values()) == kept_count(total, 0.7)
    # The small layer does not suffer for its small weights: its share is near 30 % and not 0.
    assert 10 <= masks["2.weight"].blocks_kept <= 45


def test_patterns_choose_layers():
    model = build_model("resnet20", GREY28)
    assert prunable_weights(model, only=["blocks.0.*"]) == ["blocks.0.conv1.weight", "blocks.0.conv2.weight"]
    assert prunable_weights(model, only=["conv", "fc.weight"]) == ["conv.weight", "fc.weight"]
    default = prunable_weights(model)
    without = prunable_weights(model, keep_dense=["blocks.8.*"])
    assert [name for name in default if name not in without] == [
        "blocks.8.conv1.weight",
        "blocks.8.conv2.weight",
    ]
    with pytest.raises(ConfigError, match=r"--only blocks\.9: expected the name of a layer") as caught:
        prunable_weights(model, only=["blocks.9"])
    assert "blocks.8.conv2" in caught.value.hint
    with pytest.raises(ModelError, match="left to prune"):
        prunable_weights(model, only=["conv"], keep_dense=["conv"])


def test_depthwise_convolutions_stay_dense_unless_asked():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    assert prunable_weights(model) == ["2.weight"]
    assert len(prunable_weights(model, prune_all=True)) == 3
