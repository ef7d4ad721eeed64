"""Simulates the layers of a network, and steps one of them register by register to check the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pysim.config import Accelerator
from pysim.lowering import Activation, input_matrix, output_matrix, weight_matrix
from pysim.lowering.matrices import Float32Array
from pysim.result import Check, GemmResult, VectorWork, add_results
from pysim.sim import simulate_gemm, simulate_layer
from pysim.workload import BlockMask, BoolArray, Layer, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCounts:
    """One layer, all groups one after the other.

    Args:
        by_skip: Cycles of the pruned layer with each skip mode that the dataflow allows.
        dense: Counts of the unpruned layer with ``skip="none"``, its weights without block indices.
        chosen: Counts of the pruned layer with the accelerator's own skip mode.
    """

    by_skip: dict[str, int]
    dense: GemmResult
    chosen: GemmResult


def skip_label(accelerator: Accelerator) -> str:
    """``mux`` with its width, as in ``mux2``; other modes by their own name."""
    return f"mux{accelerator.mux}" if accelerator.skip == "mux" else accelerator.skip


def simulate_network_layer(layer: Layer, mask: BlockMask, accelerator: Accelerator) -> LayerCounts:
    """Counts of one layer, and its cycles for every skip mode, by the event engine."""

    def simulate(keeps: Iterable[BoolArray], machine: Accelerator) -> GemmResult:
        results = [simulate_layer(mask.grid, keep, layer.n, machine, conv=layer.conv) for keep in keeps]
        return add_results(results, machine.rows * machine.cols * machine.cores)

    everything = BlockMask(grid=mask.grid, keep=np.ones_like(mask.keep))
    machine = _machine_for(mask, accelerator)
    pruned = {
        skip_label(mode): simulate(mask.keep, mode)
        for mode in (replace(machine, skip=skip) for skip in accelerator.allowed_skips())
    }
    return LayerCounts(
        by_skip={label: result.cycles for label, result in pruned.items()},
        dense=simulate(everything.keep, replace(_machine_for(everything, accelerator), skip="none")),
        chosen=pruned[skip_label(accelerator)],
    )


def layer_mask(layer: Layer, block: tuple[int, int], masks: Mapping[str, BlockMask]) -> BlockMask:
    """The mask of a layer's weight; one that keeps every block if it has none.

    Raises:
        ConfigError: Its blocks straddle kernel positions.
    """
    if layer.weight is not None and layer.weight in masks:
        masks[layer.weight].grid.check_order(layer.name)
        return masks[layer.weight]
    return BlockMask.all_kept(layer.grid(*block), layer.groups)


def _machine_for(mask: BlockMask, accelerator: Accelerator) -> Accelerator:
    """The machine as this layer sees it: weights that keep every block are stored dense, without indices."""
    if accelerator.memory is None or mask.blocks_kept < mask.blocks_total:
        return accelerator
    return replace(accelerator, memory=replace(accelerator.memory, index_bits=0))


def vector_work(workload: Workload, accelerator: Accelerator) -> VectorWork | None:
    """What is not a matrix product, on the accelerator's vector unit; None if it has none."""
    unit = accelerator.vector
    if unit is None:
        return None
    cycles: dict[str, int] = {}
    for op in workload.unmapped:
        if not op.foldable:
            cycles[op.op] = cycles.get(op.op, 0) + unit.cycles(op.operations)
    return VectorWork(cycles_by_op=cycles)


def layer_to_step(layers: Sequence[Layer], cycles: Sequence[int], pruned: Sequence[bool]) -> Layer:
    """The layer that the cycle engine steps: of the pruned ones, that with the median number of cycles."""
    candidates = [i for i in range(len(layers)) if pruned[i]] or list(range(len(layers)))
    candidates.sort(key=lambda i: cycles[i])
    return layers[candidates[(len(candidates) - 1) // 2]]


def step_layer(
    layer: Layer,
    weight: Tensor,
    activation: Activation,
    mask: BlockMask,
    accelerator: Accelerator,
    cycles: int,
) -> Check:
    """Steps every register of the array through ``layer`` on real activations.

    The check passes if the cycle engine counts what the event engine counted and every output is within what
    float32 rounding allows of torch's.
    """
    weights = weight_matrix(layer, weight)
    inputs = input_matrix(layer, activation.input)
    expected = output_matrix(layer, activation.output)
    stepped = 0
    worst = 0.0
    largest = 0.0
    for w, x, y, keep in zip(weights, inputs, expected, mask.keep, strict=True):
        grid = mask.grid
        result = simulate_gemm(
            w,
            x,
            block=(grid.bh, grid.bw),
            accelerator=_machine_for(mask, accelerator),
            engine="cycle",
            mask=keep,
            positions=grid.positions,
            conv=layer.conv,
        )
        stepped += result.cycles
        difference = np.abs(np.asarray(result.output, dtype=np.float64) - y)
        worst = max(worst, float((difference / _rounding_bound(w, x)).max()))
        largest = max(largest, float(difference.max()))
    passed = stepped == cycles and worst <= 1.0
    return Check(
        name="cycle engine",
        passed=passed,
        detail=(
            f"{layer.name} stepped register by register: {stepped} cycles (event engine: {cycles}); "
            f"outputs within {largest:.2g} of torch, {100 * worst:.2g} % of the rounding bound"
        ),
    )


def _rounding_bound(w: Float32Array, x: Float32Array) -> npt.NDArray[np.float64]:
    """Most by which two float32 sums of the same products may differ, (m, n); see timing._error."""
    k = w.shape[1] + 1
    u = 2.0**-24
    gamma = k * u / (1 - k * u)
    magnitude: npt.NDArray[np.float64] = np.abs(w.astype(np.float64)) @ np.abs(x.astype(np.float64))
    bound: npt.NDArray[np.float64] = 2 * gamma * magnitude + np.finfo(np.float32).tiny
    return bound
