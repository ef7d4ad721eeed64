"""Break-even sparsities of a machine, as ``pysim tune`` measured them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass

TUNING_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Where sparse and dense products of one kind take equally long.

    Args:
        height: Rows of a block.
        n: Columns of X.
        sparsity: First quartile, median and third of the break-even sparsity over the rounds, 0 to 1; 0 if
            sparse was never slower, 1 if never faster.
    """

    height: int
    n: int
    sparsity: tuple[float, float, float]

    def __post_init__(self) -> None:
        whole = isinstance(self.height, int) and isinstance(self.n, int) and min(self.height, self.n) >= 1
        if not whole or len(self.sparsity) != 3:
            raise ValueError(f"break-even: expected a height, columns and three quartiles, got {self}")
        if not 0 <= self.sparsity[0] <= self.sparsity[1] <= self.sparsity[2] <= 1:
            raise ValueError(f"break-even: expected rising quartiles from 0 to 1, got {self.sparsity}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What ``pysim tune`` found.

    Args:
        machine: What it depends on, by name.
        rows: For every height and number of columns.
    """

    machine: dict[str, str | int]
    rows: tuple[BreakEven, ...]

    def break_even(self, height: int, n: int) -> BreakEven | None:
        """Of the largest measured height and number of columns that are not above these."""
        heights = sorted({row.height for row in self.rows})
        columns = sorted({row.n for row in self.rows})
        i, j = bisect_right(heights, height) - 1, bisect_right(columns, n) - 1
        if i < 0 or j < 0:
            return None
        found = [row for row in self.rows if (row.height, row.n) == (heights[i], columns[j])]
        return found[0] if found else None

    def to_json(self) -> dict[str, object]:
        return {"schema": TUNING_SCHEMA, **asdict(self)}
