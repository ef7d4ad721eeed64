"""The text that ``pysim prune`` prints."""

from __future__ import annotations

from pysim.result import PruneResult, Sample

_HEADINGS = ("block", "dense", "pruned, not tuned", "pruned", "sd", "n", "sparsity prunable", "model")


def render_prune(result: PruneResult) -> str:
    """A heading, a row for every block size with mean, sd and n over seeds, and what is dead or written."""
    s = result.settings
    heading = (
        f"{result.model} on {result.dataset}, method {result.method}, "
        f"{100 * _number(s['sparsity']):.4g} % of the prunable blocks, score {s['score']}, scope {s['scope']}"
    )
    for field, usual in (("mask", "keep"), ("init", None)):
        if s[field] != usual:
            heading += f", {field} {s[field]}"
    rows = [_HEADINGS]
    for block, trials in result.by_block().items():
        accuracy = Sample.of([t.accuracy for t in trials])
        before = Sample.of([t.before_finetune for t in trials])
        dense = [t.dense for t in trials if t.dense is not None]
        rows.append(
            (
                f"{block[0]}x{block[1]}",
                f"{Sample.of(dense).mean:.2f} %" if dense else "-",
                f"{before.mean:.2f} %",
                f"{accuracy.mean:.2f} %",
                "-" if accuracy.sd is None else f"{accuracy.sd:.2f}",
                str(accuracy.n),
                f"{100 * Sample.of([t.sparsity_prunable for t in trials]).mean:.2f} %",
                f"{100 * Sample.of([t.sparsity_model for t in trials]).mean:.2f} %",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [heading, ""]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if any(len(trials) == 1 for trials in result.by_block().values()):
        lines += ["", "One seed says little: repeat with --seed 0,1,2 for a mean and its spread."]
    for trial in result.trials:
        name = f"block {trial.block[0]}x{trial.block[1]}, seed {trial.seed}"
        lines += [f"warning: {name}: {weight} has no block left" for weight in trial.empty]
        lines += [f"note: {name}: {line}" for line in trial.dead]
        if trial.file is not None:
            lines.append(f"{trial.file}: written, {trial.accuracy:.2f} %")
    return "\n".join(lines)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
