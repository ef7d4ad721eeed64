"""Every kind of layer is timed and computed: grouped, depthwise, dilated, strided, batches, attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pysim import simulate_gemm
from pysim.config import Accelerator, Memory
from pysim.lowering import input_matrix, other_matrix, output_matrix, trace, weight_matrix
from pysim.runner.simulate import simulate_network_layer
from pysim.workload import BlockMask

MEMORY = Memory(input_bytes=4096, weight_bytes=4096, output_bytes=4096, bandwidth=8.0)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.grouped = nn.Conv2d(8, 12, (1, 3), groups=2, bias=False)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.linear = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.grouped(self.depthwise(self.strided(image))).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.linear(mixed.mean(1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = Everything().eval()
    image = torch.randn(2, 3, 8, 8)
    names = frozenset(layer.name for layer in trace(model, image)[0].layers)
    return model, *trace(model, image, keep_activations=names)


def test_the_layers_are_those_of_the_network_with_the_work_that_a_reader_counts(network):
    _, workload, _ = network
    assert [(x.name, x.groups, x.m, x.k, x.n, x.weight is None) for x in workload.layers] == [
        ("strided", 1, 8, 27, 2 * 4 * 4, False),
        ("depthwise", 8, 1, 9, 2 * 4 * 4, False),
        ("grouped", 2, 6, 12, 2 * 4 * 2, False),
        ("attention", 1, 36, 12, 2 * 8, False),
        ("attention#2", 6, 8, 4, 8, True),  # Two images, three heads: queries by keys, of four each,
        ("attention#3", 6, 4, 8, 8, True),  # and what that selects of the values.
        ("attention.out_proj", 1, 12, 12, 2 * 8, False),
        ("linear", 1, 5, 12, 2, False),
    ]


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_every_layer_is_stepped_to_the_counts_that_it_is_timed_with_and_to_torchs_values(network, dataflow):
    model, workload, activations = network
    parameters = dict(model.named_parameters())
    hw = Accelerator(rows=4, cols=4, dataflow=dataflow, skip="gather", memory=MEMORY)
    for layer in workload.layers:
        mask = BlockMask.all_kept(layer.grid(2, 2), layer.groups)
        found = simulate_network_layer(layer, mask, hw)
        assert found.chosen.macs + found.chosen.skipped_macs == layer.macs
        assert found.chosen.kept_macs == layer.macs
        assert found.chosen.memory.index_bytes == 0  # All kept: dense, without a list of blocks.
        activation = activations[layer.name]
        if layer.weight is None:
            weights = other_matrix(activation.other)
        else:
            weights = weight_matrix(layer, parameters[layer.weight])
        inputs = input_matrix(layer, activation.input)
        assert weights.shape == (layer.groups, layer.m, layer.k)
        assert inputs.shape == (layer.groups, layer.k, layer.n)
        dense = replace(hw, skip="none", memory=replace(MEMORY, index_bits=0))
        stepped = [
            simulate_gemm(
                w,
                x,
                block=(2, 2),
                accelerator=dense,
                engine="cycle",
                mask=mask.keep[0],
                positions=layer.positions,
                conv=layer.conv,
            )
            for w, x in zip(weights, inputs, strict=True)
        ]
        assert sum(result.cycles for result in stepped) == found.dense.cycles
        bound = 2 * (layer.k + 2) * 2.0**-24 * (np.abs(weights) @ np.abs(inputs) + 1)
        expected = output_matrix(layer, activation.output)
        assert np.all(np.abs(np.stack([result.output for result in stepped]) - expected) <= bound)


def test_pruned_groups_are_timed_group_by_group(network):
    """A depthwise convolution of eight groups, of which all but one are pruned: the others cost nothing."""
    _, workload, _ = network
    layer = next(x for x in workload.layers if x.name == "depthwise")
    keep = np.zeros((8, *layer.grid(1, 1).shape), bool)
    keep[3] = True
    hw = Accelerator(rows=4, cols=4, skip="gather")
    found = simulate_network_layer(layer, BlockMask(grid=layer.grid(1, 1), keep=keep), hw)
    assert found.chosen.kept_macs == 9 * layer.n
    assert 8 * found.chosen.cycles == found.dense.cycles
