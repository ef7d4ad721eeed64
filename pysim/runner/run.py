"""``pysim run``: from a model's name to a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import pysim
from pysim.config import Accelerator
from pysim.energy import missing_figures
from pysim.errors import ConfigError, ModelError
from pysim.lowering import trace
from pysim.pruning import PruneConfig, element_masks, miscounted_layers
from pysim.result import Accuracy, BlockRun, Check, KernelTiming, LayerResult, RunResult
from pysim.runner.busy import core_use, cores_used_by_others
from pysim.runner.energy import area_of, energy_of
from pysim.runner.gpu_timing import gpu_device, time_layers_on
from pysim.runner.methods import Level, finetune_config
from pysim.runner.networks import DenseNetwork, PrunedNetwork, Source, network_from_file
from pysim.runner.simulate import (
    LayerCounts,
    layer_mask,
    layer_to_step,
    simulate_network_layer,
    step_layer,
    vector_work,
)
from pysim.runner.stages import dense_networks, pruned_networks
from pysim.runner.timing import time_layers, time_network
from pysim.training import Progress, Threads, is_pruned_file, no_progress
from pysim.workload import BlockMask, Layer, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What to run.

    Args:
        model: A name in ``pysim.models.MODELS``, or ``module:factory``.
        blocks: Block sizes (height, width), at least one; none with a pruned checkpoint, which has its own.
        accelerator: The machine to simulate.
        sparsity: Share of each prunable layer's blocks to remove, from 0 to below 1.
        data: As in ``load_dataset``.
        pad_to: Pad images to this size in pixels; None leaves them.
        checkpoint: Dense weights to start from; None takes the shipped ones or trains. A pruned network's
            file is taken with its masks: nothing is pruned or trained.
        dense_epochs: If there are no weights to start from.
        finetune_epochs: After pruning.
        seed: Of weights and training.
        prune_all: Also prune the first convolution, the classifier and 1 x 1 shortcuts.
        batch: Images in the simulated and timed input, at least 1.
        threads: Of the timed kernels, dense and sparse; at least 1.
        train_threads: With how many CPU threads networks are trained.
        device: Where kernels are timed: ``cpu`` or ``cuda``.
        measure: Whether to time kernels at all.
        use_cache: Whether to take finished training from the cache; it is written in any case.

    Raises:
        ConfigError: A field is out of range.
    """

    model: str
    blocks: tuple[tuple[int, int], ...]
    accelerator: Accelerator
    sparsity: float = 0.9
    data: str = "fashion-mnist"
    pad_to: int | None = None
    checkpoint: Path | None = None
    dense_epochs: int = 4
    finetune_epochs: int = 1
    seed: int = 0
    prune_all: bool = False
    batch: int = 1
    threads: int = 2
    train_threads: Threads = None
    device: str = "cpu"
    measure: bool = True
    use_cache: bool = True

    def __post_init__(self) -> None:
        if not self.blocks and self.checkpoint is None:
            raise ConfigError("block: expected at least one block size, got none")
        for field in ("batch", "threads", "dense_epochs"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}: expected at least 1, got {getattr(self, field)}")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device: expected cpu or cuda, got {self.device}")


def run(config: RunConfig, progress: Progress = no_progress) -> RunResult:
    """Trains or loads, prunes, fine-tunes, lowers, simulates and times, for every block size.

    Args:
        config: What.
        progress: Told how far each long stage is.

    Raises:
        PysimError: Something in ``config`` cannot be done; the message says what.
    """
    # All that can be refused is refused before minutes are spent.
    if config.measure and config.device == "cuda":
        gpu_device()
    prunes = [
        PruneConfig(block=block, sparsity=config.sparsity, prune_all=config.prune_all, seed=config.seed)
        for block in config.blocks
    ]
    finetune = finetune_config(config.finetune_epochs, config.seed)
    source = Source(config.data, config.pad_to, threads=config.train_threads)
    if config.checkpoint is not None and is_pruned_file(config.checkpoint):
        return _run_file(config, config.checkpoint, source, progress)
    if not prunes:
        raise ConfigError(
            f"block: expected at least one block size, got none and {config.checkpoint} holds no masks"
        )
    dense = dense_networks(
        config.model,
        source,
        checkpoint=config.checkpoint,
        epochs=config.dense_epochs,
        seeds=(config.seed,),
        use_cache=config.use_cache,
        progress=progress,
    )
    workload, _ = trace(dense[0].model, _example(source, config.batch))
    runs = []
    for prune in prunes:
        level = Level(prune=prune, retrain=finetune)
        (pruned,) = pruned_networks(dense, source, [level], use_cache=config.use_cache, progress=progress)
        runs.append(_block_run(config, prune, dense[0], pruned, source, workload, progress))
    return _result(config, source, workload, runs)


def _run_file(config: RunConfig, path: Path, source: Source, progress: Progress) -> RunResult:
    """Simulates and times a pruned network as its file has it."""
    dense, pruned, prune = network_from_file(config.model, path, source, progress)
    if config.blocks and config.blocks != (prune.block,):
        raise ConfigError(f"block: expected {prune.block}, that of {path}, or none, got {config.blocks}")
    config = replace(config, sparsity=prune.sparsity, finetune_epochs=0)
    workload, _ = trace(pruned.model, _example(source, config.batch))
    block_run = _block_run(config, prune, dense, pruned, source, workload, progress)
    return _result(config, source, workload, [block_run])


def _result(config: RunConfig, source: Source, workload: Workload, runs: Sequence[BlockRun]) -> RunResult:
    return RunResult(
        pysim_version=pysim.__version__,
        model=config.model,
        dataset=source.dataset.name,
        seed=config.seed,
        sparsity=config.sparsity,
        finetune_epochs=config.finetune_epochs,
        batch=config.batch,
        threads=config.threads,
        device=config.device,
        accelerator=config.accelerator,
        unmapped=workload.unmapped,
        unmapped_share=workload.unmapped_share,
        vector=vector_work(workload, config.accelerator),
        energy_missing=missing_figures(config.accelerator),
        area_mm2=area_of(config.accelerator),
        runs=tuple(runs),
    )


def _example(source: Source, batch: int) -> torch.Tensor:
    images, _ = next(source.batches.test(batch))
    return images


def _block_run(
    config: RunConfig,
    prune: PruneConfig,
    dense: DenseNetwork,
    pruned: PrunedNetwork,
    source: Source,
    workload: Workload,
    progress: Progress,
) -> BlockRun:
    masks = [layer_mask(layer, prune.block, pruned.masks) for layer in workload.layers]
    touched = [layer.weight in pruned.masks for layer in workload.layers]
    simulated = [
        simulate_network_layer(layer, mask, config.accelerator)
        for layer, mask in zip(workload.layers, masks, strict=True)
    ]
    stepped = layer_to_step(workload.layers, [s.chosen.cycles for s in simulated], touched)
    names = (
        frozenset(layer.name for layer in workload.layers) if config.measure else frozenset({stepped.name})
    )
    _, activations = trace(pruned.model, _example(source, config.batch), keep_activations=names)

    parameters = dict(pruned.model.named_parameters())
    timings: list[KernelTiming | None] = [None] * len(workload.layers)
    one_call, refusal, other_load = None, "", None
    if config.measure and config.device == "cuda":
        timings = list(
            time_layers_on(
                gpu_device(), workload.layers, parameters, activations, pruned.masks, progress=progress
            )
        )
        refusal = "pysim.compile is for the CPU"
    elif config.measure:
        before = core_use()
        timings = list(
            time_layers(
                workload.layers,
                parameters,
                activations,
                pruned.masks,
                threads=config.threads,
                progress=progress,
            )
        )
        try:
            image = _example(source, config.batch)
            one_call = time_network(pruned.model, pruned.masks, image, threads=config.threads)
        except ModelError as error:
            refusal = str(error)
        other_load = cores_used_by_others(before, core_use())
    index = workload.layers.index(stepped)
    checks = [_zeros_check(pruned, prune)]
    if stepped.weight is not None:
        checks.append(
            step_layer(
                stepped,
                parameters[stepped.weight],
                activations[stepped.name],
                masks[index],
                config.accelerator,
                simulated[index].chosen.cycles,
            )
        )
    if config.measure:
        checks.append(_kernel_check(timings))
    zeros = sum(m.weights_total - m.weights_kept for m in pruned.masks.values())
    prunable = sum(m.weights_total for m in pruned.masks.values())
    weights = {layer.weight: layer.groups * layer.m * layer.k for layer in workload.layers if layer.weight}
    return BlockRun(
        block=prune.block,
        sparsity_prunable=zeros / prunable,
        sparsity_model=zeros / sum(weights.values()),
        accuracy=Accuracy(
            dense=dense.accuracy, before_finetune=pruned.before_finetune, pruned=pruned.accuracy
        ),
        layers=tuple(
            _layer_result(layer, mask, hit, counts, timing)
            for layer, mask, hit, counts, timing in zip(
                workload.layers, masks, touched, simulated, timings, strict=True
            )
        ),
        energy=energy_of([s.dense for s in simulated], [s.chosen for s in simulated], config.accelerator),
        one_call=one_call,
        one_call_refusal=refusal,
        other_load_cores=other_load,
        checks=tuple(checks),
        train_threads=pruned.threads,
    )


def _zeros_check(pruned: PrunedNetwork, prune: PruneConfig) -> Check:
    """Every weight outside the kept blocks is zero after training, and each layer keeps the exact count."""
    elements = element_masks(pruned.model, pruned.masks)
    parameters = dict(pruned.model.named_parameters())
    regrown = sum(int(((parameters[name] != 0) & ~mask).sum()) for name, mask in elements.items())
    miscounted = miscounted_layers(pruned.masks, prune)
    kept = sum(mask.blocks_kept for mask in pruned.masks.values())
    return Check(
        name="masks",
        passed=regrown == 0 and not miscounted,
        detail=(
            f"{kept} blocks kept in {len(pruned.masks)} layers, the exact count in "
            f"{len(pruned.masks) - len(miscounted)}; {regrown} pruned weights are not zero"
        ),
    )


def _kernel_check(timings: Sequence[KernelTiming | None]) -> Check:
    sparse = [timing for timing in timings if timing is not None and timing.isa != "torch"]
    worst = max((timing.max_error for timing in sparse), default=0.0)
    return Check(
        name="kernels",
        passed=worst <= 1.0,
        detail=f"outputs of {len(sparse)} layers within {100 * worst:.2g} % of the rounding bound of torch's",
    )


def _layer_result(
    layer: Layer, mask: BlockMask, hit: bool, counts: LayerCounts, timing: KernelTiming | None
) -> LayerResult:
    return LayerResult(
        name=layer.name,
        m=layer.m,
        k=layer.k,
        n=layer.n,
        groups=layer.groups,
        pruned=hit,
        blocks_total=mask.blocks_total,
        blocks_kept=mask.blocks_kept,
        dense=counts.dense,
        counts=counts.chosen,
        cycles_by_skip=counts.by_skip,
        kernel=timing,
    )
