"""What a benchmark says, and how it is timed."""

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
    call()
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        samples.append((time.perf_counter() - start) / calls)
    return np.array(samples)


def case_of(name: str, goal: str, unit: str, samples: np.ndarray) -> Case:
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return Case(name=name, goal=goal, unit=unit, quartiles=(float(low), float(median), float(high)))
