"""From trials to an answer: a number, its bootstrap interval over seeds, and what the claim makes of it.

Trials of one seed share data order and, where there is one, the dense network, so seeds are resampled whole
and block sizes are compared within them. The interval is the percentile bootstrap's (Efron 1979); with few
seeds it is too narrow, which is why a verdict needs ``min_seeds``: were there no effect at all, five seeds
would agree on a sign by chance once in sixteen times.

``VERDICTS`` is the one list of studies that have a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError
from pysim.result import Answer, Block, Evidence, Trial, Verdict, by_size, squarest

Table = npt.NDArray[np.float64]
"""(seeds, block sizes), rows of one seed, columns from the smallest block to the largest."""

Statistic = Callable[[Table], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What counts as what.

    Args:
        margin_points: Differences of accuracy below this are none, in percentage points; above 0.
        cliff_points: A loss from one block size to the next above this is not gradual; above 0.
        tolerance_points: A sparsity is reached if accuracy is at most this below the dense network's.
        min_seeds: Fewer leave every claim undecided; at least 2.
        resamples: Of the bootstrap.
        confidence: Of its interval, 0.5 to below 1.

    Raises:
        ConfigError: A field is out of range.
    """

    margin_points: float = 0.5
    cliff_points: float = 5.0
    tolerance_points: float = 1.0
    min_seeds: int = 5
    resamples: int = 10_000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, holds in (
            ("margin_points", 0 < self.margin_points < math.inf),
            ("cliff_points", 0 < self.cliff_points < math.inf),
            ("tolerance_points", 0 <= self.tolerance_points < math.inf),
            ("min_seeds", self.min_seeds >= 2),
            ("resamples", 100 <= self.resamples <= 10**6),
            ("confidence", 0.5 <= self.confidence < 1),
        ):
            if not holds:
                raise ConfigError(f"criteria.{name}: out of range: {getattr(self, name)}")


def bootstrap_interval(table: Table, statistic: Statistic, criteria: Criteria) -> tuple[float, float]:
    """Percentile interval of ``statistic`` over resampled rows. Seeded: the same table, the same interval."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(table), (criteria.resamples, len(table)))
    values = [statistic(table[index]) for index in rows]
    tail = (1 - criteria.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def slope_per_doubling(table: Table, blocks: Sequence[Block]) -> float:
    """Least-squares change of the row means' value for each doubling of the weights in a block."""
    x = np.log2([height * width for height, width in blocks])
    x = x - x.mean()
    return float(x @ table.mean(axis=0) / (x @ x))


def _difference(column: int, base: int, table: Table) -> float:
    return float((table[:, column] - table[:, base]).mean())


def _judge(
    name: str, unit: str, table: Table, statistic: Statistic, criteria: Criteria, good: tuple[float, float]
) -> Evidence:
    """Supports if the interval lies inside ``good`` (open), speaks against if it lies wholly outside."""
    low, high = bootstrap_interval(table, statistic, criteria)
    supports = None
    if good[0] < low and high < good[1]:
        supports = True
    elif high <= good[0] or low >= good[1]:
        supports = False
    return Evidence(name=name, unit=unit, value=statistic(table), low=low, high=high, supports=supports)


def _label(block: Block) -> str:
    return f"{block[0]}x{block[1]}"


def _finetune(trials: Sequence[Trial], criteria: Criteria) -> list[Evidence]:
    """Accuracy falls with block size (slope below 0), and no single step is a cliff."""
    blocks, table = _table(trials, lambda trial: trial.accuracy)
    found = [
        _judge(
            "accuracy per doubling of the block's weights",
            "points",
            table,
            lambda t: slope_per_doubling(t, blocks),
            criteria,
            (-math.inf, 0.0),
        )
    ]
    for i in range(1, len(blocks)):
        found.append(
            _judge(
                f"change from block {_label(blocks[i - 1])} to {_label(blocks[i])}",
                "points",
                table,
                partial(_difference, i, i - 1),
                criteria,
                (-criteria.cliff_points, math.inf),
            )
        )
    return found


def reachable_compression(trial: Trial, tolerance_points: float) -> float:
    """Halvings of the weights up to the highest level that is at most ``tolerance_points`` below dense.

    log2(1 / (1 - sparsity)); 0 if no level gets there. A level above that fails does not stop the search:
    accuracy along the levels is noisy.
    """
    if trial.dense is None:
        raise ConfigError("verdict: expected the dense network's accuracy in every trial, got none")
    reached = [level.sparsity for level in trial.levels if level.accuracy >= trial.dense - tolerance_points]
    return math.log2(1 / (1 - max(reached, default=0.0)))


def _rewind(trials: Sequence[Trial], criteria: Criteria) -> list[Evidence]:
    """The sparsity that can be reached falls with block size.

    If every trial reaches the same level, the levels were too easy, too hard or too coarse to tell.
    """
    chains = _by_block_and_seed(trials)
    blocks, table = _table(chains, lambda trial: reachable_compression(trial, criteria.tolerance_points))
    found = _judge(
        "reachable compression per doubling of the block's weights",
        "halvings",
        table,
        lambda t: slope_per_doubling(t, blocks),
        criteria,
        (-math.inf, 0.0),
    )
    return [replace(found, supports=None) if table.min() == table.max() else found]


def _reinit(trials: Sequence[Trial], criteria: Criteria) -> list[Evidence]:
    """No block size differs from the smallest by the margin or more (two one-sided comparisons)."""
    blocks, table = _table(trials, lambda trial: trial.accuracy)
    return [_alike(blocks, table, i, 0, criteria) for i in range(1, len(blocks))]


def _shape(trials: Sequence[Trial], criteria: Criteria) -> list[Evidence]:
    """No shape differs by the margin or more from the squarest one with as many weights."""
    blocks, table = _table(trials, lambda trial: trial.accuracy)
    bases = {size: blocks.index(squarest(same)) for size, same in by_size(blocks).items()}
    pairs = [(i, bases[height * width]) for i, (height, width) in enumerate(blocks)]
    return [_alike(blocks, table, i, base, criteria) for i, base in pairs if i != base]


def _alike(blocks: Sequence[Block], table: Table, column: int, base: int, criteria: Criteria) -> Evidence:
    return _judge(
        f"accuracy of block {_label(blocks[column])} less that of {_label(blocks[base])}",
        "points",
        table,
        partial(_difference, column, base),
        criteria,
        (-criteria.margin_points, criteria.margin_points),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a study is judged.

    Args:
        evidence: The numbers, from trials and criteria.
        every_sparsity: Whether trials of all sparsities are judged together, or those of one alone.
        shapes: Compares blocks of equally many weights, instead of sizes.
    """

    evidence: Callable[[Sequence[Trial], Criteria], list[Evidence]]
    every_sparsity: bool = False
    shapes: bool = False

    def check_blocks(self, blocks: Sequence[Block]) -> None:
        """Raises ConfigError if ``blocks`` leave nothing to compare."""
        groups = by_size(blocks)
        if self.shapes and max(map(len, groups.values()), default=0) < 2:
            raise ConfigError(f"blocks: expected two shapes with equally many weights, got {list(blocks)}")
        if not self.shapes and len(groups) < 2:
            raise ConfigError(f"blocks: expected at least 2 sizes to compare, got {list(blocks)}")


VERDICTS: dict[str, Rule] = {
    "finetune": Rule(evidence=_finetune),
    "rewind": Rule(evidence=_rewind, every_sparsity=True),
    "reinit": Rule(evidence=_reinit),
    "shape": Rule(evidence=_shape, shapes=True),
}


def _by_block_and_seed(trials: Sequence[Trial]) -> list[Trial]:
    """One trial for each, with the levels of all: pruning at once to several sparsities is several trials."""
    groups: dict[tuple[Block, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.block, trial.seed), []).append(trial)
    return [
        replace(same[0], levels=tuple(level for trial in same for level in trial.levels))
        for same in groups.values()
    ]


def _table(trials: Sequence[Trial], measure: Callable[[Trial], float]) -> tuple[list[Block], Table]:
    blocks = sorted({t.block for t in trials}, key=lambda block: (block[0] * block[1], block))
    seeds = sorted({t.seed for t in trials})
    cells = {(t.seed, t.block): measure(t) for t in trials}
    if len(cells) != len(trials) or len(cells) != len(blocks) * len(seeds) or len(blocks) < 2:
        raise ConfigError(
            f"verdict: expected one trial for each of {len(seeds)} seeds and at least 2 block sizes, "
            f"got {len(trials)} trials of {len(blocks)} block sizes"
        )
    return blocks, np.array([[cells[seed, block] for block in blocks] for seed in seeds])


def decide(study: str, trials: Sequence[Trial], criteria: Criteria) -> Verdict:
    """The answer of ``study`` from all of its trials.

    Raises:
        ConfigError: The study is unknown, or block sizes and seeds do not form a full table.
    """
    if study not in VERDICTS:
        raise ConfigError(f"verdict: expected one of {', '.join(VERDICTS)}, got {study!r}")
    evidence = tuple(VERDICTS[study].evidence(trials, criteria))
    seeds = len({trial.seed for trial in trials})
    against = [item.name for item in evidence if item.supports is False]
    open_ = [item.name for item in evidence if item.supports is None]
    answer: Answer
    if seeds < criteria.min_seeds:
        answer, why = "undecided at this budget", f"{seeds} seeds, at least {criteria.min_seeds} are needed"
    elif against:
        answer, why = "not supported", f"{against[0]}: the interval lies where the claim excludes it"
    elif open_:
        answer, why = "undecided at this budget", f"{open_[0]}: the interval reaches both sides"
    else:
        answer, why = (
            "supported",
            f"all {len(evidence)} intervals over {seeds} seeds lie where the claim says",
        )
    return Verdict(answer=answer, evidence=evidence, why=why)
