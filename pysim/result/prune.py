"""What ``pysim prune`` finds out, and its JSON form. Frozen; no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PRUNE_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some numbers of one kind, as mean and spread.

    Args:
        mean: Arithmetic.
        sd: Standard deviation with n - 1; None for a single number.
        n: How many.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Of at least one value."""
        n = len(values)
        mean = math.fsum(values) / n
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
        return cls(mean=mean, sd=sd, n=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """One level of pruning.

    Args:
        sparsity: Asked for, of the prunable blocks.
        before_finetune: Accuracy with the mask and nothing else, percent; that of the end if masks grew
            during training.
        accuracy: After retraining, percent.
        simulated_speedup: Dense cycles over those of this network; None if it was not simulated.
        measured_speedup: Dense time over that of this network; None if it was not timed.
        threads: CPU threads that retrained it; None if it was not trained here.
    """

    sparsity: float
    before_finetune: float
    accuracy: float
    simulated_speedup: float | None = None
    measured_speedup: float | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One block size with one seed.

    Args:
        block: Height and width.
        seed: Of weights, order of images and random choices.
        dense: Accuracy of the network that pruning started from, percent; None if it was not trained.
        levels: In order.
        sparsity_prunable: Share of the prunable weights that is zero by mask, 0 to 1.
        sparsity_model: The same zeros as a share of all weights of convolutions and linear layers.
        blocks_kept: In the prunable layers.
        blocks_total: Of those layers.
        empty: Weights of which no block is left.
        dead: A sentence for every other layer that has channels without a weight.
        file: The pruned network, if it was written.
        dense_threads: CPU threads that trained the dense network; None if it was not trained here.
    """

    block: tuple[int, int]
    seed: int
    dense: float | None
    levels: tuple[LevelResult, ...]
    sparsity_prunable: float
    sparsity_model: float
    blocks_kept: int
    blocks_total: int
    empty: tuple[str, ...]
    dead: tuple[str, ...]
    file: str | None
    dense_threads: int | None = None

    @property
    def sparsity(self) -> float:
        """Asked for in the end."""
        return self.levels[-1].sparsity

    @property
    def accuracy(self) -> float:
        return self.levels[-1].accuracy

    @property
    def before_finetune(self) -> float:
        return self.levels[-1].before_finetune


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """All trials of one call, block by block, seed by seed.

    Args:
        pysim_version: That made it.
        model: Name.
        dataset: Name.
        method: Name.
        settings: Everything asked for, as JSON values.
        trials: In order.
    """

    pysim_version: str
    model: str
    dataset: str
    method: str
    settings: dict[str, object]
    trials: tuple[Trial, ...]

    def by_block(self) -> dict[tuple[int, int], list[Trial]]:
        """The trials of every block size, in the order asked for."""
        groups: dict[tuple[int, int], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(trial.block, []).append(trial)
        return groups

    def to_json(self) -> dict[str, object]:
        """The object that ``--json`` prints."""
        return {
            "schema": PRUNE_SCHEMA,
            "pysim_version": self.pysim_version,
            "model": self.model,
            "dataset": self.dataset,
            "method": self.method,
            "settings": self.settings,
            "blocks": [
                {
                    "block": list(block),
                    "accuracy": asdict(Sample.of([t.accuracy for t in trials])),
                    "before_finetune": asdict(Sample.of([t.before_finetune for t in trials])),
                    "trials": [asdict(t) | {"accuracy": t.accuracy} for t in trials],
                }
                for block, trials in self.by_block().items()
            ],
        }
