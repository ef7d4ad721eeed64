"""``pysim bench``: what the kernels reach on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from pysim.cli.options import DEBUG, JSON, TIMED_DEVICE, Blocks, Numbers
from pysim.cli.progress import ProgressLine
from pysim.errors import ConfigError


class _Size(click.ParamType[tuple[int, int]]):
    """``768x768``."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", str(value))
        if match is None:
            self.fail(f"expected rows x columns such as 768x768, got {value!r}", param, ctx)
        return int(match[1]), int(match[2])


@click.group(epilog="Example: pysim bench kernels --block 4 --sparsity 0.9")
def bench() -> None:
    """Measure this machine."""


@bench.command(epilog="Example: pysim bench kernels --block 1x1,1x4,4x1,4x4 --n 64 --peers")
@click.option(
    "--block",
    "blocks",
    type=Blocks(),
    default="4",
    show_default=True,
    metavar="LIST",
    help="4, or 1x16, or 1,2,4,8,16.",
)
@click.option("--size", type=_Size(), default="768x768", show_default=True, help="Of W, rows x columns.")
@click.option(
    "--n",
    "columns",
    type=Numbers(),
    multiple=True,
    default=("1,64,512",),
    metavar="LIST",
    help="Columns of X: 64, or 1,64. May be repeated.  [default: 1,64,512]",
)
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Share of blocks to prune, at random.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="Of pysim's weights; int8: of X and Y too. torch's dense product stays float32.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For every library.")
@click.option("--peers", is_flag=True, help="Also torch's CSR and BSR products (MKL) and SciPy's.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw speedup against block shape: a .png or .svg file. Needs matplotlib.",
)
@TIMED_DEVICE
@JSON
@DEBUG
def kernels(
    blocks: tuple[tuple[int, int], ...],
    size: tuple[int, int],
    columns: tuple[tuple[int, ...], ...],
    sparsity: float,
    dtype: str,
    threads: int,
    peers: bool,
    seed: int,
    plot: Path | None,
    device: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Time block-sparse products against torch's dense one, and against other libraries."""
    from pysim import runner
    from pysim.report import check_figure, draw_bench, render_bench, render_gpu_bench

    if plot is not None:
        check_figure(plot)
    config = runner.KernelBenchConfig(
        blocks=blocks,
        m=size[0],
        k=size[1],
        columns=tuple(dict.fromkeys(n for some in columns for n in some)),
        sparsity=sparsity,
        dtype=dtype,
        threads=threads,
        peers=peers,
        seed=seed,
    )
    if device == "cuda":
        if plot is not None or dtype != "float32":
            raise ConfigError(
                "--device cuda: expected neither --plot nor --dtype, got one of them; it times every type "
                "it has, and prints a table or --json"
            )
        with ProgressLine() as progress:
            measured = runner.bench_gpu(config, runner.gpu_device(), progress)
        click.echo(
            json.dumps(measured.to_json(), indent=2, allow_nan=False)
            if as_json
            else render_gpu_bench(measured)
        )
        return
    with ProgressLine() as progress:
        result = runner.bench_kernels(config, progress)
    if plot is not None:
        draw_bench(result, plot)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    else:
        click.echo(render_bench(result))
