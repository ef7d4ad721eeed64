"""What a block is in each layout, against brute force on PyTorch's own order of a weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pysim.config import Accelerator
from pysim.errors import ConfigError, ShapeError
from pysim.pruning import (
    LAYOUTS,
    PruneConfig,
    bsr_matrices,
    check_layout,
    dead_parts,
    describe_masks,
    element_masks,
    kept_count,
    miscounted_layers,
    pack_bits,
    prune_one_shot,
    rebuild_masks,
)
from pysim.sim import simulate_layer
from pysim.sparse import compress
from pysim.workload import BlockGrid, BlockMask


@st.composite
def problems(draw):
    """One convolution and what to prune of it, ragged or not, with groups or without."""
    groups = draw(st.sampled_from([1, 1, 2]))
    out, channels = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    model = nn.Sequential(nn.Conv2d(channels, out, kernel, groups=groups))
    config = PruneConfig(
        block=(draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        sparsity=draw(st.sampled_from([0.0, 0.3, 0.5, 0.9])),
        prune_all=True,
        layout=draw(st.sampled_from(list(LAYOUTS))),
        score=draw(st.sampled_from(["l1", "l2", "max", "random"])),
        mask=draw(st.sampled_from(["keep", "shuffle", "random"])),
    )
    return model, config


def units(config, groups, weight):
    """Each unit's elements, as a list of (output, input, kh, kw) index arrays, by brute force."""
    out, channels, height, width = weight.shape
    rows = out // groups
    bh, bw = config.block
    owner = {}
    for o, i, y, x in np.ndindex(weight.shape):
        across = {
            "kh,kw,cin": (y, x, i // bw),
            "kernel": (i // bw,),
            "oihw": ((i * height * width + y * width + x) // bw,),
        }[config.layout]
        owner.setdefault((o // rows, o % rows // bh, across), []).append((o, i, y, x))
    assert sum(map(len, owner.values())) == out * channels * height * width
    return [tuple(np.array(elements).T) for elements in owner.values()]


@settings(max_examples=80, deadline=None)
@given(problem=problems())
def test_units_stay_whole_and_as_many_stay_as_asked_for(problem):
    model, config = problem
    groups = model[0].groups
    masks = prune_one_shot(model, config)
    keep = element_masks(model, masks)["0.weight"].numpy()
    cut = units(config, groups, keep)
    kept = [bool(keep[unit].any()) for unit in cut]
    assert all(keep[unit].all() for unit, stays in zip(cut, kept, strict=True) if stays)
    assert sum(kept) == kept_count(len(cut), config.sparsity)
    assert miscounted_layers(masks, config) == []
    check_layout(model, masks, config.layout)
    weight = model[0].weight.detach().numpy()
    assert not weight[~keep].any()


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_the_units_that_stay_are_the_best_by_brute_force(problem):
    model, drawn = problem
    config = PruneConfig(
        block=drawn.block, sparsity=drawn.sparsity, prune_all=True, layout=drawn.layout, score="l2"
    )
    weight = model[0].weight.detach().numpy().astype(np.float64)
    masks = prune_one_shot(model, config)
    keep = element_masks(model, masks)["0.weight"].numpy()
    scores = {True: [np.inf], False: [0.0]}
    for unit in units(config, model[0].groups, weight):
        scores[bool(keep[unit].any())].append(float(np.sqrt(np.mean(weight[unit] ** 2))))
    # Sums in another order: a relative error of at most the number of summands times the unit roundoff.
    assert min(scores[True]) >= max(scores[False]) * (1 - weight.size * 2**-52)


@given(problem=problems())
@settings(max_examples=30, deadline=None)
def test_masks_survive_a_file_and_a_mask_of_another_order_is_not_mistaken(problem):
    model, config = problem
    masks = prune_one_shot(model, config)
    bits = {name: pack_bits(mask.keep) for name, mask in masks.items()}
    again = rebuild_masks(describe_masks(masks), bits)["0.weight"]
    assert again.grid == masks["0.weight"].grid
    assert (again.keep == masks["0.weight"].keep).all()
    dead = {part.weight: part for part in dead_parts(masks)}
    keep = element_masks(model, masks)["0.weight"].numpy()
    groups = model[0].groups
    by_group = keep.reshape(groups, -1, *keep.shape[1:])
    outputs = np.flatnonzero(~keep.any(axis=(1, 2, 3)))
    inputs = np.flatnonzero(~by_group.any(axis=(1, 3, 4)).ravel())
    part = dead.get("0.weight")
    assert (outputs.tolist(), inputs.tolist()) == (
        ([], []) if part is None else (list(part.outputs), list(part.inputs))
    )


def conv(kernel=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, kernel))


def pruned(layout, kernel=3, **changes):
    model = conv(kernel)
    settings = {"block": (2, 2), "sparsity": 0.5, "prune_all": True, "layout": layout, **changes}
    return model, prune_one_shot(model, PruneConfig(**settings))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_there_is_one_kernel_position_layouts_are_one(layout):
    _, masks = pruned(layout, kernel=1)
    _, usual = pruned("kh,kw,cin", kernel=1)
    assert masks["0.weight"].grid == usual["0.weight"].grid
    assert (masks["0.weight"].keep == usual["0.weight"].keep).all()


def test_blocks_that_straddle_positions_are_neither_simulated_nor_multiplied():
    model, masks = pruned("oihw")
    mask = masks["0.weight"]
    with pytest.raises(ConfigError, match="expected blocks at one kernel position, got") as refused:
        bsr_matrices(model, masks)
    assert "layout kh,kw,cin or kernel" in refused.value.hint
    with pytest.raises(ConfigError, match="straddle"):
        compress(model, torch.zeros(1, 4, 6, 6), masks=masks)
    with pytest.raises(ConfigError, match="straddle"):
        simulate_layer(mask.grid, mask.keep[0], 16, Accelerator(rows=4, cols=4))


def test_whole_kernels_are_ordinary_blocks_to_kernels_and_simulator():
    model, masks = pruned("kernel")
    image = torch.randn(1, 4, 6, 6)
    small = compress(model, image, masks=masks, only_if_faster=False)
    assert [layer.sparse for layer in small.layers] == [True]
    with torch.no_grad():
        torch.testing.assert_close(small.model(image), model(image))
    mask = masks["0.weight"]
    assert simulate_layer(mask.grid, mask.keep[0], 16, Accelerator(rows=4, cols=4)).cycles > 0


def test_masks_of_another_layout_are_not_pruned_further():
    model, single = pruned("kh,kw,cin")
    further = {"block": (2, 2), "sparsity": 0.8, "prune_all": True}
    with pytest.raises(ShapeError, match="expected whole kernels"):
        prune_one_shot(model, PruneConfig(**further, layout="kernel"), masks=single)
    with pytest.raises(ShapeError, match=r"2 x 2 in order oihw, got .* 2 x 2$"):
        prune_one_shot(model, PruneConfig(**further, layout="oihw"), masks=single)
    model, whole = pruned("kernel")
    after = prune_one_shot(model, PruneConfig(**further, layout="kernel"), masks=whole)["0.weight"]
    assert not (after.keep & ~whole["0.weight"].keep).any()


def test_an_unknown_layout_is_named():
    with pytest.raises(ConfigError, match="layout: expected one of kh,kw,cin, kernel, oihw, got 'hwio'"):
        PruneConfig(block=(1, 1), sparsity=0.5, layout="hwio")
    with pytest.raises(ConfigError, match="expected order kh,kw,cin or oihw"):
        BlockGrid(m=1, k=1, bh=1, bw=1, order="kernel")


def test_oihw_by_hand():
    """Two outputs, one input, 1 x 4 blocks over nine positions: columns 0-3, 4-7, 8."""
    grid = BlockGrid(m=2, k=9, positions=9, bh=1, bw=4, order="oihw")
    assert grid.shape == (2, 3)
    assert grid.sizes().tolist() == [[4, 4, 1], [4, 4, 1]]
    mask = BlockMask(grid=grid, keep=np.array([[[True, False, True], [False, True, False]]]))
    assert mask.weights_kept == 9
    weight = nn.Sequential(nn.Conv2d(1, 2, 3))
    kept = element_masks(weight, {"0.weight": mask})["0.weight"].int()
    assert kept.tolist() == [[[[1, 1, 1], [1, 0, 0], [0, 0, 1]]], [[[0, 0, 0], [0, 1, 1], [1, 1, 0]]]]
