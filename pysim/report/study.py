"""The text that ``pysim experiment`` prints."""

from __future__ import annotations

from pysim.result import Sample, StudyResult


def render_study(result: StudyResult) -> str:
    """Claim, a row for every block size and level, the evidence with its intervals, the answer."""
    lines = [
        f"{result.study}, preset {result.preset}: {result.model} on {result.dataset}",
        f"claim: {result.claim}",
        "",
    ]
    rows = [("block", "sparsity", "accuracy", "sd", "n")]
    blocks = dict.fromkeys(trial.block for trial in result.trials)
    for block in blocks:
        trials = [trial for trial in result.trials if trial.block == block]
        for index, level in enumerate(trials[0].levels):
            sample = Sample.of([trial.levels[index].accuracy for trial in trials])
            spread = "-" if sample.sd is None else f"{sample.sd:.2f}"
            name = f"{block[0]}x{block[1]}"
            rows.append(
                (name, f"{100 * level.sparsity:.2f} %", f"{sample.mean:.2f} %", spread, str(sample.n))
            )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
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
