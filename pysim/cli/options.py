"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import click


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


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 0 to 2**32 - 1 with commas, each once."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            if not re.fullmatch(r"[0-9]{1,10}", part.strip()) or int(part) >= 2**32:
                self.fail(
                    f"expected numbers from 0 to 2**32 - 1 such as 0 or 0,1,2, got {part!r}", param, ctx
                )
            if int(part) in numbers:
                self.fail(f"{part.strip()} is there twice", param, ctx)
            numbers.append(int(part))
        return tuple(numbers)


class ThreadCount(click.ParamType[int | Literal["probe"]]):
    """A number of at least 1, or ``probe``."""

    name = "threads"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["probe"]:
        if value == "probe":
            return "probe"
        if not re.fullmatch(r"[0-9]{1,4}", str(value)) or not 1 <= int(str(value)) <= 1024:
            self.fail(f"expected a number from 1 to 1024, or probe, got {value!r}", param, ctx)
        return int(str(value))


BLOCKS = click.option(
    "--block", "blocks", type=Blocks(), required=True, metavar="LIST", help="4, or 1x16, or 1,2,4,8,16."
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights to start from (safetensors). Default: the shipped ones, or training.",
)
DATA = click.option(
    "--data",
    metavar="SPEC",
    help="fashion-mnist (embedded, the default), synthetic, synthetic:CxHxW, idx:DIR or cifar10:DIR.",
)
TIMED_DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where kernels are timed.",
)
INPUT = click.option(
    "--input",
    "input_shape",
    metavar="NxCxHxW",
    help="Shape of a model's input, as in 1x3x32x32: synthetic images of that shape unless --data is given.",
)
PAD32 = click.option("--pad32", is_flag=True, help="Pad images to 32 x 32 pixels, the size of CIFAR-10.")

DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What trains and tests.",
)
BF16 = click.option(
    "--bf16", is_flag=True, help="Train in bfloat16, where the processor has it (AVX-512 BF16 or AMX)."
)
DEBUG = click.option("--debug", is_flag=True, help="Show a traceback with an error.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
RESUME = click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="Go on from what an interrupted run has saved, or forget it.",
)
SEEDS_TOGETHER = click.option(
    "--seeds-together",
    is_flag=True,
    help="Train the networks of all seeds side by side in this process, to fill a GPU.",
)
TRAINING_THREADS = click.option(
    "--threads",
    type=ThreadCount(),
    metavar="N|probe",
    help="CPU threads that train; probe: the fastest of a few, tried at each start. Default: PyTorch's.",
)
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the hardware, such as array.rows=64 or memory.bandwidth=10GB/s. May be repeated.",
)
