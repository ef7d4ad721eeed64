"""The text that ``pysim experiment`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from pysim.result import NEAR, Block, Comparison, Sample, StudyResult, TradeOff

_HEADINGS = ("block", "sparsity", "accuracy", "sd", "n", "simulated", "measured")


def render_study(result: StudyResult) -> str:
    """Claim, a row for every block size and sparsity, the evidence with its intervals, the answer."""
    found = TradeOff.from_json(result.study, result.to_json())
    lines = [
        found.title,
        f"claim: {result.claim}",
        f"simulated: {found.machine}",
    ]
    if found.dense is not None:
        spread = "" if found.dense.sd is None else f", sd {found.dense.sd:.2f} over {found.dense.n} seeds"
        lines.append(f"dense: {found.dense.mean:.2f} %{spread}")
    lines += ["", *_table(found)]
    if result.expected is not None:
        lines += ["", *_beside(result.expected)]
    if result.verdict is not None:
        lines.append("")
        for item in result.verdict.evidence:
            word = {True: "for", False: "against", None: "open"}[item.supports]
            lines.append(
                f"{word}: {item.name}: {item.value:+.3f} {item.unit}, "
                f"interval {item.low:+.3f} to {item.high:+.3f}"
            )
        lines += ["", f"{result.verdict.answer}: {result.verdict.why}"]
    return "\n".join(lines)


def _beside(found: Comparison) -> list[str]:
    """Single weights beside published accuracies, as differences with both spreads; no judgement."""
    lines = [f"block 1x1 beside {found.source}: {found.what}; it gives a spread for dense networks alone"]
    rows: list[tuple[str, ...]] = [
        ("sparsity", "accuracy", "sd", "n", "published for", "accuracy", "sd", "difference")
    ]
    if found.measured_dense is not None:
        rows.append(_row("dense", found.measured_dense, "dense", found.dense))
    for point in found.points:
        there = Sample(mean=point.expected, sd=None, n=1)
        nearest = f"{100 * point.expected_sparsity:g} %"
        rows.append(_row(f"{100 * point.sparsity:.2f} %", point.measured, nearest, there))
    lines += _aligned(rows)
    if found.without:
        lines.append(
            f"nothing published within {100 * NEAR:g} points of sparsity: "
            + ", ".join(f"{100 * sparsity:.2f} %" for sparsity in found.without)
        )
    return lines


def _row(here: str, measured: Sample, there: str, published: Sample) -> tuple[str, ...]:
    return (
        here,
        f"{measured.mean:.2f} %",
        "-" if measured.sd is None else f"{measured.sd:.2f}",
        str(measured.n),
        there,
        f"{published.mean:.2f} %",
        "-" if published.sd is None else f"{published.sd:.2f}",
        f"{measured.mean - published.mean:+.2f}",
    )


def render_measured(found: TradeOff, disturbed: Sequence[tuple[Block, float]]) -> str:
    """The table after timing, and what was not timed because the machine was busy."""
    lines = [found.title, "", *_table(found)]
    if disturbed:
        names = ", ".join(f"{b[0]}x{b[1]} at {100 * s:g} %" for b, s in disturbed)
        lines += ["", f"not timed, as other programs used the machine: {names}; repeat the command"]
    return "\n".join(lines)


def _table(found: TradeOff) -> list[str]:
    rows = [_HEADINGS]
    for point in found.points:
        accuracy = point.accuracy
        rows.append(
            (
                f"{point.block[0]}x{point.block[1]}",
                f"{100 * point.sparsity:.2f} %",
                f"{accuracy.mean:.2f} %",
                "-" if accuracy.sd is None else f"{accuracy.sd:.2f}",
                str(accuracy.n),
                "-" if point.simulated is None else f"{point.simulated:.2f}x",
                "-" if point.measured is None else f"{point.measured:.2f}x",
            )
        )
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
