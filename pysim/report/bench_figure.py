"""Draws ``pysim bench kernels``: speedup against block shape. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

from pathlib import Path

from pysim.atomic import write_atomic
from pysim.report.figure import check_figure, line_colors
from pysim.report.table import block_name
from pysim.result import KernelBench


def draw_bench(bench: KernelBench, out: Path) -> None:
    """Writes the figure: a group of bars for each block, a bar for each n, quartiles as error bars.

    Args:
        bench: What to draw.
        out: A name that ends in ``.png`` or ``.svg``.

    Raises:
        ConfigError: Another ending, or matplotlib is not installed.
    """
    check_figure(out)
    import matplotlib
    from matplotlib.figure import Figure

    blocks = list(dict.fromkeys(row.block for row in bench.rows))
    columns = list(dict.fromkeys(row.n for row in bench.rows))
    speedup = {(row.block, row.n): row.speedup_quartiles for row in bench.rows}
    width = 0.8 / len(columns)
    with matplotlib.rc_context({"svg.hashsalt": "pysim", "font.size": 9}):
        figure = Figure(figsize=(max(4.6, 0.7 * len(blocks) * len(columns)), 4.2), layout="constrained")
        axes = figure.subplots()
        for i, (n, color) in enumerate(zip(columns, line_colors(len(columns)), strict=True)):
            rows = [speedup[block, n] for block in blocks]
            axes.bar(
                [place + (i - (len(columns) - 1) / 2) * width for place in range(len(blocks))],
                [median for _, median, _ in rows],
                width,
                yerr=[[median - low for low, median, _ in rows], [high - median for _, median, high in rows]],
                capsize=2,
                color=color,
                label=f"{n}",
            )
        axes.axhline(1, color="0.4", linestyle="--", linewidth=0.8)
        axes.set_xticks(range(len(blocks)), [block_name(block) for block in blocks])
        axes.set_xlabel("block, rows x columns")
        axes.set_ylabel("speedup over torch's dense product")
        threads = f"{bench.threads} thread{'' if bench.threads == 1 else 's'}"
        axes.set_title(
            f"{bench.m} x {bench.k}, {100 * bench.sparsity:g} % of blocks pruned, {bench.isa}, {threads}",
            fontsize=9,
        )
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=7, title="columns n")
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        kind = out.suffix.removeprefix(".")
        write_atomic(out, lambda path: figure.savefig(path, format=kind, dpi=120, metadata=metadata))
