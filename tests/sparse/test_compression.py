"""A pruned model compressed computes what the pruned model computes, and says what became of each layer."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import prune as torch_prune

import pysim
from pysim.errors import ConfigError, ModelError, ShapeError
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.sparse import BsrConv2d, BsrLinear, compression

GREY = InputShape(channels=1, height=28, width=28, num_classes=10)


class DepthwiseNet(nn.Module):
    """Depthwise and pointwise convolutions, as in MobileNet."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, 1, 1, groups=16),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 5, 2, "valid", dilation=1, groups=32, padding_mode="zeros"),
            nn.Conv2d(32, 24, 1, bias=False),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 10),
        )

    def forward(self, x):
        return self.layers(x)


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward part, written out."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(y)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


NETWORKS = {
    "resnet20": (lambda: build_model("resnet20", GREY), (2, 1, 28, 28)),
    "mlp": (lambda: build_model("mlp", GREY), (5, 1, 28, 28)),
    "depthwise": (DepthwiseNet, (2, 3, 33, 32)),
    "transformer": (lambda: nn.Sequential(TransformerBlock(), TransformerBlock()), (3, 17, 32)),
}


def pruned(name, block=(4, 4), sparsity=0.8):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make()
    masks = prune_one_shot(model, PruneConfig(block=block, sparsity=sparsity, prune_all=True))
    return model.eval(), torch.randn(shape), masks


def sparse_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, BsrLinear | BsrConv2d)}


def made_dense(model):
    """A copy whose block-sparse layers are dense again."""
    dense = copy.deepcopy(model)
    for name, layer in sparse_layers(dense).items():
        parent, _, child = name.rpartition(".")
        setattr(dense.get_submodule(parent), child, layer.to_dense())
    return dense


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_computes_the_same_within_the_rounding_bound(name):
    """Each layer, on what it receives in the compressed network: |y - exact| <= gamma(k + 1) (|W| |x| + |b|).

    With u = 2**-24, k products in any order and one addition of the bias (Higham, section 3.1). Everything
    between these layers is unchanged: see the next test.
    """
    model, x, _ = pruned(name)
    found = pysim.compress(model, x, only_if_faster=False)
    layers = sparse_layers(found.model)
    assert layers.keys() == {c.name for c in found.layers if c.sparse}
    assert len(layers) >= 3
    seen = []

    def check(layer, args, y):
        exact = layer.to_dense().double()
        size = copy.deepcopy(exact)
        with torch.no_grad():
            for parameter in size.parameters():
                parameter.abs_()
        terms = layer.grid.k + 1
        gamma = sum(terms * u / (1 - terms * u) for u in (2.0**-24, 2.0**-53))
        source = args[0].double()
        assert ((y - exact(source)).abs() <= gamma * size(source.abs())).all()
        seen.append(layer)

    for layer in layers.values():
        layer.register_forward_hook(check)
    with torch.no_grad():
        found.model(x)
    assert set(seen) == set(layers.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_with_its_layers_dense_again_the_copy_is_the_original_bit_for_bit(name):
    model, x, _ = pruned(name)
    before = copy.deepcopy(model.state_dict())
    found = pysim.compress(model, x, only_if_faster=False)
    with torch.no_grad():
        assert torch.equal(made_dense(found.model)(x), model(x))
    assert not sparse_layers(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (5, 3), (16, 16)])
def test_an_mlp_of_integers_is_compressed_exactly(block):
    model, x, _ = pruned("mlp", block=block)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sign_()
        x = (x * 2).round().clamp(-3, 3)
        found = pysim.compress(model, x, block=block, only_if_faster=False)
        assert len(sparse_layers(found.model)) == 3
        exact = copy.deepcopy(model).double()(x.double())
        assert torch.equal(found.model(x).double(), exact)
        for parameter in model.parameters():
            parameter.abs_()
        assert model(x.abs()).max() < 2**24  # no partial sum of any layer is larger


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)])
@pytest.mark.parametrize("name", ["resnet20", "mlp"])
def test_blocks_are_found_in_the_weights(name, block):
    model, x, masks = pruned(name, block=block)
    for choice in pysim.compress(model, x, only_if_faster=False).layers:
        mask = masks.get(f"{choice.name}.weight")
        if (
            choice.sparse and min(mask.grid.m, mask.grid.channels) >= 32
        ):  # smaller ones may allow larger blocks
            assert choice.block == block
            assert choice.density == mask.keep.mean()


def test_masks_say_which_blocks_are_kept_zeros_included():
    model, x, masks = pruned("mlp")
    chosen = {"fc1.weight": masks["fc1.weight"]}
    with torch.no_grad():
        model.fc1.weight.zero_()
    found = pysim.compress(model, x, masks=chosen, only_if_faster=False)
    assert list(sparse_layers(found.model)) == ["fc1"]
    assert len(found.model.fc1.values) == masks["fc1.weight"].blocks_kept
    assert [str(c).endswith("dense: it is not pruned") for c in found.layers] == [False, True, True]


def clock(dense, sparse):
    return lambda *_: np.array([dense, sparse], float)


@pytest.mark.parametrize(
    ("dense", "sparse", "taken"),
    [
        ([4] * 8, [2] * 8, True),
        ([2] * 8, [4] * 8, False),
        ([2] * 8, [2] * 8, False),
        ([4] * 5 + [1] * 3, [2] * 8, False),
    ],
)
def test_a_layer_is_replaced_only_if_three_of_four_rounds_are_faster(monkeypatch, dense, sparse, taken):
    model, x, _ = pruned("mlp")
    monkeypatch.setattr(compression, "_measure", clock(dense, sparse))
    found = pysim.compress(model, x)
    assert {c.sparse for c in found.layers} == {taken}
    assert len(sparse_layers(found.model)) == 3 * taken
    assert all(("not reliably faster" in c.reason) != taken for c in found.layers)
    assert len(sparse_layers(pysim.compress(model, x, only_if_faster=False).model)) == 3


def test_what_is_measured_is_what_is_reported():
    model, x, _ = pruned("mlp", sparsity=0.95)
    found = pysim.compress(model, x)
    for choice in found.layers:
        assert choice.dense_us > 0
        assert choice.sparse_us > 0
        low, high = choice.speedup_quartiles
        assert low <= high
        assert choice.sparse == (low > 1)
        assert f"{choice.sparse_us:.1f} us, dense {choice.dense_us:.1f} us" in str(choice)
    assert str(found).count("\n") == 2


def linear(bias=True):
    layer = nn.Linear(8, 8, bias=bias)
    with torch.no_grad():
        layer.weight[:4] = 0
    return layer


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = linear(), linear()
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.looked_at = linear(), linear()

    def forward(self, x):
        return nn.functional.linear(self.used(x), self.looked_at.weight)


def reasons(model, x=None):
    found = pysim.compress(model, torch.ones(2, 8) if x is None else x, only_if_faster=False)
    return [choice.reason for choice in found.layers if not choice.sparse]


def test_layers_that_cannot_be_replaced_stay_dense_with_a_reason():
    assert reasons(Tied()) == ["another module shares its parameters"] * 2
    assert reasons(Functional()) == ["the example did not call it as a module"]
    assert reasons(nn.Sequential(nn.Linear(8, 8))) == ["it is not pruned"]

    class Special(nn.Linear):
        pass

    assert reasons(nn.Sequential(Special(8, 8))) == ["Special may do more than its base class"]
    masked = nn.Sequential(linear())
    with torch.no_grad():
        torch_prune.identity(masked[0], "weight")
    assert "torch.nn.utils.prune.remove" in reasons(masked)[0]
    hooked = nn.Sequential(linear())
    hooked[0].register_forward_hook(lambda *_: None)
    assert reasons(hooked) == ["it has hooks"]
    assert reasons(nn.Sequential(linear()).double(), torch.ones(2, 8).double()) == [
        "it is not float32 on the CPU, nor float32, float16 or bfloat16 on a GPU"
    ]


def test_attention_of_torch_stays_right():
    """It reads its layers' weights itself, on a path of its own: none of them may disappear."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        model.linear1.weight[:8] = 0
        x = torch.randn(2, 5, 8)
        found = pysim.compress(model, x, only_if_faster=False)
        torch.testing.assert_close(found.model(x), model(x))
        found.model.train()
        found.model(x)


def test_one_module_in_two_places_and_a_model_that_is_one_layer():
    layer = linear()
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    found = pysim.compress(twice, torch.ones(2, 8), only_if_faster=False)
    assert found.model[0] is found.model[2]
    assert isinstance(found.model[0], BsrLinear)
    assert isinstance(pysim.compress(layer, torch.ones(2, 8), only_if_faster=False).model, BsrLinear)


def test_mode_and_trainability_are_kept_and_the_result_trains():
    model, x, _ = pruned("depthwise")
    model.train()
    model.layers[4].weight.requires_grad_(False)
    statistics = model.layers[3].running_mean.clone()
    found = pysim.compress(model, x, only_if_faster=False).model
    assert found.training
    assert all(m.training for m in found.modules())
    assert torch.equal(found.layers[3].running_mean, statistics)  # the example did not count as training
    assert not found.layers[4].values.requires_grad
    assert found.layers[4].bias.requires_grad
    optimiser = torch.optim.SGD([p for p in found.parameters() if p.requires_grad], lr=0.01)
    labels = torch.tensor([1, 7])
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(found(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_compressed_state_goes_through_safetensors():
    model, x, _ = pruned("resnet20")
    other, _, _ = pruned("resnet20", sparsity=0.5)
    second = pysim.compress(other, x, block=(4, 4), only_if_faster=False).model
    first = pysim.compress(model, x, block=(4, 4), only_if_faster=False).model
    second.load_state_dict(load(save(first.state_dict())))
    with torch.no_grad():
        assert torch.equal(first(x), second(x))


def test_bad_arguments_are_refused():
    model, x, masks = pruned("mlp")
    with pytest.raises(ConfigError, match="expected masks or block, got both"):
        pysim.compress(model, x, masks=masks, block=(4, 4))
    with pytest.raises(ConfigError, match=r"got one of fc9\.weight"):
        pysim.compress(model, x, masks={"fc9.weight": masks["fc1.weight"]})
    with pytest.raises(ShapeError, match=r"block mask: expected bool \(64, 64\)"):
        pysim.compress(model, x, masks={"fc2.weight": masks["fc1.weight"]})
    uncopyable = nn.Sequential(linear())
    torch_prune.identity(uncopyable[0], "weight")
    with pytest.raises(ModelError, match="expected a model that can be copied") as raised:
        pysim.compress(uncopyable, torch.ones(2, 8))
    assert "torch.nn.utils.prune.remove" in raised.value.hint
