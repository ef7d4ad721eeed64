"""The shape that a user names with ``--input``, and the data that fits it."""

from __future__ import annotations

import re

from pysim.data import load_dataset
from pysim.errors import ConfigError

DEFAULT_DATA = "fashion-mnist"


def parse_input(text: str) -> tuple[int, int, int, int]:
    """``1x3x32x32`` as (N, C, H, W). Raises ConfigError if it is anything else."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})x(\d{1,6})", text, re.ASCII)
    shape = (int(match[1]), int(match[2]), int(match[3]), int(match[4])) if match else (0, 0, 0, 0)
    if min(shape) < 1:
        raise ConfigError(f"--input: expected NxCxHxW such as 1x3x32x32, got {text!r}")
    return shape


def choose_data(
    data: str | None, input_shape: str | None, pad_to: int | None
) -> tuple[str, int | None, int | None]:
    """What to load, what to pad it to, and the number of images that ``--input`` names, if it is given.

    Raises:
        ConfigError: The shape is none, or not that of the named data.
    """
    if input_shape is None:
        return data or DEFAULT_DATA, pad_to, None
    shape = parse_input(input_shape)
    return *data_for_input(shape, data, pad_to), shape[0]


def data_for_input(
    shape: tuple[int, int, int, int], data: str | None, pad_to: int | None
) -> tuple[str, int | None]:
    """The data set and its padding for images of ``shape``: synthetic ones unless ``data`` is named.

    Raises:
        ConfigError: The named data has images of another shape.
    """
    if data is None:
        return "synthetic:{}x{}x{}".format(*shape[1:]), None
    dataset = load_dataset(data)
    if pad_to is not None:
        dataset = dataset.padded(pad_to)
    got = (dataset.channels, *dataset.image_size)
    if got != shape[1:]:
        raise ConfigError(
            f"--input: expected {'x'.join(map(str, got))} images, those of {data}, "
            f"got {'x'.join(map(str, shape[1:]))}",
            hint="Leave out --data for synthetic images of that shape.",
        )
    return data, pad_to
