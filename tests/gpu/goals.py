"""What is measured on a GPU, and the goals on an H100 at 90 % sparsity, against cuBLAS in the same type."""

from __future__ import annotations

from pysim.result import GpuBench, KernelVariant
from pysim.runner import KernelBenchConfig
from pysim.sparse.gpu import Math

_SQUARES = tuple((b, b) for b in (4, 8, 16, 32, 64))
_BIG = KernelBenchConfig(blocks=_SQUARES, m=4096, k=4096, columns=(4096,), sparsity=0.9, peers=True)
_DECODE = KernelBenchConfig(blocks=_SQUARES, m=4096, k=4096, columns=(1, 16), sparsity=0.9)
_MIDDLE = KernelBenchConfig(blocks=_SQUARES, m=768, k=768, columns=(64, 512), sparsity=0.9)

BENCHES: tuple[tuple[str, KernelBenchConfig, tuple[Math, ...]], ...] = (
    ("large, half precision", _BIG, ("f16", "bf16")),
    ("large, float32", _BIG, ("f32", "tf32")),
    ("large, 8 bits", _BIG, ("i8",)),
    ("few columns", _DECODE, ("f16", "f32", "i8")),
    ("middle", _MIDDLE, ("f16", "f32", "i8")),
)

# (type, block) -> ratio to cuBLAS; see docs/cuda.md for where they come from.
GOALS = {
    **{
        (math, b): goal
        for math in ("f16", "bf16")
        for b, goal in zip((64, 32, 16, 8, 4), (6, 4.5, 3.5, 1.8, 1), strict=True)
    },
    **{("f32", b): goal for b, goal in zip((4, 8, 16, 32, 64), (4, 6, 6, 6, 6), strict=True)},
}
DECODE_GOAL = 4.0
_PEER_GOALS = {16: 2.0, 32: 2.0, 64: 1.3}


def judge(bench: GpuBench) -> list[str]:
    """One line for each row that has a goal."""
    if (bench.m, bench.k) != (4096, 4096):
        return []
    lines = []
    for row in bench.rows:
        b = row.block[0]
        few = DECODE_GOAL if row.n == 16 and b >= 16 and row.math != "i8" else None
        goal = GOALS.get((row.math, b)) if row.n == 4096 else few
        what = f"{row.math} {b}x{b}"
        if goal is not None:
            lines.append(_line(f"{what} n={row.n}", row.speedup_quartiles[1], goal))
        us, wanted = row.peers.get("bsr_dense_addmm"), _PEER_GOALS.get(b)
        if us is not None and wanted is not None and row.n == 4096:
            lines.append(_line(f"{what} over bsr_dense_addmm", us / row.sparse_us, wanted))
        for name, variant in row.variants.items():
            if goal is not None and isinstance(variant, KernelVariant):
                lines.append(_line(f"{what} n={row.n} with {name}", row.dense_us / variant.us, goal))
    return lines


def _line(what: str, ratio: float, goal: float) -> str:
    return f"goal {'reached' if ratio >= goal else 'missed'}: {what}: {ratio:.2f}x, goal {goal:g}x"
