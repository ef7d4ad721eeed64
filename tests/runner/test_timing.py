"""What is timed is the network that was pruned, and its dense twin has no pruned weight left."""

from __future__ import annotations

import pytest
import torch

from pysim.errors import ModelError
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.runner import timing

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


def pruned(name):
    torch.manual_seed(0)
    model = build_model(name, GREY28).eval()
    return model, prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9))


def test_a_network_is_timed_dense_and_pruned(monkeypatch):
    compiled = []

    def compile_and_note(model, image, *, threads):
        network = compile_network(model, image, threads=threads)
        compiled.append((model, network))
        return network

    compile_network = timing.compile_network
    monkeypatch.setattr(timing, "compile_network", compile_and_note)
    model, masks = pruned("lenet5")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    threads = torch.get_num_threads()
    found = timing.time_network(model, masks, torch.randn(2, 1, 28, 28), threads=1)
    assert torch.get_num_threads() == threads
    assert min(found.eager_us, found.dense_us, found.sparse_us) > 0
    assert found.eager_form in ("nchw", "channels_last")
    assert found.speedup_quartiles[0] <= found.speedup_quartiles[1]

    (first, _), (second, _) = compiled
    assert first is model
    elements = element_masks(model, masks)
    for name, weight in second.named_parameters():
        if name in masks:
            assert bool((weight != 0).all())
            torch.testing.assert_close(weight * elements[name], before[name] * elements[name], rtol=0, atol=0)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_a_network_that_the_engine_does_not_know_is_refused_by_name():
    model, masks = pruned("vit")
    with pytest.raises(ModelError, match="compile"):
        timing.time_network(model, masks, torch.randn(1, 1, 28, 28), threads=1)
