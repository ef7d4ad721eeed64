"""Draws accuracy against speedup, one line for each block size. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pysim.atomic import write_atomic
from pysim.errors import ConfigError
from pysim.result import Point, TradeOff, read_json, squarest_blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
Color = tuple[float, float, float, float]
_MOST_LABELS = 24
_MOST_BYTES = 64 << 20


def check_figure(out: Path) -> None:
    """Raises ConfigError unless ``out`` ends in ``.png`` or ``.svg`` and matplotlib is installed."""
    if out.suffix not in FORMATS:
        raise ConfigError(f"figure: expected a name that ends in {' or '.join(FORMATS)}, got {out}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("figure: expected matplotlib to be installed", hint="pip install matplotlib")


def load_trade_off(path: Path) -> TradeOff:
    """Reads an experiment's results file. Raises DataError if it is none."""
    return TradeOff.from_json(str(path), read_json(path, _MOST_BYTES, "results file"))


def draw_trade_off(trade_off: TradeOff, out: Path) -> None:
    """Writes the figure; the same results give the same bytes with the same matplotlib.

    Panels: accuracy against simulated speedup; against measured speedup, if there is any; against the weights
    in a block. Bars are standard deviations over seeds.

    Args:
        trade_off: What to draw.
        out: A name that ends in ``.png`` or ``.svg``.

    Raises:
        ConfigError: Another ending, or matplotlib is not installed.
    """
    check_figure(out)
    import matplotlib
    from matplotlib.figure import Figure

    measured = any(point.measured is not None for point in trade_off.points)
    with matplotlib.rc_context({"svg.hashsalt": "pysim", "font.size": 9}):
        panels = 3 if measured else 2
        figure = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
        note = "" if trade_off.complete else " (not all planned trials)"
        figure.suptitle(trade_off.title + note)
        _speedup_panel(
            axes[0],
            trade_off,
            [(p, p.simulated) for p in trade_off.points],
            f"simulated: {trade_off.machine}",
        )
        if measured:
            _speedup_panel(
                axes[1], trade_off, [(p, p.measured) for p in trade_off.points], "measured on the CPU"
            )
        _size_panel(axes[-1], trade_off)
        axes[0].set_ylabel("accuracy, % of the test images")
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        kind = out.suffix.removeprefix(".")
        write_atomic(out, lambda path: figure.savefig(path, format=kind, dpi=120, metadata=metadata))


def _speedup_panel(
    axes: Axes, trade_off: TradeOff, points: Sequence[tuple[Point, float | None]], title: str
) -> None:
    blocks = list(dict.fromkeys(point.block for point, _ in points))
    for block, color in zip(blocks, line_colors(len(blocks)), strict=True):
        line = [(p, x) for p, x in points if p.block == block and x is not None]
        axes.errorbar(
            [x for _, x in line],
            [p.accuracy.mean for p, _ in line],
            yerr=[p.accuracy.sd or 0.0 for p, _ in line],
            marker="o",
            markersize=4,
            capsize=2,
            color=color,
            label=f"{block[0]}x{block[1]}, {_counts([p for p, _ in line])}",
        )
        if len(points) <= _MOST_LABELS:
            for p, x in line:
                axes.annotate(
                    f"{100 * p.sparsity:.3g} %",
                    (x, p.accuracy.mean),
                    xytext=(3, 4),
                    textcoords="offset points",
                    fontsize=6,
                )
    _dense_line(axes, trade_off)
    speedups = [x for _, x in points if x is not None]
    if speedups:
        _plain_log2(axes, min(speedups), max(speedups))
    axes.set_xlabel("speedup over dense, whole network")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="block")


def _size_panel(axes: Axes, trade_off: TradeOff) -> None:
    sparsities = sorted({point.sparsity for point in trade_off.points})
    for sparsity, color in zip(sparsities, line_colors(len(sparsities)), strict=True):
        points = [p for p in trade_off.points if p.sparsity == sparsity]
        square = squarest_blocks([p.block for p in points])
        line = [p for p in points if p.block in square]
        axes.errorbar(
            [p.block[0] * p.block[1] for p in line],
            [p.accuracy.mean for p in line],
            yerr=[p.accuracy.sd or 0.0 for p in line],
            marker="o",
            markersize=4,
            capsize=2,
            color=color,
            label=f"{100 * sparsity:.3g} %",
        )
        _other_shapes(axes, [p for p in points if p.block not in square], color)
    _dense_line(axes, trade_off)
    sizes = [p.block[0] * p.block[1] for p in trade_off.points]
    _plain_log2(axes, min(sizes) / 2, max(sizes) * 2)  # with room, so that other shapes stay near their size
    axes.set_xlabel("weights in a block")
    axes.set_title("accuracy by block size", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="sparsity")


def _other_shapes(axes: Axes, points: Sequence[Point], color: Color) -> None:
    """Beside the line through the squarest block of every size: the others, side by side and named."""
    placed: dict[int, int] = {}
    for p in points:
        size = p.block[0] * p.block[1]
        placed[size] = placed.get(size, 0) + 1
        x = size * 2 ** (0.12 * placed[size])  # apart, or their bars would hide each other
        axes.errorbar([x], [p.accuracy.mean], yerr=[p.accuracy.sd or 0.0], marker="x", capsize=2, color=color)
        axes.annotate(
            f"{p.block[0]}x{p.block[1]}",
            (x, p.accuracy.mean),
            xytext=(3, -8),
            textcoords="offset points",
            fontsize=6,
        )


def _dense_line(axes: Axes, trade_off: TradeOff) -> None:
    if trade_off.dense is not None:
        axes.axhline(trade_off.dense.mean, color="0.4", linestyle="--", linewidth=0.8, label="dense")


def _plain_log2(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis with the powers of two written out."""
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    step = max(1, (last - first) // 6)
    axes.set_xscale("log", base=2)
    axes.set_xticks([2.0**e for e in range(first, last + 1, step)])
    axes.set_xticklabels([f"{2.0**e:g}" for e in range(first, last + 1, step)])


def _counts(points: Sequence[Point]) -> str:
    counts = [point.accuracy.n for point in points] or [0]
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def line_colors(count: int) -> list[Color]:
    """That many, told apart in print too."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / max(count - 1, 1)) for i in range(count)]
