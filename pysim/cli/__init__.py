"""The command ``pysim``. Holds no logic; everything heavy is imported only by the command that needs it."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import TextIO

import click

from pysim.cli.commands import cli
from pysim.errors import PysimError, PysimWarning

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 a check failed, 2 an error, 130 interrupted."""
    arguments = sys.argv[1:] if args is None else args
    warnings.showwarning = _show_warning
    try:
        status = cli.main(args=arguments, prog_name="pysim", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), _usage_hint(error))
    except click.Abort:
        _say("interrupted", "The next run goes on from what is already in the cache.")
        os._exit(130)  # every file is whole by now, and torch takes seconds to take itself down
    except (PysimError, OSError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _fail(str(error), getattr(error, "hint", None))
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """pysim's own warnings as one line; those of libraries say where they come from."""
    if issubclass(category, PysimWarning):
        click.echo(f"warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return None if context is None else f"See {context.command_path} --help."


def _fail(message: str, hint: str | None) -> None:
    _say(message, hint)
    sys.exit(2)


def _say(message: str, hint: str | None) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    # A broken pipe must not end in a second error while the interpreter shuts down.
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
