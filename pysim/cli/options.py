"""Options that several commands share."""

from __future__ import annotations

import click

DEBUG = click.option("--debug", is_flag=True, help="Show a traceback with an error.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
RESUME = click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="Go on from what an interrupted run has saved, or forget it.",
)
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the hardware, such as array.rows=64 or memory.bandwidth=10GB/s. May be repeated.",
)
