"""Every score against a loop over blocks; gradients against the loss itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from pysim.errors import ConfigError
from pysim.models import InputShape, build_model
from pysim.pruning import SCORES, PruneConfig, kept_count, prune_one_shot
from pysim.pruning.gradients import flow_gradients, loss_gradients
from pysim.pruning.scores import ScoreInput
from pysim.workload import BlockGrid

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


def examples(count=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 28, 28, generator=generator)
    return [(images, torch.arange(count) % 10)]


BY_HAND = {
    "l1": lambda w, g: np.abs(w).sum() / w.size,
    "l2": lambda w, g: np.sqrt((w**2).sum() / w.size),
    "max": lambda w, g: np.abs(w).max(),
    "taylor": lambda w, g: np.abs(w * g).sum() / w.size,
    "snip": lambda w, g: abs((w * g).sum()) / w.size,
    "synflow": lambda w, g: np.abs(w * g).sum() / w.size,
}


@pytest.mark.parametrize("name", BY_HAND)
@given(
    m=st.integers(1, 9),
    channels=st.integers(1, 7),
    positions=st.integers(1, 3),
    bh=st.integers(1, 4),
    bw=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_score_is_its_definition_over_the_real_elements_of_a_block(
    name, m, channels, positions, bh, bw, seed
):
    """Sums of small integers are exact in whatever order, so the comparison is too."""
    grid = BlockGrid(m=m, k=channels * positions, positions=positions, bh=bh, bw=bw)
    rng = np.random.default_rng(seed)
    w, g = rng.integers(-8, 9, (2, 2, m, grid.k)).astype(np.float32)
    scores = SCORES[name].value(ScoreInput(weights=w, gradients=g, grid=grid, rng=rng))
    rows, cols = grid.row_edges, grid.col_edges
    for index in np.ndindex(scores.shape):
        group, i, j = index
        at = (group, slice(rows[i], rows[i + 1]), slice(cols[j], cols[j + 1]))
        assert scores[index] == BY_HAND[name](w[at].astype(np.float64), g[at].astype(np.float64))


def test_every_score_but_the_random_one_has_a_definition_here():
    assert set(SCORES) == {*BY_HAND, "random"}


def test_scores_of_single_weights_rank_alike_where_theory_says_so():
    """With blocks of one weight, mean, root mean square and maximum are the same number; so are the gradient
    scores."""
    torch.manual_seed(0)
    kept = {}
    for score in ("l1", "l2", "max", "taylor", "snip"):
        model = build_model("lenet5", GREY28)
        torch.manual_seed(1)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        masks = prune_one_shot(
            model, PruneConfig(block=(1, 1), sparsity=0.7, score=score), examples=examples()
        )
        kept[score] = np.concatenate([mask.keep.ravel() for mask in masks.values()])
    assert (kept["l1"] == kept["l2"]).all()
    assert (kept["l1"] == kept["max"]).all()
    assert (kept["taylor"] == kept["snip"]).all()
    assert (kept["l1"] != kept["taylor"]).any()


def test_the_gradient_is_that_of_the_mean_loss_over_all_examples_and_the_model_is_untouched():
    torch.manual_seed(0)
    model = build_model("resnet20", GREY28).eval()
    (images, labels) = examples(8)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    model.train()
    loss = sum(cross_entropy(model(i), y, reduction="sum") / 8 for i, y in split)
    expected = torch.autograd.grad(loss, model.fc.weight)[0]
    model.load_state_dict(before)
    model.eval()
    gradients = loss_gradients(model, split)
    torch.testing.assert_close(gradients["fc.weight"], expected)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flow_through_two_linear_layers_is_the_product_of_absolute_weights():
    """R = 1' |B| |A| 1, so dR/dA[i, j] = sum of column i of |B|."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 4, bias=False))
    gradients = flow_gradients(model, [(torch.zeros(1, 3), torch.zeros(1))])
    columns = model[2].weight.detach().double().abs().sum(dim=0)
    torch.testing.assert_close(gradients["0.weight"], columns[:, None].expand(2, 3))


def test_synflow_conserves_flow_where_one_pass_would_cut_a_layer_off():
    """A layer of tiny weights behind a wide one: a single pass at this sparsity empties it, 100 rounds do not
    (Tanaka et al., section 5)."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 100, bias=False),
        nn.ReLU(),
        nn.Linear(100, 100, bias=False),
        nn.ReLU(),
        nn.Linear(100, 10, bias=False),
    )
    config = PruneConfig(block=(1, 1), sparsity=0.998, score="synflow", scope="global", prune_all=True)
    masks = prune_one_shot(model, config, examples=[(torch.zeros(1, 20), torch.zeros(1))])
    assert all(mask.blocks_kept for mask in masks.values())
    assert sum(mask.blocks_kept for mask in masks.values()) == kept_count(13_000, 0.998)
    flow = flow_gradients(model, [(torch.zeros(1, 20), torch.zeros(1))])
    assert all((flow[name] * model.get_parameter(name)).abs().sum() > 0 for name in masks)


def test_random_scores_follow_the_seed_and_not_the_neighbours():
    def masks(seed, **options):
        torch.manual_seed(0)
        model = build_model("lenet5", GREY28)
        config = PruneConfig(block=(2, 2), sparsity=0.5, score="random", seed=seed, **options)
        return {name: mask.keep.tobytes() for name, mask in prune_one_shot(model, config).items()}

    assert masks(0) == masks(0)
    assert masks(0) != masks(1)
    assert masks(0, only=("fc1",))["fc1.weight"] == masks(0)["fc1.weight"]


def test_a_score_that_needs_gradients_says_so_and_an_unknown_name_is_refused():
    model = build_model("lenet5", GREY28)
    for score in ("taylor", "snip", "synflow"):
        with pytest.raises(ConfigError, match="got no"):
            prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5, score=score))
    with pytest.raises(ConfigError, match=r"score: expected one of l1, .* got 'l3'"):
        PruneConfig(block=(2, 2), sparsity=0.5, score="l3")
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("inf")
    with pytest.raises(ConfigError, match=r"score of fc1.weight is not finite"):
        prune_one_shot(model, PruneConfig(block=(2, 2), sparsity=0.5))
