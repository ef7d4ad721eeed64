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
    import torch

    from pysim import report, runner
    from pysim.errors import DataError
    from pysim.sparse.tuning import load_tuning, save_tuning, tuning_path

    count = torch.get_num_threads() if threads is None else threads
    if show:
        tuning = load_tuning(count)
        if tuning is None:
            raise DataError(
                f"{tuning_path(count)}: nothing was measured on this machine with this build and "
                f"{count} threads",
                hint="pysim tune measures it.",
            )
    else:
        with ProgressLine() as progress:
            tuning = runner.tune(runner.TuneConfig(threads=count), progress)
        save_tuning(tuning, count)
    if as_json:
        click.echo(json.dumps(tuning.to_json(), indent=2, allow_nan=False))
    else:
        click.echo(f"{report.render_tuning(tuning)}\nkept in {tuning_path(count)}")
