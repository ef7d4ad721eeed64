"""How sparsity grows: over the steps of one training run, or from level to level. ``GROWTH`` is the list.

Pure functions of numbers; who trains between the steps is the runner's business.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal

from pysim.errors import ConfigError


def cubic(start: float, end: float, progress: float) -> float:
    """``end`` + (``start`` - ``end``) (1 - progress)^3: fast while much is left, slow near the end.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, equation 1.
    """
    return end + (start - end) * (1 - progress) ** 3


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from ``start`` to ``end``."""
    return start + (end - start) * progress


GROWTH: dict[str, Callable[[float, float, float], float]] = {"cubic": cubic, "linear": linear}
"""Sparsity at ``progress`` (0 to 1) of the way from one sparsity to another."""

_DIGITS = Decimal("0.000001")


def level_sparsities(target: float, rate: float) -> tuple[float, ...]:
    """The levels of iterative pruning: each removes ``rate`` of what remains, the last stops at ``target``.

    Exact decimals, rounded to six digits, so that a level's count does not hang on binary fractions.

    Raises:
        ConfigError: ``target`` is not from 0 to below 1, or ``rate`` is not from 0.001 to below 1.
    """
    if not 0 <= target < 1:
        raise ConfigError(f"sparsity: expected from 0 to below 1, got {target}")
    if not 0.001 <= rate < 1:
        raise ConfigError(f"level-rate: expected from 0.001 to below 1, got {rate}")
    goal, keep = Decimal(repr(float(target))), 1 - Decimal(repr(float(rate)))
    levels = []
    remaining = keep
    while 1 - remaining < goal:
        levels.append(float((1 - remaining).quantize(_DIGITS, ROUND_HALF_EVEN)))
        remaining *= keep
    return (*(level for level in levels if level < target), float(target))
