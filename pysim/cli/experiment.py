"""``pysim experiment``: the studies that pysim exists for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pysim.cli.options import DEBUG, DEVICE, JSON, RESUME, SEEDS_TOGETHER, ThreadCount
from pysim.cli.progress import ProgressLine

if TYPE_CHECKING:
    from pysim.runner import Threads

_FIGURE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog="Example: pysim experiment finetune --preset cpu --figure trade-off.svg")
@click.argument("study", metavar="NAME|FOLDER")
@click.option(
    "--preset",
    default="smoke",
    show_default=True,
    help="smoke (seconds), short, cpu (hours), full, or another of the study.",
)
@click.option("--data", metavar="SPEC", help="Instead of the preset's data.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The results file. Default: results/PRESET.json in the study's folder.",
)
@click.option(
    "--figure", "figures", type=_FIGURE, multiple=True, help="Draw it too: .png or .svg. May be repeated."
)
@click.option(
    "--measure",
    is_flag=True,
    help="Train nothing: time the first seed's networks of a preset that was run. Leave the machine alone.",
)
@click.option(
    "--threads",
    type=ThreadCount(),
    metavar="N|probe",
    help="CPU threads that train; probe: the fastest of a few, tried at each start. Default: PyTorch's. "
    "With --measure: of the timed kernels; default: 2, or 1 on a single core.",
)
@SEEDS_TOGETHER
@DEVICE
@RESUME
@JSON
@DEBUG
def experiment(
    study: str,
    preset: str,
    data: str | None,
    out: Path | None,
    figures: tuple[Path, ...],
    measure: bool,
    threads: Threads,
    seeds_together: bool,
    device: str,
    resume: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Run a study (finetune, rewind, reinit or shape) and judge its claim.

    Results are written after every trial. Finished trials come from the cache and an interrupted one goes on
    where it was: after a crash or a kill, give the same command again.

    --measure comes afterwards, on a machine that does nothing else. A network whose timing was disturbed gets
    no time, and the same command tries it again.
    """
    from pysim import runner
    from pysim.report import check_figure, draw_trade_off, render_measured, render_study
    from pysim.result import TradeOff

    for figure in figures:
        check_figure(figure)  # before minutes are spent
    loaded = runner.load_study(runner.find_study(study))
    if measure and data is not None:
        raise click.UsageError("--measure takes the preset's own data, and no --data.")
    if measure and threads == "probe":
        raise click.UsageError("--measure takes a number of --threads, and no probe.")
    with ProgressLine() as progress:
        if measure and threads != "probe":
            measured = runner.measure_study(
                loaded,
                preset,
                out=out,
                threads=threads or runner.default_threads(),
                again=not resume,
                progress=progress,
            )
            found = measured.results
            text = render_measured(TradeOff.from_json(preset, found), measured.disturbed)
        else:
            result = runner.run_study(
                loaded,
                preset,
                data=data,
                device=device,
                seeds_together=seeds_together,
                threads=threads,
                out=out,
                use_cache=resume,
                progress=progress,
            )
            found = result.to_json()
            text = render_study(result)
    for figure in figures:
        draw_trade_off(TradeOff.from_json(preset, found), figure)
    click.echo(json.dumps(found, indent=2, allow_nan=False) if as_json else text)


@click.command(epilog="Example: pysim figure results/cpu.json --out trade-off.svg --out trade-off.png")
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", "figures", type=_FIGURE, multiple=True, required=True, help=".png or .svg. May be repeated."
)
@JSON
@DEBUG
def figure(results: Path, figures: tuple[Path, ...], as_json: bool, debug: bool) -> None:
    """Draw the results file of an experiment, finished or not: accuracy against speedup."""
    from pysim.report import check_figure, draw_trade_off, load_trade_off

    for out in figures:
        check_figure(out)
    trade_off = load_trade_off(results)
    for out in figures:
        draw_trade_off(trade_off, out)
    if as_json:
        click.echo(
            json.dumps({"files": [str(out) for out in figures], "complete": trade_off.complete}, indent=2)
        )
    else:
        for out in figures:
            click.echo(f"{out}: written")
