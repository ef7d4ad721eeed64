"""The text that ``pysim experiment`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from pysim.result import Block, StudyResult, TradeOff

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
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
