"""``pysim prune``: every way of block pruning, over block sizes and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pysim.cli.options import (
    BF16,
    BLOCKS,
    CHECKPOINT,
    DATA,
    DEBUG,
    DEVICE,
    INPUT,
    JSON,
    PAD32,
    RESUME,
    SEEDS_TOGETHER,
    TRAINING_THREADS,
    Numbers,
)
from pysim.cli.progress import ProgressLine

if TYPE_CHECKING:
    from pysim.runner import Init, Layout, Threads


@click.command(epilog="Example: pysim prune resnet20 --block 4 --method imp --rewind-step 90 --seed 0,1,2")
@click.argument("model")
@BLOCKS
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Share of the prunable blocks to remove.",
)
@click.option(
    "--method",
    default="one-shot",
    show_default=True,
    help="one-shot, gradual, imp, imp-finetune, lr-rewind, at-init, ac-dc or rigl; see docs/pruning.md.",
)
@click.option(
    "--rewind-step",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Step of dense training that imp's weights and lr-rewind's learning rate go back to.",
)
@click.option(
    "--level-rate",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the remaining blocks that each level of an iterative method removes.",
)
@click.option(
    "--score",
    default="l1",
    show_default=True,
    help="l1, l2, max, taylor, snip, synflow or random.",
)
@click.option("--scope", default="layer", show_default=True, help="layer, global, global-norm or erk.")
@click.option(
    "--layout",
    type=click.Choice(["kh,kw,cin", "kernel", "oihw"]),
    default="kh,kw,cin",
    show_default=True,
    help="A block is channels at one kernel position; with whole kernels; or elements in PyTorch's order.",
)
@click.option("--structured", is_flag=True, help="Blocks of a block row go together; --block 1: filters.")
@click.option(
    "--init",
    type=click.Choice(["keep", "rewind", "reinit"]),
    help="Control: weights that the last retraining starts from. Default: the method's.",
)
@click.option(
    "--mask",
    type=click.Choice(["keep", "shuffle", "random"]),
    default="keep",
    show_default=True,
    help="Control: the chosen blocks, as many at random places of their layer, or random blocks.",
)
@click.option("--prune-all", is_flag=True, help="Also what stays dense by default.")
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Prune the layers that match. May be repeated."
)
@click.option("--keep-dense", multiple=True, metavar="PATTERN", help="Leave these dense. May be repeated.")
@click.option(
    "--epochs", type=click.IntRange(0), default=1, show_default=True, help="Fine-tuning, where there is any."
)
@click.option(
    "--dense-epochs", type=click.IntRange(1), default=4, show_default=True, help="Of the dense schedule."
)
@click.option(
    "--dense-lr",
    type=float,
    default=0.15,
    show_default=True,
    help="Highest learning rate of the dense schedule; networks without batch norm need less.",
)
@click.option(
    "--sparse-training",
    is_flag=True,
    help="Retrain on pysim's block-sparse layers, which skip what is pruned; CPU, float32.",
)
@SEEDS_TOGETHER
@TRAINING_THREADS
@BF16
@DEVICE
@DATA
@INPUT
@PAD32
@CHECKPOINT
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the pruned network there (safetensors); block and seed are added to the name if several.",
)
@click.option(
    "--seed",
    "seeds",
    type=Numbers(),
    default="0",
    show_default=True,
    metavar="LIST",
    help="0, or 0,1,2: one trial each.",
)
@RESUME
@JSON
@DEBUG
def prune(
    model: str,
    blocks: tuple[tuple[int, int], ...],
    sparsity: float,
    method: str,
    rewind_step: int,
    level_rate: float,
    score: str,
    scope: str,
    layout: Layout,
    structured: bool,
    init: Init | None,
    mask: str,
    prune_all: bool,
    only: tuple[str, ...],
    keep_dense: tuple[str, ...],
    epochs: int,
    dense_epochs: int,
    dense_lr: float,
    sparse_training: bool,
    seeds_together: bool,
    threads: Threads,
    bf16: bool,
    device: str,
    data: str | None,
    input_shape: str | None,
    pad32: bool,
    checkpoint: Path | None,
    out: Path | None,
    seeds: tuple[int, ...],
    resume: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Prune MODEL in blocks, retrain it and test it, for every block size and seed.

    What is finished is kept in the cache, level by level, and shared with pysim run; an interrupted run goes
    on where it was.
    """
    from pysim import runner  # torch is imported here, after the options have been checked
    from pysim.report import render_prune

    masks = runner.PruneConfig(
        block=blocks[0],
        sparsity=sparsity,
        prune_all=prune_all,
        score=score,
        scope=scope,
        layout=layout,
        structured=structured,
        mask=mask,
        only=only,
        keep_dense=keep_dense,
    )
    spec, pad_to, _ = runner.choose_data(data, input_shape, 32 if pad32 else None)
    config = runner.PruneRunConfig(
        model=model,
        blocks=blocks,
        prune=masks,
        seeds=seeds,
        method=method,
        init=init,
        epochs=epochs,
        dense_epochs=dense_epochs,
        dense_lr=dense_lr,
        rewind_step=rewind_step,
        level_rate=level_rate,
        data=spec,
        pad_to=pad_to,
        checkpoint=checkpoint,
        device=device,
        bf16=bf16,
        sparse_training=sparse_training,
        seeds_together=seeds_together,
        threads=threads,
        out=out,
        use_cache=resume,
    )
    with ProgressLine() as progress:
        result = runner.prune(config, progress)
    click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False) if as_json else render_prune(result))
