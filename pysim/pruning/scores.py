"""What a block is worth, and which blocks stay. Pure numpy; exact counts, ties by lowest index.

``SCORES`` is the one list of scores: a new one is a function and a line there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError
from pysim.workload import BlockGrid, BoolArray

Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating[Any]]
Gradients = Literal["none", "loss", "flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreInput:
    """What a score may look at, for one layer.

    Args:
        weights: (groups, m, k).
        gradients: The same shape; None where the score asks for none.
        grid: How each group is cut.
        rng: Seeded by the run and the layer's name.
    """

    weights: FloatArray
    gradients: FloatArray | None
    grid: BlockGrid
    rng: np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One way to rank blocks.

    Args:
        value: float64 (groups, block rows, block columns), higher is kept longer.
        summary: One line for lists.
        gradients: Which gradients it looks at: of the loss over a few batches, or of SynFlow's flow.
        rounds: Steps in which the sparsity is reached, scored anew before each.
    """

    value: Callable[[ScoreInput], Float64Array]
    summary: str
    gradients: Gradients = "none"
    rounds: int = 1


def block_sum(values: Float64Array, grid: BlockGrid) -> Float64Array:
    """Sums over blocks: (groups, m, k) to (groups, block rows, block columns)."""
    rows = np.add.reduceat(values, grid.row_edges[:-1], axis=1)
    sums: Float64Array = np.add.reduceat(rows, grid.col_edges[:-1], axis=2)
    return sums


def mean_magnitude(weights: FloatArray, grid: BlockGrid) -> Float64Array:
    """Mean of abs(w) over each block's real elements; (groups, m, k) to one float64 a block."""
    return block_sum(np.abs(weights.astype(np.float64)), grid) / grid.sizes()


def _l1(x: ScoreInput) -> Float64Array:
    return mean_magnitude(x.weights, x.grid)


def _l2(x: ScoreInput) -> Float64Array:
    """Root of the mean square, so that a ragged block is not worth less for being small."""
    return np.sqrt(block_sum(np.square(x.weights.astype(np.float64)), x.grid) / x.grid.sizes())


def _max(x: ScoreInput) -> Float64Array:
    """Source: Narang et al., Block-sparse recurrent neural networks, 2017."""
    magnitude = np.abs(x.weights.astype(np.float64))
    rows = np.maximum.reduceat(magnitude, x.grid.row_edges[:-1], axis=1)
    highest: Float64Array = np.maximum.reduceat(rows, x.grid.col_edges[:-1], axis=2)
    return highest


def _products(x: ScoreInput) -> Float64Array:
    if x.gradients is None:
        raise ConfigError("score: expected gradients, got none")
    return x.weights.astype(np.float64) * x.gradients.astype(np.float64)


def _saliency(x: ScoreInput) -> Float64Array:
    """Mean of abs(w g): what the loss changes, to first order, as each weight goes, signs ignored.

    Source: Molchanov et al., Pruning convolutional neural networks, ICLR 2017; with the gradient of the flow
    it is SynFlow (Tanaka et al., NeurIPS 2020).
    """
    return block_sum(np.abs(_products(x)), x.grid) / x.grid.sizes()


def _gate(x: ScoreInput) -> Float64Array:
    """abs(sum of w g) over the block's size: the loss's slope in one gate that multiplies the whole block.

    Source: Lee et al., SNIP, ICLR 2019, with a gate for each block in place of each weight.
    """
    return np.abs(block_sum(_products(x), x.grid)) / x.grid.sizes()


def _random(x: ScoreInput) -> Float64Array:
    return x.rng.random((len(x.weights), *x.grid.shape))


SCORES: dict[str, Score] = {
    "l1": Score(value=_l1, summary="mean |w|"),
    "l2": Score(value=_l2, summary="root of the mean w^2"),
    "max": Score(value=_max, summary="largest |w|"),
    "taylor": Score(value=_saliency, summary="mean |w g|, g of the loss", gradients="loss"),
    "snip": Score(value=_gate, summary="|sum of w g|, g of the loss; before training", gradients="loss"),
    "synflow": Score(
        value=_saliency, summary="mean |w g|, g of the flow; before training", gradients="flow", rounds=100
    ),
    "random": Score(value=_random, summary="a random number: the control"),
}


def kept_count(blocks: int, sparsity: float) -> int:
    """Blocks that stay: ``blocks`` less the rounded share to prune (half rounds up), but at least 1.

    The sparsity is taken as the decimal number that was typed, so that 0.7 of 10 blocks is 7 and not 6.9999.

    Raises:
        ConfigError: ``sparsity`` is not from 0 to below 1.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity: expected from 0 to below 1, got {sparsity}")
    pruned = int((Decimal(repr(float(sparsity))) * blocks).to_integral_value(ROUND_HALF_UP))
    return max(1, blocks - pruned)


def top_blocks(scores: Float64Array, count: int) -> BoolArray:
    """True at exactly ``count`` highest scores, ties to the lowest flat index; same shape as ``scores``."""
    order = np.argsort(-scores.ravel(), kind="stable")
    keep = np.zeros(scores.size, dtype=np.bool_)
    keep[order[:count]] = True
    return keep.reshape(scores.shape)
