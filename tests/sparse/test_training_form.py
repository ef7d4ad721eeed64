"""The training form: batch norm as PyTorch's up to rounding, fused where the network can be followed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pysim.models import InputShape, build_model
from pysim.sparse import FusedBatchNorm2d, training_form

UNIT = 2.0**-24


def fused_calls(model):
    """(residual, relu) of each native batch norm of a forward pass."""
    calls = []

    def record(_, args, kwargs):
        calls.append((kwargs.get("residual") is not None, bool(kwargs.get("relu"))))

    handles = [
        m.register_forward_pre_hook(record, with_kwargs=True)
        for m in model.modules()
        if isinstance(m, FusedBatchNorm2d)
    ]
    model(torch.randn(2, 3, 8, 8))
    for handle in handles:
        handle.remove()
    return calls


class Body(nn.Module):
    """One batch norm, and `tail` of it and the input."""

    def __init__(self, tail):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.relu, self.in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.tail = tail

    def forward(self, x):
        return self.tail(self, self.bn(self.conv(x)), x)


def iadd(_, y, x):
    y += x
    return torch.relu(y)


def iadd_to_the_other(_, y, x):
    x = x * 1
    x += y
    return x


def add_to_the_other(_, y, x):
    return (x * 1).add_(y)


def read_twice(_, y, x):
    return torch.relu(y) + y


def disturbed(self, y, x):
    z = x * 1
    z.mul_(2)
    return torch.relu(y) + z


TAILS = {
    "nothing": (lambda _, y, x: y, (False, False)),
    "torch.relu": (lambda _, y, x: torch.relu(y), (False, True)),
    "functional in place": (lambda _, y, x: functional.relu(y, inplace=True), (False, True)),
    "method": (lambda _, y, x: y.relu(), (False, True)),
    "module": (lambda self, y, x: self.relu(y), (False, True)),
    "module in place": (lambda self, y, x: self.in_place(y), (False, True)),
    "sum": (lambda _, y, x: y + x, (True, False)),
    "sum from the right": (lambda self, y, x: self.relu(x + y), (True, True)),
    "sum in place": (iadd, (True, True)),
    "sum into the other": (iadd_to_the_other, (True, False)),  # torch.fx takes += for +
    "method into the other": (add_to_the_other, (False, False)),
    "relu before sum": (lambda _, y, x: torch.relu(y) + x, (False, True)),
    "read twice": (read_twice, (False, False)),
    "with a number": (lambda _, y, x: torch.relu(y + 1), (False, False)),
    "with a scaled sum": (lambda _, y, x: torch.add(y, x, alpha=2), (False, False)),
    "with itself": (lambda _, y, x: y + y, (False, False)),
    "something in place between": (disturbed, (False, False)),
}


def learnt(model, x, mode=True):
    """The result, and all gradients and statistics after one step."""
    model.train(mode)
    source = x.clone().requires_grad_()
    y = model(source)
    y.backward(torch.ones_like(y) + y.detach())
    gradients = [p.grad for p in model.parameters()]
    return [y.detach(), source.grad, *gradients, *model.buffers()]


@pytest.mark.parametrize("name", TAILS)
def test_what_follows_a_batch_norm_is_fused_if_nothing_else_reads_it(name):
    tail, expected = TAILS[name]
    torch.manual_seed(0)
    model = Body(tail)
    form = training_form(copy.deepcopy(model), torch.randn(1, 3, 8, 8))
    assert fused_calls(copy.deepcopy(form).train()) == [expected]
    assert list(form.state_dict()) == list(model.state_dict())
    x = torch.randn(4, 3, 8, 8)
    for mode in (True, False):
        for a, b in zip(learnt(model, x, mode), learnt(form, x, mode), strict=True):
            # Far above what some hundred roundings of values near 1 can do, far below any mistake.
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_resnet_is_fused_whole_and_a_branch_leaves_it_unfused():
    model = build_model("resnet20", InputShape(channels=3, height=8, width=8, num_classes=10))
    form = training_form(copy.deepcopy(model), torch.randn(1, 3, 8, 8))
    calls = fused_calls(form.train())
    assert calls.count((True, True)) == 9  # the ends of blocks
    assert calls.count((False, True)) == 10  # the first, and the middles
    assert calls.count((False, False)) == 2  # shortcuts
    assert list(form.state_dict()) == list(model.state_dict())

    branching = Body(lambda _, y, x: torch.relu(y) if x.sum() > 0 else y)
    form = training_form(branching, torch.randn(1, 3, 8, 8))
    assert isinstance(form.bn, FusedBatchNorm2d)
    assert fused_calls(form.train()) == [(False, False)]


def test_networks_with_hooks_or_two_traces_stay_unfused():
    hooked = Body(lambda _, y, x: torch.relu(y))
    hooked.register_forward_hook(lambda *_: None)
    assert fused_calls(training_form(hooked, torch.randn(1, 3, 8, 8)).train()) == [(False, False)]
    count = [0]

    def every_second(_, y, x):
        count[0] += 1
        return torch.relu(y) if count[0] % 2 else y

    changing = training_form(Body(every_second), torch.randn(1, 3, 8, 8))
    assert "forward" not in vars(changing)


@settings(max_examples=25, deadline=None)
@given(
    momentum=st.sampled_from([0.1, 0.9, 0.0, None]),
    affine=st.booleans(),
    track=st.booleans(),
    channels_last=st.booleans(),
    residual=st.booleans(),
    relu=st.booleans(),
    steps=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_move_as_those_of_torch_do(
    momentum, affine, track, channels_last, residual, relu, steps, seed
):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(5, momentum=momentum, affine=affine, track_running_stats=track)
    fused = FusedBatchNorm2d.of(copy.deepcopy(norm))
    for mode in [True] * steps + [False]:
        norm.train(mode)
        fused.train(mode)
        x, added = torch.randn(3, 5, 4, 6), torch.randn(3, 5, 4, 6)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        expected = norm(x) + added if residual else norm(x)
        expected = torch.relu(expected) if relu else expected
        found = fused(x, added if residual else None, relu)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        for name, tensor in norm.state_dict().items():
            torch.testing.assert_close(fused.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_step_are_those_of_float64_up_to_rounding():
    """A residual block of a batch of four: every gradient within n eps of the sums of its absolute terms."""
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    exact = copy.deepcopy(norm).double()
    fused = FusedBatchNorm2d.of(norm)
    x, r, dy = (torch.randn(4, 6, 5, 5) for _ in range(3))
    inputs = [x.clone().requires_grad_(), r.clone().requires_grad_()]
    wide = [x.double().requires_grad_(), r.double().requires_grad_()]
    fused(*inputs, True).backward(dy)
    torch.relu(exact(wide[0]) + wide[1]).backward(dy.double())
    found = [inputs[0].grad, inputs[1].grad, norm.weight.grad, norm.bias.grad]
    expected = [wide[0].grad, wide[1].grad, exact.weight.grad, exact.bias.grad]
    # 100 values to a channel, none of which is near 0 behind the sum; of size 10 at most.
    bound = 100 * 16 * UNIT * 10
    for a, b in zip(found, expected, strict=True):
        assert ((a.double() - b).abs() <= bound).all()


def test_one_value_to_a_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        FusedBatchNorm2d.of(nn.BatchNorm2d(3)).train()(torch.ones(1, 3, 1, 1))


def test_weights_that_change_between_the_passes_are_refused():
    norm = FusedBatchNorm2d.of(nn.BatchNorm2d(3)).train()
    y = norm(torch.randn(2, 3, 4, 4), relu=True)
    with torch.no_grad():
        norm.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
