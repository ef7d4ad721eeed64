"""The machine of docs/machine.md in plain Python: one object per register, every rule as the page states it.

All registers of a cycle are computed from those of the cycle before, so no order of steps can hide a mistake.
For tiny arrays only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Token:
    """An operand on its way: fold, running number in it, and what each multiplexer line carries."""

    fold: int
    t: int
    lines: tuple = ()

    @property
    def real(self):
        return any(value is not None for value in self.lines)


@dataclass(frozen=True)
class Held:
    """A value that a PE keeps for a fold, with the line it listens to; None for padding."""

    fold: int
    t: int
    value: object
    line: int | None


@dataclass
class Fold:
    """One load of the array, as functions of where and when."""

    depth: int
    lines: object  # (row, col, t) -> what the feeder of that column carries, one per line
    top: object  # (t or row, col) -> (value, line): what enters the column from above
    place: object  # (t or row, col) -> index in Y, None for padding
    stored_lines: object  # (row, col, t) -> how many of the lines' values a buffer holds
    stored_top: object  # (t or row, col) -> whether a buffer holds what enters from above


@dataclass
class Outcome:
    cycles: int = 0
    folds: int = 0
    macs: int = 0
    padded_macs: int = 0
    streamed_reads: int = 0  # Words taken from buffers and put there.
    pushed_reads: int = 0
    output_reads: int = 0
    output_writes: int = 0
    outputs: int = 0  # Those that any fold computed.
    output: np.ndarray = field(default_factory=lambda: np.zeros(0))


def chunks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def slots_of(grid, mask, features, mux):
    """Lanes of greedy column combining: each a tuple of reduction elements, None where a member has none."""
    rows = sorted({m // grid.bh for m in features})
    slots = []
    for j in sorted(range(grid.shape[1]), key=lambda j: -mask[rows, j].sum()):
        if not mask[rows, j].any():
            continue
        for slot in slots:
            if len(slot) < mux and not any((mask[rows, j] & mask[rows, o]).any() for o in slot):
                slot.append(j)
                break
        else:
            slots.append([j])
    spans = [range(a, b) for a, b in itertools.pairwise(grid.col_edges)]
    return [lane for slot in slots for lane in itertools.zip_longest(*(spans[j] for j in slot))]


def lanes_of(grid, mask, features, hw):
    kept = grid.expand(mask)[features]
    elements = list(range(grid.k))
    if hw.skip == "mux":
        return slots_of(grid, mask, features, hw.mux)
    if hw.skip == "tile":
        size = grid.k if hw.dataflow == "os" else hw.rows
        elements = [k for chunk in chunks(elements, size) if kept[:, chunk].any() for k in chunk]
    elif hw.skip in ("gather", "group"):
        elements = [k for k in elements if kept[:, k].any()]
    return [(k,) for k in elements]


def strip_folds(grid, mask, w, x, hw):
    """`ws` and `os`."""
    n, rows = x.shape[1], hw.rows
    width = min(hw.cols, hw.group_cols_for(grid.bh)) if hw.skip == "group" else hw.cols
    keeps = grid.expand(mask)
    folds = []
    for strip in chunks(list(range(grid.m)), hw.cols):
        feeds = [lanes_of(grid, mask, features, hw) for features in chunks(strip, width)]

        def lane_of(col, lane, feeds=feeds):
            group = col // width
            return feeds[group][lane] if group < len(feeds) and lane < len(feeds[group]) else ()

        def weight(col, lane, strip=strip, lane_of=lane_of):
            members = lane_of(col, lane)
            if not members or col >= len(strip):
                return 0, None
            present = [i for i, k in enumerate(members) if k is not None]
            line = next((i for i in present if keeps[strip[col], members[i]]), present[0])
            k = members[line]
            return (w[strip[col], k] if keeps[strip[col], k] else 0), line

        def stored(col, lane, strip=strip, lane_of=lane_of):
            elements = [k for k in lane_of(col, lane) if k is not None]
            return col < len(strip) and any(keeps[strip[col], k] for k in elements)

        def count(col, lane, position, lane_of=lane_of):
            return sum(k is not None for k in lane_of(col, lane)) if position < n else 0

        def carried(col, lane, position, lane_of=lane_of):
            if position >= n:
                return ()
            return tuple(None if k is None else x[k, position] for k in lane_of(col, lane))

        def index(col, position, strip=strip):
            return (strip[col], position) if col < len(strip) and position < n else None

        longest = max(len(feed) for feed in feeds)
        if hw.dataflow == "ws":
            folds += [
                Fold(
                    depth=n,
                    lines=lambda r, c, t, b=b, carried=carried: carried(c, b + r, t),
                    top=lambda r, c, b=b, weight=weight: weight(c, b + r),
                    place=lambda t, c, index=index: index(c, t),
                    stored_lines=lambda r, c, t, b=b, count=count: count(c, b + r, t),
                    stored_top=lambda r, c, b=b, stored=stored: stored(c, b + r),
                )
                for b in range(0, longest, rows)
            ]
        elif longest:
            folds += [
                Fold(
                    depth=longest,
                    lines=lambda r, c, t, b=b, carried=carried: carried(c, t, b + r),
                    top=lambda t, c, weight=weight: weight(c, t),
                    place=lambda r, c, b=b, index=index: index(c, b + r),
                    stored_lines=lambda r, c, t, b=b, count=count: count(c, t, b + r),
                    stored_top=lambda t, c, stored=stored: stored(c, t),
                )
                for b in range(0, n, rows)
            ]
    return folds


def input_folds(grid, mask, w, x, hw):
    """`is`."""
    n = x.shape[1]
    keeps = grid.expand(mask)
    folds = []
    for positions, tile in itertools.product(
        chunks(list(range(n)), hw.cols), chunks(list(range(grid.k)), hw.rows)
    ):
        features = list(range(grid.m))
        if hw.skip == "gather":
            features = [m for m in features if keeps[m, tile].any()]
        elif hw.skip == "tile" and not keeps[:, tile].any():
            features = []
        if not features:
            continue

        def lines(r, c, t, features=features, tile=tile):
            if r >= len(tile):
                return ()
            m, k = features[t], tile[r]
            return (w[m, k] if keeps[m, k] else w.dtype.type(0),)

        def top(r, c, tile=tile, positions=positions):
            inside = r < len(tile) and c < len(positions)
            return (x[tile[r], positions[c]], 0) if inside else (0, None)

        def place(t, c, features=features, positions=positions):
            return (features[t], positions[c]) if c < len(positions) else None

        def stored_lines(r, c, t, features=features, tile=tile):
            return int(r < len(tile) and keeps[features[t], tile[r]])

        def stored_top(r, c, tile=tile, positions=positions):
            return r < len(tile) and c < len(positions)

        folds.append(Fold(len(features), lines, top, place, stored_lines, stored_top))
    return folds


def starts_of(depths, hw):
    """(preload, stream) of each fold, from "When folds start"."""
    starts = []
    for f, depth in enumerate(depths):
        if hw.pipelining == "serial":
            p = sum(2 * hw.rows + hw.cols + d - 2 for d in depths[:f])
            s = p if hw.dataflow == "os" else p + hw.rows
        elif hw.dataflow == "os":
            s = 0 if f == 0 else starts[-1][1] + depths[f - 1] + max(0, hw.rows - depth)
            p = s
        else:
            s = hw.rows if f == 0 else starts[-1][1] + max(depths[f - 1], hw.rows)
            p = s - hw.rows
        starts.append((p, s))
    return starts


class Machine:
    """What both kinds of array share: inputs that move right."""

    def __init__(self, folds, hw, shape, wide):
        self.folds, self.hw, self.wide = folds, hw, wide
        self.starts = starts_of([fold.depth for fold in folds], hw)
        self.rows, self.cols = hw.rows, hw.cols
        self.width = self.cols
        self.x = self.blank()
        self.found = Outcome(output=np.zeros(shape, wide))
        self.summed = set()
        self.left_to_leave = sum(self.results_per_column(fold) for fold in folds) * self.cols

    def blank(self):
        return [[None] * self.cols for _ in range(self.rows)]

    def entering(self, now, starts, depth_of):
        """(fold, t) that enters a port in this cycle; an assertion fails if there are two."""
        found = [(f, now - s) for f, s in enumerate(starts) if 0 <= now - s < depth_of(self.folds[f])]
        assert len(found) <= 1
        return found[0] if found else None

    def move_right(self, cycle, streams):
        old, self.x = self.x, self.blank()
        for r, c in itertools.product(range(self.rows), range(self.cols)):
            token = old[r][c - 1] if c > 0 else None
            if c == 0:
                entering = self.entering(cycle - r, streams, lambda fold: fold.depth)
                token = Token(*entering) if entering else None
            if token is not None and c % self.width == 0:
                fold = self.folds[token.fold]
                self.found.streamed_reads += fold.stored_lines(r, c, token.t)
                token = Token(token.fold, token.t, fold.lines(r, c, token.t))
            self.x[r][c] = token

    def push(self, fold, t, which, c):
        """What enters column c from above."""
        self.found.pushed_reads += self.folds[fold].stored_top(which, c)
        return Held(fold, t, *self.folds[fold].top(which, c))

    def product(self, token, held):
        """What the PE multiplies, counted."""
        mac = token.real and held.line is not None
        self.found.macs += mac
        self.found.padded_macs += not mac
        if not mac:
            return self.wide(0)
        value = token.lines[held.line]
        return self.wide(held.value) * self.wide(0 if value is None else value)

    def leave(self, cycle, fold, which, c, value, add):
        place = self.folds[fold].place(which, c)
        if place is not None:
            self.found.output_reads += add and place in self.summed
            self.found.output_writes += 1
            self.summed.add(place)
            self.found.output[place] = self.found.output[place] + value if add else value
        self.found.cycles = cycle + 1
        self.left_to_leave -= 1

    def run(self):
        cycle = 0
        while self.left_to_leave > 0:
            self.step(cycle)
            cycle += 1
        self.found.folds = len(self.folds)
        self.found.outputs = len(self.summed)
        return self.found


class StationaryMachine(Machine):
    """`ws` and `is`."""

    def __init__(self, *args):
        super().__init__(*args)
        self.transit, self.shadow, self.active, self.psum = (self.blank() for _ in range(4))

    def results_per_column(self, fold):
        return fold.depth

    def step(self, cycle):
        rows, cols = self.rows, self.cols
        self.move_right(cycle, [s for _, s in self.starts])
        above, self.psum = self.psum, self.blank()
        for r, c in itertools.product(range(rows), range(cols)):
            token = self.x[r][c]
            if token is None:
                continue
            if token.t == 0:
                assert self.shadow[r][c] is not None
                self.active[r][c], self.shadow[r][c] = self.shadow[r][c], None
            assert self.active[r][c].fold == token.fold
            fold, t, total = (token.fold, token.t, self.wide(0)) if r == 0 else above[r - 1][c]
            assert (fold, t) == (token.fold, token.t)
            total = total + self.product(token, self.active[r][c])
            self.psum[r][c] = (fold, t, total)
            if r == rows - 1:
                self.leave(cycle, fold, t, c, total, add=True)
        old, self.transit = self.transit, self.blank()
        for c in range(cols):
            for r in range(1, rows):
                self.transit[r][c] = old[r - 1][c]
            pushed = self.entering(cycle - c, [p for p, _ in self.starts], lambda _: rows)
            if pushed is None:
                continue
            fold, j = pushed
            self.transit[0][c] = self.push(fold, j, rows - 1 - j, c)
            if j < rows - 1:
                continue
            for r in range(rows):
                assert self.shadow[r][c] is None
                assert (self.transit[r][c].fold, self.transit[r][c].t) == (fold, rows - 1 - r)
                self.shadow[r][c] = self.transit[r][c]


class OutputMachine(Machine):
    """`os`."""

    def __init__(self, *args):
        super().__init__(*args)
        self.w, self.acc, self.hold, self.chain = (self.blank() for _ in range(4))

    def results_per_column(self, fold):
        return self.rows

    def step(self, cycle):
        rows, cols = self.rows, self.cols
        streams = [s for _, s in self.starts]
        old, self.chain = self.chain, self.blank()
        for c in range(cols):
            for r in range(1, rows):
                self.chain[r][c] = old[r - 1][c]
            for f, s in enumerate(streams):
                if cycle == s + self.folds[f].depth + rows - 1 + c:
                    for r in range(rows):
                        assert self.chain[r][c] is None
                        assert self.hold[r][c][:2] == (f, r)
                        self.chain[r][c], self.hold[r][c] = self.hold[r][c], None
            if self.chain[rows - 1][c] is not None:
                f, r, value = self.chain[rows - 1][c]
                self.leave(cycle, f, r, c, value, add=False)
        self.move_right(cycle, streams)
        old, self.w = self.w, self.blank()
        for r, c in itertools.product(range(rows), range(cols)):
            if r > 0:
                self.w[r][c] = old[r - 1][c]
            elif entering := self.entering(cycle - c, streams, lambda fold: fold.depth):
                fold, t = entering
                self.w[r][c] = self.push(fold, t, t, c)
            token, weight = self.x[r][c], self.w[r][c]
            assert (token is None) == (weight is None)
            if token is None:
                continue
            assert (token.fold, token.t) == (weight.fold, weight.t)
            before = self.wide(0) if token.t == 0 else self.acc[r][c]
            self.acc[r][c] = before + self.product(token, weight)
            if token.t == self.folds[token.fold].depth - 1:
                assert self.hold[r][c] is None
                self.hold[r][c] = (token.fold, r, self.acc[r][c])


def plain_run(grid, mask, w, x, hw):
    """Steps the layer; w and x are float32 or int8, Y then float32 or int32 that does not wrap."""
    find = input_folds if hw.dataflow == "is" else strip_folds
    kind = OutputMachine if hw.dataflow == "os" else StationaryMachine
    wide = np.float32 if w.dtype == np.float32 else np.int32
    machine = kind(find(grid, mask, w, x, hw), hw, (grid.m, x.shape[1]), wide)
    if hw.skip == "group":
        machine.width = min(hw.cols, hw.group_cols_for(grid.bh))
    return machine.run()
