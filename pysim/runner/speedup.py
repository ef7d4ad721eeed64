"""How much faster a pruned network is than the dense one: simulated, and timed on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from pysim.config import Accelerator, Skip, load_hardware
from pysim.lowering import trace
from pysim.runner.busy import core_use, cores_used_by_others
from pysim.runner.simulate import layer_mask, simulate_network_layer
from pysim.runner.timing import time_layers
from pysim.workload import BlockMask

MOST_OTHER_CORES = 0.1
"""Cores that other programs may keep busy while a network is timed, for its speedup to be reported."""


def simulated_speedup(
    model: nn.Module,
    masks: Mapping[str, BlockMask],
    block: tuple[int, int],
    image: Tensor,
    accelerator: Accelerator,
) -> float | None:
    """Dense cycles over the pruned network's, array and memory; None if the pruned one needs none.

    Args:
        model: In evaluation mode.
        masks: By weight's name.
        block: Of the masks.
        image: A batch of one.
        accelerator: The machine to simulate.
    """
    workload, _ = trace(model, image)
    dense = cycles = 0
    for layer in workload.layers:
        counts = simulate_network_layer(layer, layer_mask(layer, block, masks), accelerator)
        dense += counts.dense.cycles
        cycles += counts.chosen.cycles
    return dense / cycles if cycles else None


def measured_speedup(
    model: nn.Module, masks: Mapping[str, BlockMask], image: Tensor, threads: int
) -> float | None:
    """Dense time over the pruned network's, layer by layer; None if other programs disturbed it.

    Args:
        model: In evaluation mode. Times do not depend on the values of its weights.
        masks: By weight's name.
        image: A batch of one.
        threads: Of the kernels, PyTorch's and pysim's.
    """
    workload, _ = trace(model, image)
    names = frozenset(layer.name for layer in workload.layers)
    _, activations = trace(model, image, keep_activations=names)
    before = core_use()
    timings = list(
        time_layers(workload.layers, dict(model.named_parameters()), activations, masks, threads=threads)
    )
    others = cores_used_by_others(before, core_use())
    timed = [timing for timing in timings if timing is not None]
    if len(timed) < len(timings) or others is None or others > MOST_OTHER_CORES:
        return None
    return sum(t.dense_us for t in timed) / sum(t.sparse_us for t in timed)


def accelerator_for(hw: str, skip: Skip) -> Accelerator:
    """A hardware preset, file or ROWSxCOLS with a skip mode.

    Raises:
        ConfigError: It cannot be read, or its dataflow does not allow the mode.
    """
    return replace(load_hardware(hw, ()).accelerator, skip=skip)
