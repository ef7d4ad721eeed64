"""``pysim bench kernels --device cuda`` as a table."""

from __future__ import annotations

from pysim.report.table import block_name, format_table
from pysim.result import GpuBench, KernelVariant

_NOTHING = "-"


def render_gpu_bench(bench: GpuBench) -> str:
    """The table, without a newline at its end."""
    variants = list(dict.fromkeys(name for row in bench.rows for name in row.variants))
    peers = list(dict.fromkeys(name for row in bench.rows for name in row.peers))
    rows = []
    for row in bench.rows:
        low, median, high = row.speedup_quartiles
        cells = [row.math, block_name(row.block), str(row.n), f"{row.dense_us:.1f}", f"{row.sparse_us:.1f}"]
        cells += [f"{median:.2f}x", f"{low:.2f} .. {high:.2f}", f"{row.max_error:.2g}"]
        for name in variants:
            variant = row.variants.get(name)
            cells.append(
                f"{row.dense_us / variant.us:.2f}x" if isinstance(variant, KernelVariant) else _NOTHING
            )
        for name in peers:
            time_us = row.peers.get(name)
            cells.append(_NOTHING if time_us is None else f"{time_us / row.sparse_us:.1f}x")
        rows.append(cells)
    header = ["type", "block", "n", "dense us", "pysim us", "speedup", "quartiles", "error"]
    header += variants
    header += [f"vs {name}" for name in peers]
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    capability = f"sm_{bench.capability[0]}{bench.capability[1]}"
    return (
        f"{bench.m} x {bench.k} times {bench.k} x n, {100 * bench.sparsity:g} % of blocks pruned, "
        f"{bench.gpu}, {capability}\n"
        f"{format_table(header, rows, left=2)}\n\n"
        "medians of calls in turn, between events on the GPU; speedup: torch's dense product over pysim; "
        "error: as a share of\nwhat rounding allows"
        f"{'; cluster: dense over pysim with that option' if variants else ''}"
        f"{'; vs: the peer over pysim' if peers else ''} ({versions})"
    )
