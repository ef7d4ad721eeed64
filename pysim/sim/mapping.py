"""How a layer may be laid over an array and its memory: candidates, and which the simulator finds best.

There is no cost model here: each candidate is simulated, and what the simulator reports decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pysim.config import Accelerator
from pysim.errors import ConfigError
from pysim.result import GemmResult
from pysim.sim.reorder import candidate_orders
from pysim.workload import BlockGrid, BoolArray, Int64Array

PIECES = (256, 1024, 64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mapping:
    """Order of block rows, order of folds and size of their pieces. docs/machine.md describes each.

    Args:
        order: (block rows,) position -> block row that moves there; None for their own order.
        swapped: Whether the two outer loops over folds change places.
        piece: Most consecutive operands of a fold's stream that come and go together.
    """

    order: Int64Array | None = None
    swapped: bool = False
    piece: int = PIECES[0]


def best_mapping(
    grid: BlockGrid, mask: BoolArray, accelerator: Accelerator, simulate: Callable[[Mapping], GemmResult]
) -> tuple[Mapping, GemmResult]:
    """Of the mappings that the accelerator may choose from the one with the fewest cycles, and its result.

    Of several the one with the fewest bytes off chip, then the first; the plain one is the first. With
    ``reorder`` alone bytes do not count.

    Raises:
        ConfigError: No candidate fits into the buffers; the message is that of the plain one with the
            smallest pieces.
    """
    best: tuple[Mapping, GemmResult] | None = None
    refusal: ConfigError | None = None
    for order in _orders(grid, mask, accelerator):
        for swapped, piece in _loops(accelerator):
            mapping = Mapping(order=order, swapped=swapped, piece=piece)
            try:
                found = simulate(mapping)
            except ConfigError as error:
                if not accelerator.reorder and not accelerator.mapper:
                    raise
                if order is None and not swapped:
                    refusal = error
                continue
            if best is None or _cost(found, accelerator) < _cost(best[1], accelerator):
                best = mapping, found
    if best is None:
        assert refusal is not None, "the plain mapping was tried"
        raise refusal
    return best


def _orders(grid: BlockGrid, mask: BoolArray, accelerator: Accelerator) -> Iterator[Int64Array | None]:
    yield None
    if accelerator.reorder:
        grouped = accelerator.skip == "group"
        feeder_cols = accelerator.group_cols_for(grid.bh) if grouped else accelerator.cols
        yield from candidate_orders(grid, mask, feeder_cols)


def _loops(accelerator: Accelerator) -> Iterable[tuple[bool, int]]:
    """Order of folds and size of pieces. Without memory neither changes anything."""
    if not accelerator.mapper or accelerator.memory is None:
        return [(False, PIECES[0])]
    return [(swapped, piece) for piece in PIECES for swapped in (False, True)]


def _cost(result: GemmResult, accelerator: Accelerator) -> tuple[int, int]:
    counts_bytes = accelerator.mapper and result.memory is not None
    return result.cycles, result.memory.total_bytes if counts_bytes and result.memory is not None else 0
