"""The text that ``pysim experiment`` prints."""

from __future__ import annotations

from pysim.result import StudyResult, TradeOff

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
    lines.append("")
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
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
