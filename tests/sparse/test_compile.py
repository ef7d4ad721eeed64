"""A compiled network computes what the network computes; what it cannot compute, it names."""

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import pysim
from pysim.errors import ConfigError, ModelError, ShapeError
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.sparse import available_isas

GREY = InputShape(channels=1, height=28, width=28, num_classes=10)
ISAS = [*available_isas(), *(["emulated16"] if "avx2" in available_isas() else [])]


class DepthwiseNet(nn.Module):
    """Depthwise and pointwise convolutions with strides, as in MobileNet."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 16, 3, 1, 1, groups=16),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 32, 1),
            nn.Conv2d(32, 32, 5, 2, "valid", groups=32),
            nn.Dropout(),
            nn.Conv2d(32, 24, 1, bias=False),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 10),
        )

    def forward(self, x):
        return self.layers(x)


NETWORKS = {
    "resnet20": (lambda: build_model("resnet20", GREY), (2, 1, 28, 28)),
    "lenet5": (lambda: build_model("lenet5", GREY), (3, 1, 28, 28)),
    "mlp": (lambda: build_model("mlp", GREY), (37, 1, 28, 28)),
    "depthwise": (DepthwiseNet, (2, 3, 33, 32)),
}


def pruned(name, block=(4, 4), sparsity=0.8):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that folding has to get right
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
    prune_one_shot(model, PruneConfig(block=block, sparsity=sparsity, prune_all=True))
    return model.eval(), torch.randn(shape)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_as_near_to_the_exact_result_as_torch_is(name, isa):
    """Both round; the reference is the same network in float64. Folded weights are rounded once more."""
    model, x = pruned(name)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        torch_error = float((model(x) - exact).abs().max())
    got = pysim.compile(model, x, isa=isa, threads=1)(x)
    assert float((got - exact).abs().max()) <= 4 * torch_error


@pytest.mark.parametrize("name", ["resnet20", "depthwise"])
def test_compressed_layers_are_compiled_too(name):
    model, x = pruned(name)
    sparse = pysim.compress(model, x, only_if_faster=False).model
    assert "4x4" in str(pysim.compile(sparse, x))
    torch.testing.assert_close(pysim.compile(sparse, x)(x), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_resnet20_is_all_products_and_one_mean():
    """Batch norm, ReLU and residual sums are part of a product."""
    model, x = pruned("resnet20")
    lines = str(pysim.compile(model, x)).splitlines()
    assert len(lines) == 1 + 21 + 1 + 1  # the input, 21 convolutions, the mean, the classifier
    assert sum("ReLU" in line for line in lines) == 19
    assert sum(", + %" in line for line in lines) == 9


@st.composite
def integer_networks(draw):
    """A random convolutional network of small integers, and an input: every sum is exact in float32."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    size = [draw(st.integers(3, 20)), draw(st.integers(3, 20))]
    channels = draw(st.integers(1, 6))
    batch = draw(st.integers(1, 5))
    image = torch.from_numpy(rng.integers(-2, 3, (batch, channels, *size)).astype(np.float32))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        kernel = [draw(st.integers(1, min(3, side))) for side in size]
        stride = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
        dilation = [draw(st.integers(1, 2)), draw(st.integers(1, 2))]
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        padding = [
            draw(st.integers(max(0, (r - s + 1) // 2), r // 2 + 1)) for r, s in zip(reach, size, strict=True)
        ]
        groups = draw(st.sampled_from([1, 1, channels]))
        out = groups * draw(st.integers(1, 9))
        conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, draw(st.booleans()))
        weights = rng.integers(-1, 2, conv.weight.shape) * (rng.random(conv.weight.shape) < 0.5)
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(weights))
            if conv.bias is not None:
                conv.bias.copy_(torch.from_numpy(rng.integers(-3, 4, out)))
        layers.append(conv)
        size = [(s + 2 * p - r) // t + 1 for s, p, r, t in zip(size, padding, reach, stride, strict=True)]
        channels = out
        after = draw(st.sampled_from(["none", "relu", "norm", "norm relu", "pool", "residual", "clamp"]))
        if "norm" in after:
            norm = nn.BatchNorm2d(channels, eps=0.0)  # variance 1: scale and shift are integers
            with torch.no_grad():
                norm.weight.copy_(torch.from_numpy(rng.integers(-2, 3, channels)))
                norm.bias.copy_(torch.from_numpy(rng.integers(-2, 3, channels)))
                norm.running_mean.copy_(torch.from_numpy(rng.integers(-2, 3, channels)))
            layers.append(norm)
        if "relu" in after:
            layers.append(nn.ReLU())
        if after == "clamp":
            layers.append(nn.Hardtanh(-3, 5))
        if after == "residual":
            layers.append(_Twice(channels, rng))
        if after == "pool":
            pad = [draw(st.integers(0, min(1, side - 1))) for side in size]
            pool = nn.MaxPool2d(
                [min(2, side + p) for side, p in zip(size, pad, strict=True)],
                draw(st.integers(1, 2)),
                padding=[min(p, 1) for p in pad],
            )
            layers.append(pool)
            with torch.no_grad():
                size = list(pool(torch.zeros(1, 1, *size)).shape[2:])
    if draw(st.booleans()):
        layers += [nn.Flatten(), nn.Linear(channels * size[0] * size[1], 5, bias=False)]
        with torch.no_grad():
            layers[-1].weight.copy_(torch.from_numpy(rng.integers(-1, 2, layers[-1].weight.shape)))
    return nn.Sequential(*layers).eval(), image


class _Twice(nn.Module):
    """x + conv(x), with ReLU."""

    def __init__(self, channels, rng):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.from_numpy(rng.integers(-1, 2, self.conv.weight.shape)))

    def forward(self, x):
        return functional.relu(x + self.conv(x))


@settings(max_examples=100, deadline=None)
@given(
    problem=integer_networks(), isa=st.sampled_from(ISAS), threads=st.integers(1, 3), again=st.integers(0, 2)
)
def test_integer_networks_are_exact(problem, isa, threads, again):
    model, x = problem
    try:
        with torch.no_grad():
            expected = model(x)
            exact = copy.deepcopy(model).double()(x.double())
    except RuntimeError:  # a padding that torch refuses
        return
    if not torch.equal(expected.double(), exact):  # sums beyond 2^24
        return
    network = pysim.compile(model, x, isa=isa, threads=threads)
    for _ in range(again):
        network(torch.full_like(x, 7.0))  # what a call leaves behind must not matter
    assert torch.equal(network(x), expected)


def test_single_pixels_may_have_zeros_around_them():
    """Their planes then have gaps, unlike those of feature vectors."""
    x = torch.arange(24.0).reshape(4, 3, 2, 1)
    conv = nn.Conv2d(3, 5, (2, 1), (2, 1), (1, 0), (2, 1), bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(30.0).reshape(conv.weight.shape))
    after = nn.Conv2d(5, 2, 3, padding=1)
    for model in (conv, nn.Sequential(conv, nn.Flatten()), nn.Sequential(conv, after, nn.Flatten())):
        torch.testing.assert_close(pysim.compile(model, x)(x), model(x).detach())


def test_average_pooling_divides_as_torch_does():
    x = torch.randn(2, 3, 9, 7)
    for pool in (
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d((2, 3), ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AdaptiveAvgPool2d((4, 3)),
        nn.AdaptiveAvgPool2d(1),
    ):
        torch.testing.assert_close(pysim.compile(nn.Sequential(pool), x)(x), pool(x))


def test_functions_and_methods_count_as_modules_do():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            y = functional.max_pool2d(torch.relu(self.conv(x)), 2)
            y = functional.avg_pool2d(y, 2).relu()
            y = torch.add(y, y)
            return self.fc(y.mean((-1, -2), keepdim=True).view(y.size(0), -1))

    model, x = Net().eval(), torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(pysim.compile(model, x)(x), model(x).detach())


def test_a_value_that_is_read_twice_is_not_fused_away():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            z = nn.functional.relu(y)
            return z + self.norm(y) + y + x + x

    model, x = Net().eval(), torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(pysim.compile(model, x)(x), model(x).detach())


@pytest.mark.parametrize("name", NETWORKS)
def test_bits_do_not_depend_on_threads_or_on_who_else_runs(name):
    model, _ = pruned(name)
    x = torch.randn(9, *NETWORKS[name][1][1:])
    one = pysim.compile(model, x, threads=1)
    expected = one(x)
    several = pysim.compile(model, x, threads=3)
    results = [None] * 4

    def work(i):
        for _ in range(5):
            results[i] = several(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y in results:
        if several.chunk_images == one.chunk_images:
            assert torch.equal(y, expected)
        else:  # other widths of products: the narrow kernels sum in another order
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_numpy_arrays_and_given_outputs():
    model, x = pruned("mlp")
    network = pysim.compile(model, x)
    y = np.empty(network.output_shape, np.float32)
    assert network(x.numpy(), y) is y
    np.testing.assert_array_equal(y, network(x).numpy())


def test_the_model_stays_as_it_was():
    model, x = pruned("resnet20")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pysim.compile(model, x)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_unknown_operators_are_named():
    x = torch.randn(2, 4, 6, 6)
    for layers, text in (
        ([nn.Conv2d(4, 4, 1), nn.GELU()], r"got GELU \(1\)"),
        ([nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")], r"Conv2d \(0\) with unequal or non-zero"),
        ([nn.Linear(6, 3)], r"Linear \(0\) of an input of shape \(2, 4, 6, 6\)"),
        ([nn.Hardtanh(1, 2)], "a range without zero"),
        ([nn.MaxPool2d(2, dilation=2)], "with dilation"),
        ([nn.TransformerEncoderLayer(6, 2)], "TransformerEncoderLayer|can follow"),
    ):
        with pytest.raises(ModelError, match=text):
            pysim.compile(nn.Sequential(*layers), x)

    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Two(nn.Module):
        def forward(self, x, y=None):
            return torch.relu(x)

    class Softmax(nn.Module):
        def forward(self, x):
            return x.softmax(1)

    for model, text in ((Branch(), "can follow"), (Two(), "one input"), (Softmax(), "got softmax")):
        with pytest.raises(ModelError, match=text):
            pysim.compile(model, x)


def test_work_in_place_on_a_value_that_is_read_again_is_noticed():
    class Net(nn.Module):
        def forward(self, x):
            y = x + x
            return y.relu_() + y

    class Hidden(nn.Module):
        def forward(self, x):
            y = x + x
            z = y.relu_()
            return z + y

    x = torch.randn(1, 2, 3, 3)
    for model in (Net(), Hidden()):
        with pytest.raises(ModelError, match="off by"):
            pysim.compile(model, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 5])
def test_channels_last_goes_in_and_comes_out_without_a_change_of_bits(isa, batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 10, 3, 2, 1), nn.ReLU(), nn.Conv2d(10, 6, 3, 1, 1)).eval()
    x = torch.randn(batch, 3, 13, 22)
    last = x.to(memory_format=torch.channels_last)
    network = pysim.compile(model, x, isa=isa, threads=2)
    expected, y = network(x), network(last)
    assert expected.is_contiguous()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, expected)
    out = torch.empty_like(expected)
    assert network(last, out) is out
    assert torch.equal(out, expected)
    features = pysim.compile(nn.Sequential(model, nn.Flatten()), x, isa=isa)
    assert torch.equal(features(last), features(x))
    assert torch.equal(features(x), expected.flatten(1))


def test_inputs_that_do_not_fit_are_refused():
    model, x = pruned("mlp")
    network = pysim.compile(model, x)
    for wrong, text in (
        (x[:2], r"expected \(37, 1, 28, 28\), got \(2, 1, 28, 28\)"),
        (x.double(), "float32"),
        (
            x.to(memory_format=torch.channels_last).expand(37, 1, 28, 28)[:, :, ::1].transpose(2, 3),
            "C-contig",
        ),
        (x.tolist(), "float32 array"),
    ):
        with pytest.raises(ShapeError, match=text):
            network(wrong)
    with pytest.raises(ShapeError, match="output"):
        network(x, torch.empty(37, 11))
    with pytest.raises(ShapeError, match="float32"):
        pysim.compile(model, x.double())
    with pytest.raises(ConfigError, match="threads"):
        pysim.compile(model, x, threads=0)
    with pytest.raises(ConfigError, match="isa"):
        pysim.compile(model, x, isa="avx1024")
    with pytest.raises(ModelError, match="of shape"):
        pysim.compile(nn.ReLU(), torch.randn(3))


def test_an_output_that_overlaps_its_input_is_refused():
    model = nn.Sequential(nn.ReLU())
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(ShapeError, match="apart"):
        pysim.compile(model, x)(x, x)
