"""``pysim hw``: what hardware there is, what it says, and hardware files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pysim.cli.options import DEBUG, JSON, SET
from pysim.errors import ConfigError


@click.group(epilog="Example: pysim hw show tpu-v1")
def hw() -> None:
    """List, show, check and import hardware descriptions."""


@hw.command("list", epilog="Example: pysim hw list --json")
@JSON
@DEBUG
def list_presets(as_json: bool, debug: bool) -> None:
    """List the presets."""
    from pysim.config import load_hardware, preset_names
    from pysim.report.hardware import hardware_json, render_presets

    presets = [load_hardware(name) for name in preset_names()]
    if as_json:
        click.echo(json.dumps({"presets": [hardware_json(preset) for preset in presets]}, indent=2))
    else:
        click.echo(render_presets(presets))


@hw.command(epilog="Example: pysim hw show tpu-v1 --set memory.bandwidth=68GB/s")
@click.argument("name", metavar="NAME|FILE")
@SET
@JSON
@DEBUG
def show(name: str, overrides: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Show what a preset, a .toml file or ROWSxCOLS sets, and the source of each value.

    derived: follows from the source. assumed: no source gives it. unverified: quoted without having been
    checked against the source.
    """
    from pysim.config import load_hardware
    from pysim.energy import area, missing_figures
    from pysim.report.hardware import hardware_json, render_hardware

    hardware = load_hardware(name, overrides)
    if as_json:
        click.echo(json.dumps(hardware_json(hardware), indent=2))
    else:
        try:
            parts = area(hardware.accelerator).components
        except ConfigError:  # Areas are published for some machines alone.
            parts = None
        click.echo(render_hardware(hardware, missing_figures(hardware.accelerator), parts))


@hw.command(epilog="Example: pysim hw check my-npu.toml")
@click.argument("file", type=click.Path(path_type=Path))
@DEBUG
def check(file: Path, debug: bool) -> None:
    """Check a hardware file and tell all its mistakes at once."""
    from pysim.config import load_hardware
    from pysim.energy import missing_figures
    from pysim.report.hardware import heading

    if file.suffix != ".toml":
        raise ConfigError(f"{file}: expected a .toml file", hint="pysim hw import reads other formats.")
    hardware = load_hardware(str(file))
    missing = missing_figures(hardware.accelerator)
    click.echo(f"ok: {heading(hardware)}")
    for what in missing:
        click.echo(f"note: no energy: {what}")


@hw.command("import", epilog="Example: pysim hw import scale.cfg --out my-npu.toml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The .toml to write. Default: standard output.",
)
@DEBUG
def import_file(file: Path, out: Path | None, debug: bool) -> None:
    """Turn a SCALE-Sim .cfg or an ONNXim .json into a hardware file."""
    from pysim.atomic import write_bytes_atomic
    from pysim.config import import_hardware

    if out is not None and out.suffix != ".toml":
        raise ConfigError(f"--out: expected a name that ends in .toml, got {out.name}")
    if out is not None and out.exists():
        raise ConfigError(f"--out: expected a new file, got {out}, which exists", hint="Choose another name.")
    text = import_hardware(file)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes_atomic(out, text.encode())
        click.echo(f"{out}: written; pysim hw show {out} shows it")
