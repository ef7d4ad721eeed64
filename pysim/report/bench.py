"""``pysim bench kernels`` as a table."""

from __future__ import annotations

from pysim.report.table import block_name, format_table
from pysim.result import KernelBench

_NOTHING = "-"


def render_bench(bench: KernelBench) -> str:
    """The table, without a newline at its end."""
    peers = list(dict.fromkeys(name for row in bench.rows for name in row.peers))
    rows = []
    for row in bench.rows:
        low, median, high = row.speedup_quartiles
        cells = [block_name(row.block), str(row.n), f"{row.dense_us:.1f}", f"{row.sparse_us:.1f}"]
        cells += [f"{median:.2f}x", f"{low:.2f} .. {high:.2f}"]
        if bench.peak_gflops is not None:
            cells.append(f"{row.gflops / bench.peak_gflops:.0%}")
        for name in peers:
            time_us = row.peers.get(name)
            cells.append(_NOTHING if time_us is None else f"{time_us / row.sparse_us:.1f}x")
        rows.append(cells)
    header = [
        "block",
        "n",
        "dense us",
        "pysim us",
        "speedup",
        "quartiles",
        *(["of peak"] if bench.peak_gflops is not None else []),
        *(f"vs {name}" for name in peers),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    threads = f"{bench.threads} thread{'' if bench.threads == 1 else 's'}"
    peak = ""
    if bench.peak_gflops is not None:
        peak = f"peak: {bench.peak_gflops:.0f} GFLOP/s, float32 multiply-adds in registers alone, measured\n"
    return (
        f"{bench.m} x {bench.k} times {bench.k} x n, {bench.dtype}, "
        f"{100 * bench.sparsity:g} % of blocks pruned, {bench.isa}, {threads}\n"
        f"{format_table(header, rows)}\n\n"
        f"{peak}medians of calls in turn; speedup: torch's dense product over pysim"
        f"{'; vs: the peer over pysim' if peers else ''} ({versions})"
    )
