"""What ``pysim bench kernels --device cuda`` measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelVariant:
    """One of pysim's kernels that is not the default.

    Args:
        us: Median time, microseconds.
        max_error: Largest difference from the product in float64, as a share of what rounding allows.
    """

    us: float
    max_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBenchRow:
    """One product of one type and block shape.

    Args:
        math: ``f32``, ``tf32``, ``f16``, ``bf16`` or, from bytes to int32, ``i8``; on both sides.
        block: Height and width.
        n: Columns of X.
        dense_us: Median time of the faster form of torch's dense product (cuBLAS), microseconds.
        sparse_us: The same of pysim's kernel.
        speedup_quartiles: First quartile, median and third of dense over sparse time, round by round.
        max_error: Largest difference from the product in float64, as a share of what rounding allows; half a
            unit in ``i8``, whose sums are exact.
        peers: Name to median time, microseconds; None where the peer refuses the block or is wrong.
        variants: Name of a kernel that only an option chooses to its time, or to why there is none.
    """

    math: str
    block: tuple[int, int]
    n: int
    dense_us: float
    sparse_us: float
    speedup_quartiles: tuple[float, float, float]
    max_error: float
    peers: dict[str, float | None]
    variants: dict[str, KernelVariant | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBench:
    """A table of products W (m, k) X (k, n) with random blocks pruned, on one GPU.

    Args:
        gpu: Its name.
        capability: Its compute capability, major and minor.
        m: Rows of W.
        k: Columns of W.
        sparsity: Share of blocks pruned.
        seed: Of masks and values.
        versions: Library name to version.
        rows: For every type, block and n.
    """

    gpu: str
    capability: tuple[int, int]
    m: int
    k: int
    sparsity: float
    seed: int
    versions: dict[str, str]
    rows: tuple[GpuBenchRow, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)
