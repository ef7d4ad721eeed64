"""``pysim tune`` as text."""

from __future__ import annotations

from pysim.report.table import format_table
from pysim.result import Tuning


def render_tuning(tuning: Tuning) -> str:
    """The table, without a newline at its end."""
    columns = list(dict.fromkeys(row.n for row in tuning.rows))
    heights = list(dict.fromkeys(row.height for row in tuning.rows))
    found = {(row.height, row.n): row.sparsity for row in tuning.rows}
    rows = []
    for height in heights:
        cells = [str(height)]
        for n in columns:
            low, median, high = (100 * share for share in found[height, n])
            cells += [f"{median:.0f} %", f"{low:.0f} .. {high:.0f}"]
        rows.append(cells)
    header = ["height", *(part for n in columns for part in (f"n = {n}", "quartiles"))]
    machine = tuning.machine
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return (
        "Sparsity from which on block-sparse products are faster than torch's dense one\n"
        f"{format_table(header, rows)}\n\n"
        f"{machine['cpu']}, {machine['isa']}, {threads}, torch {machine['torch']}"
    )
