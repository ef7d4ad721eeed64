"""Retraining on block-sparse layers: the pruned stay zero, the rest is learnt, interruptions do not show."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from pysim.cli import main
from pysim.errors import ConfigError
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.runner import PruneRunConfig, prune
from pysim.runner.methods import make_plan
from pysim.runner.networks import Source, fresh_model
from pysim.runner.sparse_training import sparse_twin, take_back
from pysim.sparse import BsrConv2d, BsrLinear
from pysim.training import load_pruned

DATA = "synthetic:1x8x8"
MASKS = PruneConfig(block=(2, 2), sparsity=0.6)


@pytest.fixture
def source():
    return Source(DATA, None)


@pytest.mark.parametrize("prune_all", [False, True])
def test_there_and_back_without_training_changes_nothing(tiny, source, prune_all):
    model = fresh_model(tiny, source.dataset, 3)
    masks = prune_one_shot(model, replace(MASKS, prune_all=prune_all))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin, dense = sparse_twin(model, masks, source.first_image())
    replaced = {f"{name}.weight" for name, m in twin.named_modules() if isinstance(m, BsrConv2d | BsrLinear)}
    assert (set(masks) - replaced, dense) == (set(), {})
    assert not any(type(m) is torch.nn.Conv2d for m in twin.modules())  # small ones run on the kernels too
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    take_back(model, twin)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def config(model, **changes):
    settings = {"model": model, "blocks": ((2, 2),), "prune": MASKS, "data": DATA, "dense_epochs": 1}
    return PruneRunConfig(**{**settings, "sparse_training": True, **changes})


@pytest.mark.parametrize("method", ["one-shot", "imp"])
def test_the_result_is_pruned_trained_and_of_the_dense_form(tiny, tmp_path, source, method):
    out = tmp_path / "pruned.safetensors"
    result = prune(config(tiny, method=method, rewind_step=2, dense_epochs=2, out=out))
    model = fresh_model(tiny, source.dataset, 0)
    masks = load_pruned(out, tiny, model).masks
    for name, keep in element_masks(model, masks).items():
        weight = model.get_parameter(name)
        assert not weight[~keep].any()
        assert weight[keep].all()
    assert result.settings["sparse_training"] is True
    # Rounded otherwise than under masks, so not taken from the same place in the cache.
    trained = []
    prune(
        config(tiny, method=method, rewind_step=2, dense_epochs=2, sparse_training=False),
        lambda what, done, total: trained.append(what),
    )
    assert any("block 2x2: training" in what for what in trained)
    assert not any("training" in what and "block" not in what for what in trained)


def test_an_interrupted_run_ends_in_the_same_bits(tiny, tmp_path, monkeypatch):
    class InterruptedRunError(Exception):
        pass

    def interrupt(what, done, total):
        if "training, epoch" in what and "block" in what and done == total - 1:
            raise InterruptedRunError

    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    prune(config(tiny, out=whole, epochs=2))
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "other"))
    with pytest.raises(InterruptedRunError):
        prune(config(tiny, out=resumed, epochs=2), interrupt)
    assert list((tmp_path / "other" / "training").glob("*.state"))
    prune(config(tiny, out=resumed, epochs=2))
    assert resumed.read_bytes() == whole.read_bytes()


def test_what_it_cannot_do_is_refused(tiny, capsys):
    plan = {"init": None, "epochs": 1, "dense_epochs": 1, "dense_lr": 0.1, "rewind_step": 0}
    plan |= {"level_rate": 0.5, "seed": 0, "sparse_training": True}
    with pytest.raises(ConfigError, match="masks that stay, but those of gradual change"):
        make_plan("gradual", MASKS, **plan)
    with pytest.raises(ConfigError, match="float32"):
        make_plan("one-shot", MASKS, **plan, bf16=True)
    with pytest.raises(ConfigError, match="expected device cpu"):
        prune(config(tiny, device="cuda"))
    with pytest.raises(SystemExit) as left:
        main(["prune", tiny, "--block", "2", "--method", "rigl", "--sparse-training", "--data", DATA])
    assert left.value.code == 2
    assert "sparse-training" in capsys.readouterr().err


def test_gradients_and_statistics_of_a_step_are_those_of_masked_dense_training(tiny, source):
    """Against float64: what differs is rounding, some thousand units of the largest gradient at most."""
    model = fresh_model(tiny, source.dataset, 3)
    masks = prune_one_shot(model, MASKS)
    twin, _ = sparse_twin(model, masks, source.first_image())
    images, labels = source.batches.train_head(8), torch.arange(8) % 4
    wide = copy.deepcopy(model).double()
    for network, inputs in ((wide, images.double()), (twin, images)):
        network.train()
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
    elements = element_masks(wide, masks)
    largest = max(float(p.grad.abs().max()) for p in wide.parameters())
    for name, parameter in wide.named_parameters():
        layer = twin.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, BsrConv2d | BsrLinear) and name.endswith("weight"):
            with torch.no_grad():
                layer.values.copy_(layer.values.grad)
            found = layer.weight  # the gradient in the weight's shape
        else:
            found = twin.get_parameter(name).grad
        expected = parameter.grad * elements[name] if name in elements else parameter.grad
        assert (found.double() - expected).abs().max() <= 2**-12 * largest
    for name, buffer in wide.named_buffers():
        torch.testing.assert_close(twin.get_buffer(name).double(), buffer.double(), rtol=1e-5, atol=1e-6)
