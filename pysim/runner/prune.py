"""``pysim prune``: a method, some block sizes and some seeds, from a model's name to pruned files."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pysim
from pysim.errors import ConfigError
from pysim.pruning import PruneConfig, block_sparsity, describe_dead
from pysim.pruning.layers import products
from pysim.result import LevelResult, PruneResult, Trial
from pysim.runner.methods import DENSE_LR, Init, Level, Plan, make_plan
from pysim.runner.networks import DenseNetwork, PrunedNetwork, Source
from pysim.runner.stages import dense_networks, pruned_networks
from pysim.training import Progress, Threads, check_bf16, check_threads, no_progress, save_pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRunConfig:
    """What to prune, how and how often.

    Args:
        model: A name in ``pysim.models.MODELS``, or ``module:factory``.
        blocks: Block sizes (height, width), at least one.
        seeds: At least one.
        method: A name in ``METHODS``.
        prune: Everything about masks; its block and seed are replaced by those above.
        init: Control: weights that the last retraining starts from; None for the method's own.
        epochs: Of fine-tuning.
        dense_epochs: Of dense training.
        dense_lr: Its highest learning rate.
        rewind_step: Step of dense training that weights or learning rate rewind to.
        level_rate: Share of what remains that each level of an iterative method removes.
        data: As in ``load_dataset``.
        pad_to: Pad images to this size in pixels; None leaves them.
        checkpoint: Weights to start from; a pruned network's file is pruned further.
        device: ``cpu`` or ``cuda``: what trains and tests.
        bf16: Train in bfloat16.
        sparse_training: Retrain on pysim's block-sparse layers, on the CPU.
        seeds_together: Train the networks of all seeds side by side in this process.
        threads: With how many CPU threads networks are trained.
        out: The file to write. With several trials the block size and the seed become part of its name.
        use_cache: Whether finished or interrupted work may be taken from the cache.

    Raises:
        ConfigError: A field is out of range.
    """

    model: str
    blocks: tuple[tuple[int, int], ...]
    prune: PruneConfig
    seeds: tuple[int, ...] = (0,)
    method: str = "one-shot"
    init: Init | None = None
    epochs: int = 1
    dense_epochs: int = 4
    dense_lr: float = DENSE_LR
    rewind_step: int = 0
    level_rate: float = 0.2
    data: str = "fashion-mnist"
    pad_to: int | None = None
    checkpoint: Path | None = None
    device: str = "cpu"
    bf16: bool = False
    sparse_training: bool = False
    seeds_together: bool = False
    threads: Threads = None
    out: Path | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        for field in ("blocks", "seeds"):
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{field}: expected at least one and each once, got {values}")
        if self.rewind_step < 0:
            raise ConfigError(f"rewind-step: expected at least 0, got {self.rewind_step}")
        check_threads(self.threads)
        if self.dense_epochs < 1 or self.epochs < 0:
            raise ConfigError(
                f"epochs: expected at least 1 dense and 0 after, got {self.dense_epochs} and {self.epochs}"
            )

    def plan(self, block: tuple[int, int], seed: int) -> Plan:
        """What is to be done for one block size and seed. Raises ConfigError if that cannot be."""
        if self.sparse_training and self.device != "cpu":
            raise ConfigError(f"sparse-training: expected device cpu, got {self.device}")
        plan = make_plan(
            self.method,
            replace(self.prune, block=block, seed=seed),
            init=self.init,
            epochs=self.epochs,
            dense_epochs=self.dense_epochs,
            dense_lr=self.dense_lr,
            rewind_step=self.rewind_step,
            level_rate=self.level_rate,
            seed=seed,
            sparse_training=self.sparse_training,
            bf16=self.bf16,
        )
        if self.seeds_together and (self.sparse_training or any(level.growing for level in plan.levels)):
            what = "sparse-training" if self.sparse_training else f"method {self.method}"
            raise ConfigError(
                f"seeds-together: expected masks that stay and PyTorch's layers, got {what}",
                hint="Leave out --seeds-together: one seed is then trained after the other.",
            )
        if self.checkpoint is not None and plan.from_scratch:
            raise ConfigError(
                f"checkpoint: method {self.method} needs a network trained here, got {self.checkpoint}",
                hint="Leave out --checkpoint.",
            )
        return plan


def prune(config: PruneRunConfig, progress: Progress = no_progress) -> PruneResult:
    """Runs every trial; what is in the cache is not done again.

    Raises:
        PysimError: Something in ``config`` cannot be done; the message says what.
    """
    # All that can be refused is refused before minutes are spent.
    plans = {(b, s): config.plan(b, s) for b in config.blocks for s in config.seeds}
    source = Source(config.data, config.pad_to, config.device, config.threads)
    if config.bf16:
        check_bf16(source.device)
    check_steps(plans.values(), source)
    dense: dict[int, DenseNetwork] = {}
    trials: list[Trial] = []
    for block in config.blocks:
        for seeds in seed_groups(config.seeds, config.seeds_together):
            labelled = _labelled(progress, seeds)
            if seeds[0] not in dense:
                dense |= dense_for(config, seeds, plans[block, seeds[0]], source, labelled)
            own = {seed: plans[block, seed] for seed in seeds}
            trials += run_trials(config, block, own, dense, source, labelled)
    return PruneResult(
        pysim_version=pysim.__version__,
        model=config.model,
        dataset=source.dataset.name,
        method=config.method,
        settings=_settings(config),
        trials=tuple(trials),
    )


def check_steps(plans: Iterable[Plan], source: Source) -> None:
    """Raises ConfigError if a plan rewinds to a step that its training does not have."""
    for plan in plans:
        for level in plan.levels:
            step = max(level.start_step, plan.snapshot_step or 0)
            if step == 0:
                continue
            steps = -(-len(source.dataset.train_labels) // level.retrain.batch_size) * level.retrain.epochs
            if step >= steps:
                raise ConfigError(
                    f"rewind-step: expected below the {steps} steps of dense training "
                    f"({level.retrain.epochs} epochs), got {step}",
                    hint="Train longer with --dense-epochs, or rewind to an earlier step.",
                )


def seed_groups(seeds: Sequence[int], together: bool) -> list[tuple[int, ...]]:
    """Seeds whose networks are trained at once: all, or one after the other."""
    return [tuple(seeds)] if together else [(seed,) for seed in seeds]


def name_seeds(seeds: Sequence[int]) -> str:
    """For progress: ``seed 0``, or ``seeds 0, 1``."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _labelled(progress: Progress, seeds: Sequence[int]) -> Progress:
    return lambda what, done, total: progress(f"{name_seeds(seeds)}, {what}", done, total)


def _settings(config: PruneRunConfig) -> dict[str, object]:
    masks = {name: value for name, value in asdict(config.prune).items() if name not in ("block", "seed")}
    return masks | {
        "init": config.init,
        "epochs": config.epochs,
        "dense_epochs": config.dense_epochs,
        "dense_lr": config.dense_lr,
        "rewind_step": config.rewind_step,
        "level_rate": config.level_rate,
        "device": config.device,
        "bf16": config.bf16,
        "sparse_training": config.sparse_training,
        "seeds_together": config.seeds_together,
        "threads": config.threads,
    }


def dense_for(
    config: PruneRunConfig,
    seeds: Sequence[int],
    plan: Plan,
    source: Source,
    progress: Progress = no_progress,
) -> dict[int, DenseNetwork]:
    """By seed, the network that pruning starts from: one for all block sizes of a seed."""
    networks = dense_networks(
        config.model,
        source,
        checkpoint=config.checkpoint,
        epochs=plan.dense_epochs,
        peak_lr=config.dense_lr,
        seeds=seeds,
        use_cache=config.use_cache,
        progress=progress,
        from_scratch=plan.from_scratch,
        snapshot_step=plan.snapshot_step,
        bf16=config.bf16,
    )
    return dict(zip(seeds, networks, strict=True))


def remaining_levels(plan: Plan, dense: DenseNetwork) -> list[Level]:
    """The plan's levels without those that masks of earlier pruning have already passed; the last always."""
    there = block_sparsity(dense.masks)
    return [level for level in plan.levels if level is plan.levels[-1] or level.prune.sparsity > there]


def run_trials(
    config: PruneRunConfig,
    block: tuple[int, int],
    plans: Mapping[int, Plan],
    dense: Mapping[int, DenseNetwork],
    source: Source,
    progress: Progress = no_progress,
    *,
    simulate: Callable[[PrunedNetwork, Level], float | None] | None = None,
) -> list[Trial]:
    """One block size with the seeds of ``plans``, level after level; every level is in the cache by itself.

    Several seeds are trained side by side. ``simulate`` is asked for the speedup of every level's network;
    without it no level has one.
    """
    starts = [dense[seed] for seed in plans]
    networks: list[PrunedNetwork] | None = None
    results: list[list[LevelResult]] = [[] for _ in plans]
    chains = [remaining_levels(plan, dense[seed]) for seed, plan in plans.items()]
    for levels in zip(*chains, strict=True):
        networks = pruned_networks(
            starts, source, levels, previous=networks, use_cache=config.use_cache, progress=progress
        )
        for found, network, level in zip(results, networks, levels, strict=True):
            found.append(
                LevelResult(
                    sparsity=level.prune.sparsity,
                    before_finetune=network.before_finetune,
                    accuracy=network.accuracy,
                    threads=network.threads,
                    simulated_speedup=None if simulate is None else simulate(network, level),
                )
            )
    if networks is None:
        raise ConfigError(f"method {config.method}: expected at least one level, got none")
    return [
        _finished(config, block, plans[start.seed], start, network, tuple(found), source)
        for start, network, found in zip(starts, networks, results, strict=True)
    ]


def _finished(
    config: PruneRunConfig,
    block: tuple[int, int],
    plan: Plan,
    dense: DenseNetwork,
    network: PrunedNetwork,
    levels: tuple[LevelResult, ...],
    source: Source,
) -> Trial:
    """What came of one seed; its file is written if one is asked for."""
    trained = plan.dense_epochs > 0
    file = _out_path(config, block, dense.seed)
    masks = network.masks
    zeros = sum(mask.weights_total - mask.weights_kept for mask in masks.values())
    trial = Trial(
        block=block,
        seed=dense.seed,
        dense=dense.accuracy if trained else None,
        dense_threads=dense.threads,
        levels=levels,
        sparsity_prunable=zeros / sum(mask.weights_total for mask in masks.values()),
        sparsity_model=zeros / sum(m.weight.numel() for m in products(network.model).values()),
        blocks_kept=sum(mask.blocks_kept for mask in masks.values()),
        blocks_total=sum(mask.blocks_total for mask in masks.values()),
        empty=tuple(name for name, mask in masks.items() if not mask.blocks_kept),
        dead=tuple(describe_dead(masks)),
        file=None if file is None else str(file),
    )
    if file is not None:
        facts = _facts(config, dense, trial, source)
        save_pruned(file, config.model, network.model, masks, plan.levels[-1].prune, facts)
    return trial


def _facts(config: PruneRunConfig, dense: DenseNetwork, trial: Trial, source: Source) -> dict[str, object]:
    return {
        "method": config.method,
        "settings": _settings(config),
        "seed": trial.seed,
        "data": {"name": source.dataset.name, "sha256": source.dataset.fingerprint()},
        "dense_origin": dense.origin,
        "dense_accuracy": trial.dense,
        "accuracy": trial.accuracy,
        "history": [asdict(level) for level in trial.levels],
        "versions": {
            "pysim": pysim.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")},
        },
    }


def _out_path(config: PruneRunConfig, block: tuple[int, int], seed: int) -> Path | None:
    if config.out is None:
        return None
    marks = []
    if len(config.blocks) > 1:
        marks.append(f"block{block[0]}x{block[1]}")
    if len(config.seeds) > 1:
        marks.append(f"seed{seed}")
    return config.out.with_name("-".join([config.out.stem, *marks]) + config.out.suffix)
