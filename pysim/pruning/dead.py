"""What a mask leaves without a single weight: whole layers, output channels, input channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pysim.errors import PysimWarning
from pysim.workload import BlockMask


class EmptyLayerWarning(PysimWarning):
    """Pruning left a layer without a single block, so that nothing passes through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadParts:
    """The dead parts of one layer.

    Args:
        weight: Its name.
        empty: No block at all is kept.
        outputs: Output channels, over all groups, that no kept block reaches.
        inputs: Input channels, over all groups, that no kept block reads.
    """

    weight: str
    empty: bool
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]


def dead_parts(masks: Mapping[str, BlockMask]) -> list[DeadParts]:
    """The layers of which something is dead, in the order of ``masks``."""
    found = []
    for name, mask in masks.items():
        grid = mask.grid
        rows = np.repeat(mask.keep.any(axis=2), np.diff(grid.row_edges), axis=1)  # (groups, m)
        per_channel = np.repeat(mask.keep.any(axis=1), np.diff(grid.col_edges), axis=1)  # (groups, k)
        by_position = (grid.positions, grid.channels)
        if grid.order == "oihw":
            columns = per_channel.reshape(len(mask.keep), *by_position[::-1]).any(axis=2)
        else:
            columns = per_channel.reshape(len(mask.keep), *by_position).any(axis=1)
        part = DeadParts(
            weight=name,
            empty=mask.blocks_kept == 0,
            outputs=tuple(np.flatnonzero(~rows).tolist()),
            inputs=tuple(np.flatnonzero(~columns).tolist()),
        )
        if part.outputs or part.inputs:
            found.append(part)
    return found


def describe_dead(masks: Mapping[str, BlockMask]) -> list[str]:
    """A sentence for every layer that is not empty but has channels without a weight."""
    lines = []
    for part in dead_parts(masks):
        if not part.empty:
            counts = [
                f"{len(channels)} {side} channel(s) without a weight ({_short(channels)})"
                for side, channels in (("output", part.outputs), ("input", part.inputs))
                if channels
            ]
            lines.append(f"{part.weight}: {', '.join(counts)}")
    return lines


def _short(channels: tuple[int, ...]) -> str:
    return ", ".join(map(str, channels[:8])) + (", ..." if len(channels) > 8 else "")
