"""The masks of a study's first seed beside its results, as packed bits, so that they can be timed later.

One safetensors file: a tensor of bits for each weight of each network, and in its note how they are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pysim.errors import DataError, PysimError
from pysim.pruning import describe_masks, pack_bits, rebuild_masks
from pysim.result import Block
from pysim.training import load_tensors, save_tensors
from pysim.workload import BlockMask

_KIND = "pysim masks of a study"
_SCHEMA = 1

NetworkMasks = Mapping[str, Mapping[str, BlockMask]]
"""Masks by weight's name, by ``network_name``."""


def network_name(block: Block, sparsity: float) -> str:
    """Of one network of one seed."""
    return f"{block[0]}x{block[1]} {sparsity!r}"


def masks_path(results: Path) -> Path:
    """Beside the results file."""
    return results.with_suffix(".masks.safetensors")


def save_network_masks(path: Path, study: str, preset: str, networks: NetworkMasks) -> None:
    """Writes the file atomically. Raises OSError if the disk refuses."""
    tensors = {
        f"{network}/{name}": torch.from_numpy(pack_bits(mask.keep))
        for network, masks in networks.items()
        for name, mask in masks.items()
    }
    note: dict[str, object] = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "study": study,
        "preset": preset,
        "networks": {network: describe_masks(masks) for network, masks in networks.items()},
    }
    save_tensors(path, tensors, note)


def load_network_masks(path: Path, study: str, preset: str) -> dict[str, dict[str, BlockMask]]:
    """What ``save_network_masks`` wrote.

    Raises:
        DataError: Absent, damaged, or of another study or preset.
    """
    tensors, note = load_tensors(path)
    for field, expected in (("kind", _KIND), ("schema", _SCHEMA), ("study", study), ("preset", preset)):
        if note.get(field) != expected:
            raise DataError(f"{path}: expected {field} {expected!r}, got {note.get(field)!r}")
    described = note.get("networks")
    if not isinstance(described, dict):
        raise DataError(f"{path}: expected a description of each network, got {type(described).__name__}")
    found = {}
    for network, description in described.items():
        start = f"{network}/"
        bits = {n.removeprefix(start): t.numpy() for n, t in tensors.items() if n.startswith(start)}
        try:
            found[network] = rebuild_masks(description, bits)
        except (TypeError, ValueError, PysimError) as error:
            raise DataError(f"{path}: {network}: its masks cannot be read: {error}") from error
    return found
