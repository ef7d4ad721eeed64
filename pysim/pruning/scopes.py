"""How many blocks each layer keeps. Exact in total; ``SCOPES`` is the one list.

A scope sees the scores of every prunable layer at once and says a count for each; within a layer the best
blocks stay, ties by lowest index. A unit that earlier pruning took has the score ``-inf`` and never counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pysim.pruning.scores import Float64Array, kept_count


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScores:
    """One prunable layer as a scope sees it.

    Args:
        scores: Any shape, one for each unit (a block, or a block row if blocks of a row go together).
        dims: Output channels, input channels of one group and the kernel's sides, for ERK.
    """

    scores: Float64Array
    dims: tuple[int, ...]

    @property
    def alive(self) -> int:
        """Units that may be kept."""
        return int(np.count_nonzero(self.scores > -np.inf))


Scope = Callable[[Sequence[LayerScores], float], list[int]]


def _total(layers: Sequence[LayerScores], sparsity: float) -> int:
    kept = kept_count(sum(layer.scores.size for layer in layers), sparsity)
    return min(kept, sum(layer.alive for layer in layers))


def _layer(layers: Sequence[LayerScores], sparsity: float) -> list[int]:
    """The same sparsity in every layer; one that already has fewer keeps what it has."""
    return [min(kept_count(layer.scores.size, sparsity), layer.alive) for layer in layers]


def _global(layers: Sequence[LayerScores], sparsity: float) -> list[int]:
    """One threshold on the raw scores of all layers: a layer of small weights may fall empty."""
    return _best_of_all([layer.scores.ravel() for layer in layers], _total(layers, sparsity))


def _global_norm(layers: Sequence[LayerScores], sparsity: float) -> list[int]:
    """One threshold after each layer's scores are divided by their root mean square over living units."""
    scaled = []
    for layer in layers:
        scores = layer.scores.ravel()
        living = scores[scores > -np.inf]
        norm = float(np.sqrt(np.mean(np.square(living)))) if len(living) else 0.0
        scaled.append(scores / norm if norm > 0 else scores)
    return _best_of_all(scaled, _total(layers, sparsity))


def _best_of_all(scores: Sequence[Float64Array], count: int) -> list[int]:
    order = np.argsort(-np.concatenate(scores), kind="stable")[:count]
    owners = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
    return [int(count) for count in np.bincount(owners[order], minlength=len(scores))]


def _erk(layers: Sequence[LayerScores], sparsity: float) -> list[int]:
    """Density in proportion to (sum of the dimensions) / (their product), full layers capped.

    Source: Evci et al., Rigging the lottery, ICML 2020, section 3 (Erdos-Renyi-Kernel).
    """
    caps = np.array([layer.alive for layer in layers], dtype=np.float64)
    shares = np.array([sum(x.dims) / np.prod([float(d) for d in x.dims]) * x.scores.size for x in layers])
    return apportion(shares, caps, _total(layers, sparsity))


def apportion(shares: Float64Array, caps: Float64Array, total: int) -> list[int]:
    """Whole numbers in proportion to ``shares``, none above its cap, that sum to ``total``.

    What a capped entry cannot take goes to the others in proportion; fractions go to the largest remainders,
    ties to the lowest index; while there is enough, an entry with room gets at least one.
    """
    full = np.zeros(len(shares), dtype=np.bool_)
    targets = np.zeros(len(shares))
    while not full.all():
        rest = max(total - float(caps[full].sum()), 0.0)
        targets = np.where(full, caps, shares * (rest / shares[~full].sum()))
        over = ~full & (targets > caps)
        if not over.any():
            break
        full |= over
    targets = np.minimum(targets, caps)
    floor = np.minimum(caps, 1.0) if total >= np.count_nonzero(caps) else np.zeros(len(shares))
    counts = np.clip(np.floor(targets), floor, caps)
    while counts.sum() != total:
        missing = counts.sum() < total
        room = counts < caps if missing else counts > floor
        need = np.where(room, targets - counts, -np.inf if missing else np.inf)
        index = int(np.argmax(need)) if missing else int(np.argmin(need))
        counts[index] += 1 if missing else -1
    return [int(count) for count in counts]


SCOPES: dict[str, Scope] = {
    "layer": _layer,
    "global": _global,
    "global-norm": _global_norm,
    "erk": _erk,
}
