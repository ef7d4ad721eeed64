"""The commands and their options."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pysim import __version__
from pysim.cli.bench import bench as bench_commands
from pysim.cli.experiment import experiment as experiment_command
from pysim.cli.experiment import figure as figure_command
from pysim.cli.hw import hw as hw_commands
from pysim.cli.options import (
    BF16,
    CHECKPOINT,
    DATA,
    DEBUG,
    DEVICE,
    INPUT,
    JSON,
    PAD32,
    RESUME,
    SET,
    TIMED_DEVICE,
    TRAINING_THREADS,
    Blocks,
    ThreadCount,
)
from pysim.cli.progress import ProgressLine
from pysim.cli.prune import prune as prune_command
from pysim.cli.tune import tune as tune_command

if TYPE_CHECKING:
    from pysim.config import Accelerator, Dataflow, Pipelining, Skip
    from pysim.runner import Threads

_SEED = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: pysim run resnet20 --block 4",
)
@click.version_option(__version__, prog_name="pysim")
def cli() -> None:
    """At which block size should I prune for my accelerator?

    pysim prunes a network in blocks, fine-tunes it, simulates every layer cycle by cycle on a systolic
    array and times it for real through block-sparse kernels.
    """


@cli.command(
    epilog="Example: pysim run resnet20 --block 1,2,4,8,16 --sparsity 0.9 --hw gemmini-16 --skip gather"
)
@click.argument("model")
@click.option(
    "--block",
    "blocks",
    type=Blocks(),
    metavar="LIST",
    help="4, or 1x16, or 1,2,4,8,16. Needed unless --checkpoint is a pruned network.",
)
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Share of each prunable layer's blocks to remove.",
)
@click.option(
    "--hw",
    default="gemmini-16",
    show_default=True,
    help="A preset (pysim hw list), a .toml file, or ROWSxCOLS for an array of that size.",
)
@SET
@click.option("--dataflow", type=click.Choice(["ws", "os", "is"]), help="Default: the preset's.")
@click.option(
    "--skip",
    type=click.Choice(["none", "tile", "gather", "group", "mux"]),
    help="How the array skips pruned blocks. Default: as the hardware says, or gather if it does not.",
)
@click.option(
    "--pipelining",
    type=click.Choice(["serial", "overlap"]),
    help="Whether folds overlap. Default: the preset's.",
)
@click.option("--mux", type=click.IntRange(1), help="Block columns that may share a slot with --skip mux.")
@click.option("--group-cols", type=click.IntRange(1), help="Array columns a group with --skip group.")
@DATA
@INPUT
@PAD32
@CHECKPOINT
@click.option(
    "--dense-epochs",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Training before pruning, where there are no weights to start from.",
)
@click.option(
    "--epochs", type=click.IntRange(0), default=1, show_default=True, help="Fine-tuning after pruning."
)
@click.option(
    "--prune-all", is_flag=True, help="Also the first convolution, the classifier and 1x1 shortcuts."
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Images simulated and timed. Default: 1, or the first number of --input.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Of the timed kernels. Default: 2, or 1 on a single core."
)
@click.option(
    "--train-threads",
    type=ThreadCount(),
    metavar="N|probe",
    help="CPU threads that train; probe: the fastest of a few, tried at each start. Default: PyTorch's.",
)
@TIMED_DEVICE
@click.option("--explain", is_flag=True, help="Also show where each layer's cycles go, and its roofline.")
@click.option("--no-measure", is_flag=True, help="Do not time kernels.")
@click.option("--no-cache", is_flag=True, help="Train again even if the result is known.")
@_SEED
@JSON
@DEBUG
@click.pass_context
def run(
    ctx: click.Context,
    model: str,
    blocks: tuple[tuple[int, int], ...] | None,
    sparsity: float,
    hw: str,
    overrides: tuple[str, ...],
    dataflow: Dataflow | None,
    skip: Skip | None,
    pipelining: Pipelining | None,
    mux: int | None,
    group_cols: int | None,
    data: str | None,
    input_shape: str | None,
    pad32: bool,
    checkpoint: Path | None,
    dense_epochs: int,
    epochs: int,
    prune_all: bool,
    batch: int | None,
    threads: int | None,
    train_threads: Threads,
    device: str,
    explain: bool,
    no_measure: bool,
    no_cache: bool,
    seed: int,
    as_json: bool,
    debug: bool,
) -> int:
    """Prune MODEL in blocks, simulate it and time it.

    MODEL is a name (pysim info lists them), or module:factory for a model of your own.
    """
    if blocks is None and checkpoint is None:
        raise click.MissingParameter(ctx=ctx, param_hint="'--block'", param_type="option")
    accelerator = _accelerator(hw, overrides, dataflow, skip, pipelining, mux, group_cols)
    from pysim import report, runner  # torch is imported here, after the options have been checked

    spec, pad_to, images = runner.choose_data(data, input_shape, 32 if pad32 else None)
    config = runner.RunConfig(
        model=model,
        blocks=blocks or (),
        accelerator=accelerator,
        sparsity=sparsity,
        data=spec,
        pad_to=pad_to,
        checkpoint=checkpoint,
        dense_epochs=dense_epochs,
        finetune_epochs=epochs,
        seed=seed,
        prune_all=prune_all,
        batch=batch or images or 1,
        threads=threads or runner.default_threads(),
        train_threads=train_threads,
        device=device,
        measure=not no_measure,
        use_cache=not no_cache,
    )
    with ProgressLine() as progress:
        result = runner.run(config, progress)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    else:
        click.echo(report.render(result) + (f"\n\n{report.explain(result)}" if explain else ""))
    return 0 if all(check.passed for block in result.runs for check in block.checks) else 1


def _accelerator(
    hw: str,
    overrides: tuple[str, ...],
    dataflow: Dataflow | None,
    skip: Skip | None,
    pipelining: Pipelining | None,
    mux: int | None,
    group_cols: int | None,
) -> Accelerator:
    from pysim.config import load_hardware

    hardware = load_hardware(hw, overrides)
    base = hardware.accelerator
    if skip is None:
        skip = base.skip if any(setting.key == "array.skip" for setting in hardware.settings) else "gather"
    return replace(
        base,
        dataflow=base.dataflow if dataflow is None else dataflow,
        skip=skip,
        pipelining=base.pipelining if pipelining is None else pipelining,
        mux=base.mux if mux is None else mux,
        group_cols=base.group_cols if group_cols is None else group_cols,
    )


@cli.command(
    epilog="Example: pysim train resnet20 --data idx:fashion-mnist --epochs 15 --out resnet20.safetensors"
)
@click.argument("model")
@DATA
@INPUT
@PAD32
@click.option("--epochs", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--lr",
    type=float,
    default=0.15,
    show_default=True,
    help="Highest learning rate; networks without batch norm need less.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The checkpoint to write."
)
@RESUME
@click.option(
    "--save-every", type=click.IntRange(1), default=100, show_default=True, help="Steps between saves."
)
@_SEED
@TRAINING_THREADS
@BF16
@DEVICE
@JSON
@DEBUG
def train(
    model: str,
    data: str | None,
    input_shape: str | None,
    pad32: bool,
    epochs: int,
    lr: float,
    out: Path,
    resume: bool,
    save_every: int,
    seed: int,
    threads: Threads,
    bf16: bool,
    device: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a dense MODEL and write its weights.

    Saves itself beside the checkpoint as it goes; the same command goes on from there, to the same result.
    """
    from pysim import runner

    spec, pad_to, _ = runner.choose_data(data, input_shape, 32 if pad32 else None)
    with ProgressLine() as progress:
        trained = runner.train_dense(
            model,
            spec,
            pad_to=pad_to,
            epochs=epochs,
            seed=seed,
            out=out,
            lr=lr,
            resume=resume,
            save_every=save_every,
            device=device,
            threads=threads,
            bf16=bf16,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(trained, indent=2))
    else:
        click.echo(f"{out}: {trained['accuracy_percent']:.2f} % on the test images of {trained['dataset']}")


@cli.command(epilog="Example: pysim info --json")
@JSON
@DEBUG
def info(as_json: bool, debug: bool) -> None:
    """Show version, instruction sets and why any is off, CUDA, threads, data and cache."""
    from pysim import runner

    facts = runner.describe_system()
    if as_json:
        click.echo(json.dumps(facts.to_json(), indent=2))
    else:
        click.echo(facts.render())


cli.add_command(bench_commands)
cli.add_command(hw_commands)
cli.add_command(prune_command)
cli.add_command(experiment_command)
cli.add_command(figure_command)
cli.add_command(tune_command)
