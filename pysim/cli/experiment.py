"""``pysim experiment``: the studies that pysim exists for."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pysim.cli.options import DEBUG, JSON, RESUME
from pysim.cli.progress import ProgressLine


@click.command(epilog="Example: pysim experiment finetune --preset cpu")
@click.argument("study", metavar="NAME|FOLDER")
@click.option(
    "--preset",
    default="smoke",
    show_default=True,
    help="smoke (seconds), cpu, full, or another of the study.",
)
@click.option("--data", metavar="SPEC", help="Instead of the preset's data.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The results file. Default: results/PRESET.json in the study's folder.",
)
@RESUME
@JSON
@DEBUG
def experiment(
    study: str, preset: str, data: str | None, out: Path | None, resume: bool, as_json: bool, debug: bool
) -> None:
    """Run a study (finetune, rewind or reinit) and judge its claim.

    Finished trials come from the cache; an interrupted one goes on where it was.
    """
    from pysim import runner
    from pysim.report import render_study

    loaded = runner.load_study(runner.find_study(study))
    with ProgressLine() as progress:
        result = runner.run_study(loaded, preset, data=data, out=out, use_cache=resume, progress=progress)
    click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False) if as_json else render_study(result))
