"""What is simulated and timed: matrix products with a block structure. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pysim.errors import ConfigError, ShapeError

Order = Literal["kh,kw,cin", "oihw"]
ORDERS: tuple[Order, ...] = ("kh,kw,cin", "oihw")
BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """How W (m, k) is cut into blocks of ``bh`` output features by ``bw`` input channels.

    The reduction k is ordered (kernel position, channel), channels fastest. A block never straddles two
    kernel positions: the last block of each position may be narrower than ``bw``, the last block row
    shorter than ``bh``. csrc/base/block_grid.h states the same in C++.

    With order ``oihw`` k is ordered (channel, kernel position), as PyTorch stores a weight, and cut every
    ``bw`` elements wherever that falls. Such masks can be trained under, but neither simulated nor
    multiplied: see ``check_order``.

    Args:
        m: Output features, at least 1.
        k: Reduction length, a multiple of ``positions``.
        positions: Kernel positions kh * kw; 1 for a linear layer.
        bh: Block height, at least 1.
        bw: Block width, at least 1.
        order: Of the reduction.

    Raises:
        ConfigError: A field is out of range.
    """

    m: int
    k: int
    positions: int = 1
    bh: int
    bw: int
    order: Order = "kh,kw,cin"

    def __post_init__(self) -> None:
        for field in ("m", "k", "positions", "bh", "bw"):
            if getattr(self, field) < 1:
                raise ConfigError(f"block grid: expected {field} of at least 1, got {getattr(self, field)}")
        if self.k % self.positions:
            raise ConfigError(
                f"block grid: expected k to be a multiple of {self.positions} kernel positions, got {self.k}"
            )
        if self.order not in ORDERS:
            raise ConfigError(f"block grid: expected order {' or '.join(ORDERS)}, got {self.order!r}")

    def check_order(self, where: str) -> None:
        """Raises ConfigError unless every block lies at one kernel position, as arrays and kernels need."""
        if self.order != "kh,kw,cin":
            raise ConfigError(
                f"{where}: expected blocks at one kernel position, got layout {self.order}, whose blocks "
                "straddle several",
                hint="Prune with layout kh,kw,cin or kernel what is to be simulated, timed or exported.",
            )

    @property
    def channels(self) -> int:
        return self.k // self.positions

    @property
    def shape(self) -> tuple[int, int]:
        """Block rows and block columns."""
        if self.order == "oihw":
            return -(-self.m // self.bh), -(-self.k // self.bw)
        return -(-self.m // self.bh), self.positions * -(-self.channels // self.bw)

    @property
    def row_edges(self) -> Int64Array:
        """(block rows + 1,): block row i covers features row_edges[i] to row_edges[i + 1] - 1."""
        return np.minimum(np.arange(self.shape[0] + 1, dtype=np.int64) * self.bh, self.m)

    @property
    def col_edges(self) -> Int64Array:
        """(block columns + 1,): block column j covers elements col_edges[j] to col_edges[j + 1] - 1 of k."""
        if self.order == "oihw":
            return np.append(np.arange(0, self.k, self.bw, dtype=np.int64), self.k)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMask:
    """Which blocks of a layer's weight are kept.

    Args:
        grid: How each group's weight is cut.
        keep: bool (groups, block rows, block columns); True is kept.

    Raises:
        ShapeError: ``keep`` is not bool or not of the grid's shape.
    """

    grid: BlockGrid
    keep: BoolArray

    def __post_init__(self) -> None:
        if self.keep.ndim != 3:
            raise ShapeError(
                f"block mask: expected (groups, block rows, columns), got shape {self.keep.shape}"
            )
        for group in self.keep:
            self.grid.check_mask(group)
        self.keep.flags.writeable = False

    @classmethod
    def all_kept(cls, grid: BlockGrid, groups: int = 1) -> BlockMask:
        return cls(grid=grid, keep=np.ones((groups, *grid.shape), dtype=np.bool_))

    @property
    def blocks_total(self) -> int:
        return int(self.keep.size)

    @property
    def blocks_kept(self) -> int:
        return int(np.count_nonzero(self.keep))

    @property
    def weights_total(self) -> int:
        return len(self.keep) * self.grid.m * self.grid.k

    @property
    def weights_kept(self) -> int:
        """Weights in kept blocks; ragged blocks count with their real size."""
        return int((self.keep * self.grid.sizes()).sum())

    def expand(self) -> BoolArray:
        """Element mask, bool (groups, m, k)."""
        return np.stack([self.grid.expand(group) for group in self.keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvGeometry:
    """The convolution behind a matrix product, in elements (pixels, channels, images)."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """``groups`` matrix products Y (m, n) = W (m, k) X (k, n), found in a network.

    Args:
        name: Path of the module that ran it; a second run of the same module gets ``#2`` and so on.
        weight: Name of the weight parameter; None for a product of two activations.
        m: Output features of one group.
        k: Reduction length of one group; for a convolution ordered (kernel position, channel).
        n: Output positions: batch x out_height x out_width, or tokens.
        groups: How many such products.
        positions: Kernel positions; k is a multiple of it.
        conv: The convolution's geometry; None for a plain product.
    """

    name: str
    weight: str | None
    m: int
    k: int
    n: int
    groups: int = 1
    positions: int = 1
    conv: ConvGeometry | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all groups, nothing skipped."""
        return self.groups * self.m * self.k * self.n

    def grid(self, bh: int, bw: int) -> BlockGrid:
        """How one group's weight is cut into blocks of bh x bw."""
        return BlockGrid(m=self.m, k=self.k, positions=self.positions, bh=bh, bw=bw)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmappedOp:
    """Work in the network that is not a matrix product and so is not done by the array.

    Args:
        module: Path of the module that ran it.
        op: The operator's name, as in ``relu``.
        operations: Elements read or written, whichever is more: one operation each, by definition.
        calls: How often it ran.
        foldable: A batch norm that directly follows a layer with weights: an accelerator runs those weights
            scaled, and its bias, at no cost.
    """

    module: str
    op: str
    operations: int
    calls: int = 1
    foldable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A network as an accelerator sees it."""

    layers: tuple[Layer, ...]
    unmapped: tuple[UnmappedOp, ...]

    @property
    def unmapped_share(self) -> float:
        """Unmapped operations over all operations, with two operations to a MAC; 0 to 1."""
        unmapped = sum(op.operations for op in self.unmapped)
        total = unmapped + 2 * sum(layer.macs for layer in self.layers)
        return unmapped / total if total else 0.0
