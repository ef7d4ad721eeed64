"""Options that several commands share."""

from __future__ import annotations

import re

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


class Blocks(click.ParamType[tuple[tuple[int, int], ...]]):
    """``4`` or ``1x16`` or a list of such with commas."""

    name = "blocks"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        blocks: list[tuple[int, int]] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", part.strip())
            block = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if min(block) < 1:
                self.fail(
                    f"expected sizes of at least 1 such as 4 or 1x16 or 1,2,4, got {part!r}", param, ctx
                )
            if block in blocks:
                self.fail(f"{part!r} is there twice", param, ctx)
            blocks.append(block)
        return tuple(blocks)
