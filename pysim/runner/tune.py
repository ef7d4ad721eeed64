"""``pysim tune``: from which sparsity on block-sparse products are faster than torch's dense one, here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pysim.errors import ConfigError, DataError
from pysim.result import BreakEven, Tuning
from pysim.runner.timing import PYSIM, Seconds, interleave
from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.sparse.tuning import (
    COLUMNS,
    HEIGHTS,
    describe_machine,
    load_tuning,
    save_tuning,
    tuning_path,
)
from pysim.training import Progress, no_progress
from pysim.workload import BlockGrid

# Kept shares that are timed; between them time is taken to be linear in the weights.
_DENSITIES = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """What to measure.

    Args:
        threads: For torch and pysim.
        side: Rows and columns of W.
        heights: Of square blocks.
        columns: Widths n of X.
        seed: Of masks and values.

    Raises:
        ConfigError: A field is out of range.
    """

    threads: int = 1
    side: int = 768
    heights: tuple[int, ...] = HEIGHTS
    columns: tuple[int, ...] = COLUMNS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 256:
            raise ConfigError(f"threads: expected 1 to 256, got {self.threads}")
        if not 16 <= self.side <= 4096:
            raise ConfigError(f"side: expected 16 to 4096, got {self.side}")
        if not self.heights or not self.columns or min(*self.heights, *self.columns) < 1:
            raise ConfigError("tune: expected heights and columns of at least 1")


def tune_machine(
    threads: int | None, *, measure: bool, progress: Progress = no_progress
) -> tuple[Tuning, Path]:
    """What is kept of this machine, and where.

    Args:
        threads: For torch and pysim. Default: torch's own number.
        measure: Measure it now and keep that; else what was measured before.
        progress: Told how many products are done.

    Raises:
        DataError: Nothing was measured, or what was is broken.
        OSError: The result cannot be written.
    """
    count = torch.get_num_threads() if threads is None else threads
    if measure:
        tuning = tune(TuneConfig(threads=count), progress)
        return tuning, save_tuning(tuning, count)
    path = tuning_path(count)
    kept = load_tuning(count)
    if kept is None:
        raise DataError(
            f"{path}: nothing was measured on this machine with this build and {count} threads",
            hint="pysim tune measures it.",
        )
    return kept, path


def tune(config: TuneConfig, progress: Progress = no_progress) -> Tuning:
    """Finds the break-even sparsity for every block height and number of columns.

    Dense and sparse products are called in turn; every round gives a break-even of its own, so that their
    spread says how far the machine can be relied on.

    Raises:
        ConfigError: A field is out of range.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    rows: list[BreakEven] = []
    total = len(config.heights) * len(config.columns)
    try:
        for height in config.heights:
            for n in config.columns:
                rows.append(_row(config, height, n))
                progress("timing products", len(rows), total)
    finally:
        torch.set_num_threads(before)
    return Tuning(machine=describe_machine(config.threads), rows=tuple(rows))


def _row(config: TuneConfig, height: int, n: int) -> BreakEven:
    rng = np.random.default_rng(config.seed)
    grid = BlockGrid(m=config.side, k=config.side, bh=height, bw=height)
    x = torch.from_numpy(rng.standard_normal((config.side, n), dtype=np.float32))
    w = rng.standard_normal((config.side, config.side), dtype=np.float32)
    dense, tokens = torch.from_numpy(w), x.t().contiguous()
    forms: dict[str, Callable[[], object]] = {
        "mm": lambda: torch.mm(dense, x),
        "linear": lambda: torch.nn.functional.linear(tokens, dense),
    }
    order = rng.permutation(grid.shape[0] * grid.shape[1])
    for density in _DENSITIES:
        keep = np.zeros(len(order), dtype=bool)
        keep[order[: max(1, round(density * len(order)))]] = True
        matrix = BsrMatrix.from_dense(w, grid, keep.reshape(grid.shape))
        forms[f"{PYSIM} {density}"] = _call(SpmmPlan(matrix, threads=config.threads), x)
    samples = interleave(forms)
    fastest = np.minimum(samples["mm"], samples["linear"])
    sparse = np.stack([samples[f"{PYSIM} {density}"] for density in _DENSITIES])
    found = [break_even(_DENSITIES, times, limit) for times, limit in zip(sparse.T, fastest, strict=True)]
    low, median, high = (float(q) for q in np.quantile(found, (0.25, 0.5, 0.75)))
    return BreakEven(height=height, n=n, sparsity=(low, median, high))


def _call(plan: SpmmPlan, x: torch.Tensor) -> Callable[[], object]:
    return lambda: plan(x)


def break_even(densities: Sequence[float], sparse: Seconds | npt.NDArray[np.float64], dense: float) -> float:
    """The sparsity from which on sparse is faster.

    Args:
        densities: Kept shares, rising.
        sparse: Time at each, taken to be linear in between.
        dense: The time to beat.

    Returns:
        0 if sparse is faster at the largest density, 1 if it is slower at the smallest.
    """
    slower = np.flatnonzero(np.asarray(sparse) >= dense)
    if not len(slower):
        return 1 - densities[-1]
    first = int(slower[0])
    if first == 0:
        return 1.0
    below, above = float(sparse[first - 1]), float(sparse[first])
    share = (dense - below) / (above - below)
    return 1 - (densities[first - 1] + share * (densities[first] - densities[first - 1]))
