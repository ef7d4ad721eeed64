"""Masks as bits: eight blocks a byte, in C order, first block in the highest bit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pysim.workload import ORDERS, BlockGrid, BlockMask, BoolArray

_ORDER, _USUAL = "order", ORDERS[0]  # written only where it is another
_FIELDS = ("m", "k", "positions", "bh", "bw")
# Far above any layer of this project; a hostile file cannot make us allocate more.
_MAX_BLOCKS = 1 << 32


def pack_bits(keep: BoolArray) -> npt.NDArray[np.uint8]:
    """(ceil(size / 8),) uint8; spare bits are 0."""
    return np.packbits(keep)


def unpack_bits(bits: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> BoolArray:
    """What ``pack_bits`` packed.

    Raises:
        ValueError: The number of bytes is not that of ``shape``, or a spare bit is set.
    """
    size = math.prod(shape)
    if not 0 < size <= _MAX_BLOCKS:
        raise ValueError(f"expected from 1 to {_MAX_BLOCKS} blocks, got {size}")
    if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
        raise ValueError(
            f"expected uint8 ({-(-size // 8)},) for {size} blocks, got {bits.dtype} {bits.shape}"
        )
    flat = np.unpackbits(bits).astype(np.bool_)
    if flat[size:].any():
        raise ValueError(f"expected zeros after the last of {size} blocks")
    return flat[:size].reshape(shape)


def describe_masks(masks: Mapping[str, BlockMask]) -> dict[str, object]:
    """What JSON must hold beside the bits."""
    return {
        name: {"groups": len(mask.keep), **{field: getattr(mask.grid, field) for field in _FIELDS}}
        | ({} if mask.grid.order == _USUAL else {_ORDER: mask.grid.order})
        for name, mask in masks.items()
    }


def rebuild_masks(description: object, bits: Mapping[str, npt.NDArray[np.uint8]]) -> dict[str, BlockMask]:
    """Masks from ``describe_masks`` and the packed bits by name.

    Raises:
        ValueError: The description is not of that form, or bits do not fit it.
        PysimError: A grid cannot exist.
    """
    if not isinstance(description, dict) or set(description) != set(bits):
        raise ValueError(f"expected a description of each of {len(bits)} masks")
    masks = {}
    for name, fields in description.items():
        if not isinstance(fields, dict) or set(fields) - {_ORDER} != {"groups", *_FIELDS}:
            raise ValueError(f"{name}: expected groups, {', '.join(_FIELDS)}")
        numbers = {field: _count(name, field, value) for field, value in fields.items() if field != _ORDER}
        grid = BlockGrid(**{field: numbers[field] for field in _FIELDS}, order=fields.get(_ORDER, _USUAL))
        try:
            keep = unpack_bits(bits[name], (numbers["groups"], *grid.shape))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        masks[name] = BlockMask(grid=grid, keep=keep)
    return masks


def _count(name: str, field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_BLOCKS:
        raise ValueError(f"{name}: expected {field} from 1 to {_MAX_BLOCKS}, got {value!r}")
    return value
