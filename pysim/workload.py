"""What is simulated and timed: matrix products with a block structure. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError, ShapeError

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """How W (m, k) is cut into blocks of ``bh`` output features by ``bw`` input channels.

    The reduction k is ordered (kernel position, channel), channels fastest. A block never straddles two kernel
    positions: the last block of each position may be narrower than ``bw``, the last block row shorter than
    ``bh``. csrc/base/block_grid.h states the same in C++.

    Args:
        m: Output features, at least 1.
        k: Reduction length, a multiple of ``positions``.
        positions: Kernel positions kh * kw; 1 for a linear layer.
        bh: Block height, at least 1.
        bw: Block width, at least 1.

    Raises:
        ConfigError: A field is out of range.
    """

    m: int
    k: int
    positions: int = 1
    bh: int
    bw: int

    def __post_init__(self) -> None:
        for field in ("m", "k", "positions", "bh", "bw"):
            if getattr(self, field) < 1:
                raise ConfigError(f"block grid: expected {field} of at least 1, got {getattr(self, field)}")
        if self.k % self.positions:
            raise ConfigError(
                f"block grid: expected k to be a multiple of {self.positions} kernel positions, got {self.k}"
            )

    @property
    def channels(self) -> int:
        return self.k // self.positions

    @property
    def shape(self) -> tuple[int, int]:
        """Block rows and block columns."""
        return -(-self.m // self.bh), self.positions * -(-self.channels // self.bw)

    @property
    def row_edges(self) -> Int64Array:
        """(block rows + 1,): block row i covers features row_edges[i] to row_edges[i + 1] - 1."""
        return np.minimum(np.arange(self.shape[0] + 1, dtype=np.int64) * self.bh, self.m)

    @property
    def col_edges(self) -> Int64Array:
        """(block columns + 1,): block column j covers reduction elements col_edges[j] to col_edges[j + 1] - 1."""
        within = np.arange(0, self.channels, self.bw, dtype=np.int64)
        starts = np.arange(self.positions, dtype=np.int64)[:, None] * self.channels + within
        return np.append(starts.ravel(), self.k)

    def sizes(self) -> Int64Array:
        """(block rows, block columns): number of weights in each block."""
        return np.outer(np.diff(self.row_edges), np.diff(self.col_edges))

    def expand(self, mask: BoolArray) -> BoolArray:
        """Block mask (block rows, block columns) to element mask (m, k)."""
        self.check_mask(mask)
        rows = np.repeat(mask, np.diff(self.row_edges), axis=0)
        return np.repeat(rows, np.diff(self.col_edges), axis=1)

    def nonzero_blocks(self, w: npt.ArrayLike) -> BoolArray:
        """(block rows, block columns): True where a block of ``w`` (m, k) holds a nonzero weight."""
        array = np.asarray(w)
        if array.shape != (self.m, self.k):
            raise ShapeError(f"block grid: expected weights of shape ({self.m}, {self.k}), got {array.shape}")
        rows = np.logical_or.reduceat(array != 0, self.row_edges[:-1], axis=0)
        return np.logical_or.reduceat(rows, self.col_edges[:-1], axis=1)

    def check_mask(self, mask: BoolArray) -> None:
        """Raises ShapeError unless ``mask`` is a bool array of the grid's shape."""
        if mask.dtype != np.bool_ or mask.shape != self.shape:
            raise ShapeError(
                f"block mask: expected bool {self.shape} for W ({self.m}, {self.k}) in blocks of "
                f"{self.bh} x {self.bw}, got {mask.dtype} {mask.shape}"
            )
