"""What a block is worth, and which blocks stay. Pure numpy; exact counts, ties by lowest index."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError
from pysim.workload import BlockGrid, BoolArray

Float64Array = npt.NDArray[np.float64]


def mean_magnitude(weights: npt.NDArray[np.float32], grid: BlockGrid) -> Float64Array:
    """Mean of abs(w) over each block's real elements.

    Args:
        weights: (groups, m, k).
        grid: How each group is cut.

    Returns:
        float64 (groups, block rows, block columns).
    """
    magnitude = np.abs(weights.astype(np.float64))
    rows = np.add.reduceat(magnitude, grid.row_edges[:-1], axis=1)
    sums: Float64Array = np.add.reduceat(rows, grid.col_edges[:-1], axis=2)
    return sums / grid.sizes()


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
