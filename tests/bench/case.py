"""What a benchmark case is, and how calls are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measured figure: its goal as text, and the quartiles of what was seen."""

    name: str
    goal: str
    unit: str
    quartiles: tuple[float, float, float]


def seconds(call: Callable[[], object], *, rounds: int, calls: int = 1) -> np.ndarray:
    """Per call, one for each round, after one call that is not counted."""
    call()
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        samples.append((time.perf_counter() - start) / calls)
    return np.array(samples)


def make_case(name: str, goal: str, unit: str, samples: np.ndarray) -> Case:
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return Case(name=name, goal=goal, unit=unit, quartiles=(float(low), float(median), float(high)))


def ratios(dense: Callable[[], object], sparse: Callable[[], object], *, calls: int) -> np.ndarray:
    """Dense time over sparse time, round by round, the two called in turn."""
    pairs = [
        (seconds(dense, rounds=1, calls=calls)[0], seconds(sparse, rounds=1, calls=calls)[0])
        for _ in range(31)
    ]
    return np.array([d / s for d, s in pairs])
