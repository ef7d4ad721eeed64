"""Training is seeded, resumable to the same bits, and never moves a masked weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pysim.data import load_dataset
from pysim.data.synthetic import make_synthetic
from pysim.errors import ConfigError, DataError
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.training import (
    Batches,
    TrainConfig,
    evaluate,
    load_weights,
    reestimate_batch_norm,
    save_tensors,
    train,
)
from pysim.training.loop import learning_rate

GREY28 = InputShape(channels=1, height=28, width=28, num_classes=10)


@pytest.fixture(scope="module")
def batches():
    return Batches(make_synthetic(train=96, test=50), crop_pad=2)


def fresh(name="lenet5"):
    torch.manual_seed(7)
    return build_model(name, GREY28)


def tiny() -> nn.Module:
    """A convolution, batch norm (whose statistics are state too) and a classifier."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


class InterruptedRunError(Exception):
    pass


def test_the_same_seed_gives_the_same_bits(batches):
    config = TrainConfig(epochs=2, batch_size=32, seed=3)
    one, two, other = fresh(), fresh(), fresh()
    assert train(one, batches, config) == train(two, batches, config)
    train(other, batches, TrainConfig(epochs=2, batch_size=32, seed=4))
    assert states_equal(one, two)
    assert not states_equal(one, other)


def test_a_run_that_was_interrupted_resumes_to_the_same_bits(batches, tmp_path):
    config = TrainConfig(epochs=3, batch_size=32)
    whole = tiny()
    train(whole, batches, config)

    def interrupt(what, done, total):
        if done == 5:  # in the second epoch of three steps each
            raise InterruptedRunError

    state = tmp_path / "state"
    with pytest.raises(InterruptedRunError):
        train(tiny(), batches, config, state_path=state, progress=interrupt)
    assert state.is_file()
    resumed = tiny()
    assert len(train(resumed, batches, config, state_path=state)) == 2
    assert states_equal(whole, resumed)
    assert not state.exists()


def test_a_state_of_other_settings_is_refused(batches, tmp_path):
    state = tmp_path / "state"

    def interrupt(what, done, total):
        if done == 4:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        train(fresh(), batches, TrainConfig(epochs=2, batch_size=32), state_path=state, progress=interrupt)
    with pytest.raises(DataError, match="other settings"):
        train(fresh(), batches, TrainConfig(epochs=3, batch_size=32), state_path=state)


def test_masked_weights_are_zero_after_every_step(batches):
    model = fresh("resnet20")
    masks = element_masks(model, prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.8)))
    parameters = dict(model.named_parameters())
    steps = []

    def check(what, done, total):
        steps.append(all(not (parameters[name] * ~mask).any() for name, mask in masks.items()))

    train(model, batches, TrainConfig(epochs=2, batch_size=32), masks=masks, progress=check)
    assert steps == [True] * 6


def test_the_loop_learns_separable_patterns():
    batches = Batches(make_synthetic(train=512, test=200), crop_pad=0)
    model = fresh()
    before = evaluate(model, batches)
    train(model, batches, TrainConfig(epochs=4, batch_size=32, peak_lr=0.05, crop_pad=0, flip=False))
    assert before < 40 < 95 < evaluate(model, batches)


def test_the_learning_rate_climbs_to_the_peak_and_falls_to_zero():
    config = TrainConfig(epochs=1, peak_lr=0.2, warmup_fraction=0.25)
    rates = [learning_rate(config, step, 40) for step in range(40)]
    assert max(rates) == rates[10] == pytest.approx(0.2)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01


def test_every_training_image_is_seen_once_an_epoch(batches):
    labels = np.concatenate([labels.numpy() for _, labels in batches.train(32, seed=0, epoch=0, flip=True)])
    expected = make_synthetic(train=96, test=50).train_labels
    assert sorted(labels) == sorted(expected)


def test_without_augmentation_a_batch_is_the_normalised_images():
    dataset = make_synthetic(train=8, test=4)
    batches = Batches(dataset, crop_pad=0)
    images, labels = next(batches.train(8, seed=0, epoch=0, flip=False))
    order = [int(np.flatnonzero(dataset.train_labels == label)[0]) for label in labels]
    expected = (dataset.train_images.astype(np.float32) - dataset.mean[0]) / dataset.std[0]
    for image, label, guess in zip(images, labels, order, strict=True):
        same = [np.array_equal(image.numpy(), e) for e in expected[dataset.train_labels == int(label)]]
        assert any(same), guess


def test_reestimated_batch_norm_has_the_statistics_of_the_data(batches):
    model = fresh("resnet20")
    with torch.no_grad():
        model.bn.running_mean.fill_(100)
    reestimate_batch_norm(model, batches, images=96, batch_size=96)
    with torch.no_grad():
        response = model.conv(batches.train_head(96))
    torch.testing.assert_close(model.bn.running_mean, response.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert model.bn.momentum == 0.1
    assert not model.training


def test_a_checkpoint_round_trips_and_a_foreign_or_broken_one_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    model = fresh()
    save_tensors(path, model.state_dict(), {"epochs": 1})
    other = build_model("lenet5", GREY28)
    assert load_weights(other, path) == {"epochs": 1}
    assert states_equal(model, other)
    with pytest.raises(DataError, match="missing"):
        load_weights(build_model("resnet20", GREY28), path)
    with pytest.raises(DataError, match=r"conv1.weight: expected .*\(6, 3, 5, 5\)"):
        load_weights(build_model("lenet5", InputShape(channels=3, height=28, width=28, num_classes=10)), path)
    content = path.read_bytes()
    for broken in (content[:-1], content[:20], b"", b"\x80\x04pickle", b"\xff" * 16 + content):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a readable"):
            load_weights(other, path)
    nan = {**model.state_dict(), "fc3.bias": torch.full((10,), float("nan"))}
    save_tensors(path, nan, {})
    with pytest.raises(DataError, match="not finite"):
        load_weights(other, path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {})
    before = path.read_bytes()

    def full_disk(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pysim.training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change", [{"epochs": -1}, {"batch_size": 0}, {"peak_lr": 0.0}, {"momentum": 1.0}, {"seed": -1}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainConfig(**{"epochs": 1, **change})


def test_a_diverging_loss_is_an_error(batches):
    with pytest.raises(ConfigError, match="loss is"):
        train(fresh(), batches, TrainConfig(epochs=2, batch_size=8, peak_lr=1e9))


@pytest.mark.slow
def test_the_shipped_checkpoint_has_the_accuracy_that_is_claimed():
    from pysim.models import pretrained_path

    dataset = load_dataset("fashion-mnist")
    path = pretrained_path("resnet20", dataset.name)
    assert path is not None
    model = build_model("resnet20", GREY28)
    note = load_weights(model, path)
    accuracy = evaluate(model, Batches(dataset, crop_pad=0))
    assert accuracy >= 92.5
    # Another CPU may round a few borderline images the other way.
    assert abs(accuracy - note["accuracy_percent"]) < 0.1


def test_a_weight_that_two_layers_share_is_saved_and_found_again(tmp_path, batches):
    def shared():
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Linear(16, 16), nn.Linear(16, 16))
        model[3].weight = model[2].weight
        return model

    model = shared()
    path = tmp_path / "weights.safetensors"
    train(model, batches, TrainConfig(epochs=1, batch_size=32), state_path=path.with_suffix(".state"))
    save_tensors(path, model.state_dict(), {})
    other = shared()
    load_weights(other, path)
    assert states_equal(model, other)
