"""``pysim tune``: the break-even sparsities of this machine."""

from __future__ import annotations

import json

import click

from pysim.cli.options import DEBUG, JSON
from pysim.cli.progress import ProgressLine


@click.command(epilog="Example: pysim tune --threads 1")
@click.option(
    "--threads", type=click.IntRange(1, 256), help="For torch and pysim. Default: torch's own number."
)
@click.option("--show", is_flag=True, help="Print what was measured before; measure nothing.")
@JSON
@DEBUG
def tune(threads: int | None, show: bool, as_json: bool, debug: bool) -> None:
    """Measure from which sparsity on block-sparse products pay on this machine.

    The result is kept in the cache. pysim.compress then leaves linear layers below it dense without timing
    them.
    """
    from pysim import report, runner

    with ProgressLine() as progress:
        tuning, path = runner.tune_machine(threads, measure=not show, progress=progress)
    if as_json:
        click.echo(json.dumps(tuning.to_json(), indent=2, allow_nan=False))
    else:
        click.echo(f"{report.render_tuning(tuning)}\nkept in {path}")
