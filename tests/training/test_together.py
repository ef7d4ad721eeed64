"""Networks trained side by side end where each would end alone, but for the rounding of sums."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pysim.data.synthetic import make_synthetic
from pysim.errors import ConfigError, DataError
from pysim.models import MODELS, InputShape, build_model
from pysim.pruning import PruneConfig, element_masks, prune_one_shot
from pysim.training import Batches, Snapshot, TrainConfig, train, train_together
from pysim.training.loop import _optimizer
from pysim.training.stack import Stack, StackBatches, split

CONFIG = TrainConfig(epochs=2, batch_size=20, peak_lr=0.05)  # 10 steps of 96 images
SEEDS = (0, 1, 5)
EPS = 2.0**-24


@pytest.fixture(scope="module")
def batches():
    return Batches(make_synthetic(train=96, test=50), crop_pad=2)


def network(seed: int) -> nn.Module:
    """Batch norm, grouped convolutions that share a weight, a parameter that the loss does not reach."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
        model[4].weight = model[3].weight
        model.unused = nn.Parameter(torch.ones(3))
        return model


def networks(seeds=SEEDS):
    return [network(seed) for seed in seeds]


def configs(seeds=SEEDS, **changes):
    return [replace(CONFIG, seed=seed, **changes) for seed in seeds]


def masks_of(models):
    config = PruneConfig(block=(2, 2), sparsity=0.5, only=("0", "6"))
    return [element_masks(model, prune_one_shot(model, config)) for model in models]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def largest_difference(a, b):
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


class InterruptedRunError(Exception):
    pass


def stop_after(step):
    def progress(what, done, total):
        if done == step:
            raise InterruptedRunError

    return progress


def test_every_seed_gets_the_images_labels_order_crops_and_flips_of_its_single_training(batches):
    stacked = StackBatches(batches, SEEDS)
    alone = [batches.train(20, seed=seed, epoch=1, flip=True) for seed in SEEDS]
    sizes = []
    for images, labels in stacked.train(20, seed=99, epoch=1, flip=True):
        sizes.append(labels.shape[1])
        for i, own in enumerate(alone):
            expected = next(own)
            assert torch.equal(images[i], expected[0])
            assert torch.equal(labels[i], expected[1])
    assert sizes == [20, 20, 20, 20, 16]
    assert all(next(own, None) is None for own in alone)
    assert not torch.equal(images[0], images[1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 4))
def test_the_optimiser_of_a_stack_is_each_networks_own_to_the_bit(seed, steps):
    """Rates, decay and momentum are powers of two and gradients whole: four steps are exact in float32."""
    config = TrainConfig(epochs=1, peak_lr=0.25, momentum=0.5, weight_decay=0.5)
    models = networks()
    with torch.no_grad():
        for parameter in (p for model in models for p in model.parameters()):
            parameter.copy_(torch.randint(-4, 5, parameter.shape, generator=torch.manual_seed(seed)))
    stack = Stack(models)
    ways = [_optimizer(model, config) for model in models]
    together = _optimizer(stack, config)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        named = [dict(model.named_parameters()) for model in models]
        for name, parameter in stack.network.named_parameters():
            parameter.grad = torch.randint(-4, 5, parameter.shape, generator=generator).float()
            for i, own in enumerate(named):
                own[name].grad = parameter.grad[i].clone()
        for optimizer in (together, *ways):
            optimizer.step()
    for model, own in zip(models, split(stack.state_dict(), len(models)), strict=True):
        assert equal(state(model), own)


def gradients(model, images, labels):
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels, label_smoothing=0.05).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_after_a_few_steps_every_seed_is_where_its_single_training_is_within_rounding(batches):
    """The bound: what the single training itself moves when every sum of it is rounded otherwise.

    Both trainings do the same sums in another order. Their distance must be of the size that another order
    of the batch's images gives in the single training, whose exact result is the same.
    """
    models = networks()
    masks = masks_of(models)
    few = replace(CONFIG, epochs=1)
    alone, shuffled = [], []
    for model, mask, seed in zip(models, masks, SEEDS, strict=True):
        for found, data in ((alone, batches), (shuffled, Reversed(batches))):
            own = copy.deepcopy(model)
            train(own, data, replace(few, seed=seed), masks=mask)
            found.append(state(own))
    moved = [state(model) for model in models]
    train_together(models, batches, configs(epochs=1), masks=masks)
    for model, single, other, before in zip(models, alone, shuffled, moved, strict=True):
        rounding = max(largest_difference(single, other), 64 * EPS)
        assert largest_difference(state(model), single) <= 16 * rounding
        assert largest_difference(single, before) > 1000 * rounding


class Reversed:
    """The same batches, the images of each in reversed order."""

    def __init__(self, batches):
        self._batches = batches
        self.device, self.train_count = batches.device, batches.train_count

    def train(self, batch_size, *, seed, epoch, flip):
        for images, labels in self._batches.train(batch_size, seed=seed, epoch=epoch, flip=flip):
            yield images.flip(0).contiguous(memory_format=torch.channels_last), labels.flip(0)


@pytest.mark.parametrize("name", sorted(set(MODELS)))
def test_every_model_can_be_stacked_and_gives_each_network_its_own_outputs_statistics_and_gradients(name):
    shape = InputShape(channels=1, height=32, width=32, num_classes=10)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(build_model(name, shape).train())
    images, labels = torch.randn(2, 4, 1, 32, 32), torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    stack = Stack(models).train()
    if any(isinstance(module, nn.Dropout) for module in stack.modules()):
        with pytest.raises(ConfigError, match="several at once"):
            stack(images)
        return
    outputs = stack(images)
    losses = [nn.functional.cross_entropy(outputs[i], labels[i], label_smoothing=0.05) for i in range(2)]
    sum(losses).backward()
    in_double = [copy.deepcopy(model).double() for model in models]
    for i, (model, exact) in enumerate(zip(models, in_double, strict=True)):
        single = gradients(model, images[i], labels[i])
        truth = gradients(exact, images[i].double(), labels[i])
        stacked = {n: p.grad[i] for n, p in stack.network.named_parameters() if p.grad is not None}
        assert set(stacked) == set(single)
        for key, gradient in stacked.items():
            scale = float(truth[key].abs().max())
            error = float((gradient.double() - truth[key]).abs().max())
            own_error = float((single[key].double() - truth[key]).abs().max())
            # As near to the exact gradient as the single network's, which rounds as many sums.
            assert error <= 16 * own_error + 64 * EPS * scale, key
        for key, value in split(stack.state_dict(), 2)[i].items():
            if key.endswith(("running_mean", "running_var")):
                expected = exact.state_dict()[key]
                assert float((value - expected).abs().max()) <= 1e-4 * (1 + float(expected.abs().max())), key
            elif key.endswith("num_batches_tracked"):
                assert value == 1


def test_a_seeds_bits_do_not_depend_on_what_the_others_are(batches):
    """With as many networks and in the same place, whichever train beside it, broken ones too."""
    found = []
    for others in ((1, 5), (8, 9)):
        models = networks((0, *others))
        train_together(models, batches, configs((0, *others)), masks=masks_of(models))
        found.append(state(models[0]))
    assert equal(*found)
    broken = networks()
    with torch.no_grad():
        broken[2][0].weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="loss is nan in epoch 1"):
        train_together(broken, batches, configs(), masks=masks_of(networks()))


def test_masks_and_batch_norm_are_right_after_every_step(batches, monkeypatch):
    models = networks()
    masks = masks_of(models)
    seen = []

    stacks = []
    made = Stack.__init__

    def remember(self, models):
        made(self, models)
        stacks.append(self)

    monkeypatch.setattr(Stack, "__init__", remember)

    def check(what, done, total):
        (stack,) = stacks
        for own, mask in zip(split(stack.state_dict(), 3), masks, strict=True):
            assert all(not own[name][~keep].any() for name, keep in mask.items())
            assert own["1.num_batches_tracked"] == done
        seen.append(done)

    train_together(models, batches, configs(), masks=masks, progress=check)
    assert seen == list(range(1, 11))
    assert all(masks[i]["0.weight"].ne(masks[j]["0.weight"]).any() for i, j in ((0, 1), (1, 2)))


@pytest.fixture(scope="module")
def uninterrupted(batches):
    models = networks()
    early = train_together(models, batches, configs(), masks=masks_of(networks()), snapshot_step=3)
    return [state(model) for model in models], early


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(1, 10), min_size=1, max_size=3), every=st.integers(1, 7))
def test_stopped_anywhere_and_started_again_ends_in_the_same_bits(
    batches, uninterrupted, tmp_path_factory, stops, every
):
    path = tmp_path_factory.mktemp("run") / "state"

    def go(progress):
        models = networks()
        early = train_together(
            models,
            batches,
            configs(),
            masks=masks_of(networks()),
            snapshot_step=3,
            state_path=path,
            save_every=every,
            progress=progress,
        )
        return [state(model) for model in models], early

    for stop in sorted(set(stops)):
        with contextlib.suppress(InterruptedRunError):
            go(stop_after(stop))
    for found, expected in zip(go(lambda *_: None), uninterrupted, strict=True):
        assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    assert list(path.parent.iterdir()) == []


def test_the_snapshot_is_that_of_every_network_before_its_step(batches, uninterrupted):
    _, early = uninterrupted
    models = networks()
    with pytest.raises(InterruptedRunError):
        train_together(models, batches, configs(), masks=masks_of(networks()), progress=stop_after(3))
    single = Snapshot(0)
    train(network(0), batches, CONFIG, hook=single)
    assert [set(own) for own in early] == [set(single.tensors)] * 3
    assert all(own["1.num_batches_tracked"] == 3 for own in early)


def test_a_state_of_other_seeds_is_refused(batches, tmp_path):
    path = tmp_path / "state"
    with pytest.raises(InterruptedRunError):
        train_together(networks(), batches, configs(), state_path=path, save_every=1, progress=stop_after(3))
    with pytest.raises(DataError, match="other settings"):
        train_together(networks((0, 1, 6)), batches, configs((0, 1, 6)), state_path=path)


def test_what_cannot_be_trained_together_is_refused(batches):
    with pytest.raises(ConfigError, match="differ in the seed alone"):
        train_together(networks((0, 1)), batches, [CONFIG, replace(CONFIG, peak_lr=0.1, seed=1)])
    with pytest.raises(ConfigError, match="as many settings and masks as networks"):
        train_together(networks(), batches, configs((0, 1)))
    with pytest.raises(ConfigError, match="one architecture"):
        train_together([network(0), nn.Linear(2, 2)], batches, configs((0, 1)))
    dropping = [nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10)) for _ in range(2)]
    with pytest.raises(ConfigError, match="several at once") as caught:
        train_together(dropping, batches, configs((0, 1)))
    assert "Leave out --seeds-together" in caught.value.hint


def test_every_tensor_of_a_step_is_on_the_device_of_the_data():
    """On torch's device without values a mix of devices is an error, and so is asking for a number."""
    there = Batches(make_synthetic(train=96, test=50), crop_pad=2, device=torch.device("meta"))
    steps = []
    with pytest.raises(RuntimeError, match="item"):
        train_together(
            networks(),
            there,
            configs(),
            masks=masks_of(networks()),
            progress=lambda what, done, total: steps.append(done),
        )
    assert steps == [1, 2, 3, 4, 5]
