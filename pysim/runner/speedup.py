"""How much faster a pruned network is than the dense one: simulated, and timed on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pysim.config import Accelerator, Skip, load_hardware
from pysim.lowering import trace
from pysim.runner.busy import core_use, cores_used_by_others
from pysim.runner.simulate import layer_mask, simulate_network_layer
from pysim.runner.stages import PrunedNetwork, Source
from pysim.runner.timing import time_layers

MOST_OTHER_CORES = 0.1
"""Cores that other programs may keep busy while a network is timed, for its speedup to be reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Dense over pruned, whole network.

    Args:
        simulated: Of cycles, array and memory; None if the pruned network needs none.
        measured: Of time; None if it was not asked for or the machine was busy.
    """

    simulated: float | None
    measured: float | None


class Speedometer:
    """Tells the speedup of pruned networks on one accelerator and on this machine.

    Args:
        accelerator: The machine to simulate.
        source: The first test image is what layers are traced and timed on.
        threads: Of the timed kernels; None times nothing.
    """

    def __init__(self, accelerator: Accelerator, source: Source, threads: int | None) -> None:
        self._accelerator = accelerator
        self._source = source
        self._threads = threads

    def __call__(self, network: PrunedNetwork, block: tuple[int, int]) -> Speedup:
        images, _ = next(self._source.batches.test(1))
        workload, _ = trace(network.model, images)
        dense = cycles = 0
        for layer in workload.layers:
            mask = layer_mask(layer, block, network.masks)
            counts = simulate_network_layer(layer, mask, self._accelerator)
            dense += counts.dense.cycles
            cycles += counts.chosen.cycles
        simulated = dense / cycles if cycles else None
        if self._threads is None:
            return Speedup(simulated=simulated, measured=None)
        names = frozenset(layer.name for layer in workload.layers)
        _, activations = trace(network.model, images, keep_activations=names)
        weights = dict(network.model.named_parameters())
        before = core_use()
        timings = list(
            time_layers(workload.layers, weights, activations, network.masks, threads=self._threads)
        )
        others = cores_used_by_others(before, core_use())
        timed = [timing for timing in timings if timing is not None]
        if len(timed) < len(timings) or others is None or others > MOST_OTHER_CORES:
            return Speedup(simulated=simulated, measured=None)
        measured = sum(t.dense_us for t in timed) / sum(t.sparse_us for t in timed)
        return Speedup(simulated=simulated, measured=measured)


def accelerator_for(hw: str, skip: Skip) -> Accelerator:
    """A hardware preset, file or ROWSxCOLS with a skip mode.

    Raises:
        ConfigError: It cannot be read, or its dataflow does not allow the mode.
    """
    return replace(load_hardware(hw, ()).accelerator, skip=skip)
