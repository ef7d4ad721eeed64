"""What ``pysim bench kernels`` measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBenchRow:
    """One product of one block shape.

    Args:
        block: Height and width.
        n: Columns of X.
        dense_us: Median time of the fastest form of torch's dense product, microseconds.
        sparse_us: The same of pysim's kernel.
        speedup_quartiles: First quartile, median and third of dense over sparse time, round by round.
        gflops: Operations of the kept weights in 1e9 a second, by sparse_us; two for each.
        max_error: Largest difference from the exact product, as a share of what rounding allows.
        peers: Name to median time, microseconds; None where the peer refuses the block.
    """

    block: tuple[int, int]
    n: int
    dense_us: float
    sparse_us: float
    speedup_quartiles: tuple[float, float, float]
    gflops: float
    max_error: float
    peers: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBench:
    """A table of products W (m, k) X (k, n) with random blocks pruned.

    Args:
        m: Rows of W.
        k: Columns of W.
        sparsity: Share of blocks pruned.
        dtype: Of pysim's weights; with int8 X and Y are uint8.
        isa: The instruction set of pysim's kernel.
        threads: For every library that takes them.
        peak_gflops: Multiply-adds in registers alone with that instruction set, 1e9 operations a second:
            measured on one thread, times the number of threads. None for int8, which has no such measurement.
        seed: Of masks and values.
        versions: Library name to version.
        rows: For every block and n.
    """

    m: int
    k: int
    sparsity: float
    dtype: str
    isa: str
    threads: int
    peak_gflops: float | None
    seed: int
    versions: dict[str, str]
    rows: tuple[KernelBenchRow, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)
