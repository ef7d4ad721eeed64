"""What the hardware is given for a layer, from docs/machine.md alone: folds, index lists, memory contents.

Nothing here uses the engines or their folding, so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pysim.config import Pipelining, Skip
from tests.rtl.model import Model

IntArray = npt.NDArray[np.int64]
Lane = tuple[int | None, ...]  # reduction element of each member; None where a member is absent
Output = tuple[int, int] | None  # (feature, position); None for padding

FOLDS, LISTS, HELD, SELECTS, STREAM = range(5)  # memories of hdl/bench.sv
INDEX_BITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One layer on one machine.

    Args:
        model: The hardware.
        skip: What it leaves out.
        pipelining: When it starts folds.
        mux: Members that may share a lane, at most ``model.members``.
        positions: Kernel positions of the reduction.
        block: Block height and width.
        mask: (block rows, block columns), True where a block is kept.
        w: (M, K) weights; those of pruned blocks must not count.
        x: (K, N) inputs.
        eager: Whether the hardware starts folds even earlier than the contract where that changes no result.
    """

    model: Model
    skip: Skip
    pipelining: Pipelining
    mux: int = 1
    positions: int = 1
    block: tuple[int, int]
    mask: npt.NDArray[np.bool_]
    w: IntArray
    x: IntArray
    eager: bool = False

    def block_col(self, k: int) -> int:
        """Block column of a reduction element: no block straddles two kernel positions."""
        channels = self.w.shape[1] // self.positions
        per_position = -(-channels // self.block[1])
        return k // channels * per_position + k % channels // self.block[1]

    def keeps(self, feature: int, k: int) -> bool:
        return bool(self.mask[feature // self.block[0], self.block_col(k)])

    def masked(self) -> IntArray:
        """(M, K) weights with those of pruned blocks zero."""
        rows, cols = self.w.shape
        kept = self.mask[np.arange(rows) // self.block[0]][:, [self.block_col(k) for k in range(cols)]]
        return self.w * kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One load of the array.

    Args:
        depth: Operands streamed.
        outputs: What leaves each column, result after result.
    """

    depth: int
    outputs: list[list[Output]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The folds of a layer, and the writes (memory, address, lane, data) that load them: (writes, 4)."""

    folds: list[Fold]
    writes: npt.NDArray[np.int32]


def plan(case: Case) -> Work:
    """Cuts the layer into folds and lays them out in the memories of hdl/bench.sv."""
    planner = _Planner(case)
    match case.model.dataflow:
        case "ws":
            folds = list(planner.weight_stationary())
        case "os":
            folds = list(planner.output_stationary())
        case "is":
            folds = list(planner.input_stationary())
    return Work(folds=folds, writes=np.array(planner.writes, np.int32).reshape(-1, 4))


def _chunks(count: int, size: int) -> list[range]:
    return [range(begin, min(count, begin + size)) for begin in range(0, count, size)]


class _Planner:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = case.model
        self.weights = case.masked()
        self.m, self.k = case.w.shape
        self.n = case.x.shape[1]
        self.kept = np.array([[case.keeps(m, k) for k in range(self.k)] for m in range(self.m)])
        self.writes: list[tuple[int, int, int, int]] = []
        # Where nothing is to be done the hardware may read anything: it is given noise.
        self.noise = np.random.default_rng(self.k)

    # --- what is left out

    def lanes(self, features: Sequence[int]) -> list[Lane]:
        """The lanes of the features that share a feeder."""
        everything = range(self.k)
        kept = self.kept[list(features)].any(axis=0)
        match self.case.skip:
            case "none":
                return [(k,) for k in everything]
            case "tile":
                size = self.k if self.model.dataflow == "os" else self.model.rows
                return [(k,) for chunk in _chunks(self.k, size) if kept[list(chunk)].any() for k in chunk]
            case "gather" | "group":
                return [(k,) for k in everything if kept[k]]
            case "mux":
                return self.combined(features)

    def combined(self, features: Sequence[int]) -> list[Lane]:
        """Greedy column combining, slot after slot."""
        rows = sorted({m // self.case.block[0] for m in features})
        keeps = {j: {row for row in rows if self.case.mask[row, j]} for j in range(self.case.mask.shape[1])}
        slots: list[list[int]] = []
        for j in sorted(keeps, key=lambda j: (-len(keeps[j]), j)):
            if not keeps[j]:
                continue
            for slot in slots:
                if len(slot) < self.case.mux and not any(keeps[j] & keeps[other] for other in slot):
                    slot.append(j)
                    break
            else:
                slots.append([j])
        elements: dict[int, list[int]] = {}
        for k in range(self.k):
            elements.setdefault(self.case.block_col(k), []).append(k)
        return [
            tuple(elements[j][lane] if lane < len(elements[j]) else None for j in slot)
            for slot in slots
            for lane in range(max(len(elements[j]) for j in slot))
        ]

    def feeders(self, strip: range) -> list[list[Lane]]:
        """The lanes of every feeder of the hardware."""
        if self.case.skip != "group":
            return [self.lanes(strip)] * self.model.feeders
        size = self.model.feeder_cols
        groups = [strip[begin : begin + size] for begin in range(0, self.model.cols, size)]
        return [self.lanes(group) if group else [] for group in groups]

    def held(self, feature: int, lane: Lane) -> tuple[int, int]:
        """Weight and select of a feature on a lane."""
        present = [(i, k) for i, k in enumerate(lane) if k is not None]
        for i, k in present:
            if self.kept[feature, k]:
                return int(self.weights[feature, k]), i
        return 0, present[0][0]

    # --- the three dataflows

    def weight_stationary(self) -> Iterator[Fold]:
        rows, cols = self.model.rows, self.model.cols
        for k in range(self.k):
            for t in range(self.n):
                self.write(STREAM, k << INDEX_BITS | t, 0, self.case.x[k, t])
        fold = 0
        for strip in _chunks(self.m, cols):
            feeds = self.feeders(strip)
            for chunk in _chunks(max(map(len, feeds)), rows):
                rows_of = [feed[chunk.start : chunk.stop] for feed in feeds]
                base = rows_of[0][0][0] if rows_of[0] else 0
                self.descriptor(fold, self.n, fold, base or 0, fold * rows)
                for g, lanes in enumerate(rows_of):
                    for r in range(rows):
                        self.entries(fold, g * rows + r, lanes[r] if r < len(lanes) else ())
                for r in range(rows):
                    self.weight_word(fold * rows + rows - 1 - r, strip, rows_of, r)
                yield Fold(
                    depth=self.n,
                    outputs=[
                        [(strip[c], t) if c < len(strip) else None for t in range(self.n)]
                        for c in range(cols)
                    ],
                )
                fold += 1

    def output_stationary(self) -> Iterator[Fold]:
        rows, cols = self.model.rows, self.model.cols
        tiles = _chunks(self.n, rows)
        self.stream_words(tiles, self.case.x)
        fold = address = 0
        for strip in _chunks(self.m, cols):
            feeds = self.feeders(strip)
            depth = max(map(len, feeds))
            for lane in range(depth):
                for g, lanes in enumerate(feeds):
                    self.entries(address + lane, g, lanes[lane] if lane < len(lanes) else ())
                self.weight_word(address + lane, strip, feeds, lane)
            for tile, positions in enumerate(tiles if depth else []):
                self.descriptor(fold, depth, address, tile, address)
                leaving = [positions[r] if r < len(positions) else None for r in reversed(range(rows))]
                yield Fold(
                    depth=depth,
                    outputs=[
                        [(strip[c], n) if c < len(strip) and n is not None else None for n in leaving]
                        for c in range(cols)
                    ],
                )
                fold += 1
            address += depth

    def input_stationary(self) -> Iterator[Fold]:
        rows, cols = self.model.rows, self.model.cols
        tiles = _chunks(self.k, rows)
        self.stream_words(tiles, self.weights)
        features, addresses = [], [0]
        for tile in tiles:
            kept = self.kept[:, list(tile)].any(axis=1)
            whole = self.case.skip == "none" or (self.case.skip == "tile" and kept.any())
            features.append([m for m in range(self.m) if whole or (self.case.skip == "gather" and kept[m])])
            for step, m in enumerate(features[-1]):
                self.entries(addresses[-1] + step, 0, (m,))
            addresses.append(addresses[-1] + len(features[-1]))
        fold = 0
        for positions in _chunks(self.n, cols):
            for at, tile in enumerate(tiles):
                if not features[at]:
                    continue
                self.descriptor(fold, len(features[at]), addresses[at], at, fold * rows)
                for r in range(rows):
                    for c in range(cols):
                        real = r < len(tile) and c < len(positions)
                        value = self.case.x[tile[r], positions[c]] if real else 0
                        self.write(HELD, fold * rows + rows - 1 - r, c, value)
                        self.write(SELECTS, fold * rows + rows - 1 - r, c, 0)
                yield Fold(
                    depth=len(features[at]),
                    outputs=[
                        [(m, positions[c]) if c < len(positions) else None for m in features[at]]
                        for c in range(cols)
                    ],
                )
                fold += 1

    # --- memory contents

    def write(self, memory: int, address: int, lane: int, value: int | np.integer) -> None:
        self.writes.append((memory, address, lane, int(value)))

    def descriptor(self, fold: int, *fields: int) -> None:
        for lane, field in enumerate(fields):
            self.write(FOLDS, fold, lane, field)

    def entries(self, address: int, place: int, lane: Lane) -> None:
        """A lane's elements in the index list; noise where there is none."""
        if not self.model.listed:
            return
        for i in range(self.model.members):
            element = lane[i] if i < len(lane) else None
            value = self.noise.integers(1 << INDEX_BITS) if element is None else element
            self.write(LISTS, address, place * self.model.members + i, value)

    def weight_word(self, address: int, strip: range, feeds: list[list[Lane]], lane: int) -> None:
        """The weights that all columns meet on a lane; zero for a column without work."""
        for c in range(self.model.cols):
            lanes = feeds[c // self.model.feeder_cols]
            real = c < len(strip) and lane < len(lanes)
            value, select = self.held(strip[c], lanes[lane]) if real else (0, 0)
            self.write(HELD, address, c, value)
            self.write(SELECTS, address, c, select)

    def stream_words(self, tiles: list[range], matrix: IntArray) -> None:
        """Words addressed {tile, index}: row index of ``matrix``, its columns of the tile one to a lane."""
        for at, tile in enumerate(tiles):
            for index in range(len(matrix)):
                for r in range(self.model.rows):
                    value = matrix[index, tile[r]] if r < len(tile) else self.noise.integers(-8, 8)
                    self.write(STREAM, at << INDEX_BITS | index, r, value)
