"""Orders of block rows that put rows with alike patterns side by side, so that a strip skips more.

Renaming output features is free: results are written where they belong. Whether an order helps is for the
simulator to say; here are only candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pysim.workload import BlockGrid, BoolArray, Int64Array

# Greedy grouping compares every row with every other; beyond this many block rows only sorting is tried.
MAX_GREEDY_ROWS = 2048


def candidate_orders(grid: BlockGrid, mask: BoolArray, feeder_cols: int) -> Iterator[Int64Array]:
    """Permutations of the block rows (block rows,): position -> block row that moves there.

    1. Sorted by pattern, the first block column the most significant, kept before pruned.
    2. Greedy: groups of as many block rows as fit into ``feeder_cols`` array columns, at least one. A group
       starts with the row left that keeps most blocks; then, until it is full, comes the row that adds the
       fewest block columns to the group's, of those the one that keeps most; ties by lower index.

    A last block row that is shorter than the others stays last: block rows in front of it must be whole.

    Args:
        grid: The shape of W and its blocks.
        mask: (block rows, block columns), True where a block is kept.
        feeder_cols: Array columns that share a list of operands, at least 1.
    """
    whole = grid.m // grid.bh
    rest = np.arange(whole, len(mask))
    if whole < 2:
        return
    yield np.append(np.lexsort(tuple(~mask[:whole, ::-1].T)), rest)
    if whole <= MAX_GREEDY_ROWS:
        yield np.append(_greedy_order(mask[:whole], max(1, feeder_cols // grid.bh)), rest)


def feature_order(grid: BlockGrid, order: Int64Array) -> Int64Array:
    """(m,): position -> output feature that moves there, for an order of the block rows."""
    edges = grid.row_edges
    return np.concatenate([np.arange(edges[row], edges[row + 1]) for row in order])


def _greedy_order(mask: BoolArray, group_rows: int) -> Int64Array:
    kept = mask.sum(axis=1)
    left = np.ones(len(mask), dtype=bool)
    order: list[int] = []
    union = np.zeros(mask.shape[1], dtype=bool)
    added = kept.copy()  # Block columns that each row would add to the group's.
    for position in range(len(mask)):
        if position % group_rows == 0:
            union = np.zeros_like(union)
            added = kept.copy()
            key = -kept
        else:
            key = added * (mask.shape[1] + 1) - kept
        row = int(np.flatnonzero(left)[np.argmin(key[left])])
        order.append(row)
        left[row] = False
        fresh = mask[row] & ~union
        union |= fresh
        added = added - mask[:, fresh].sum(axis=1)
    return np.array(order, dtype=np.int64)
