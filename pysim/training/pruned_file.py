"""A pruned network as one safetensors file: weights, bit-packed masks, and where both come from.

The file holds numbers, bits and JSON, no code. What is read is checked against the network that it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, DataError, PysimError
from pysim.pruning import (
    LAYOUTS,
    PruneConfig,
    check_layout,
    check_masks,
    describe_masks,
    element_masks,
    pack_bits,
    rebuild_masks,
)
from pysim.training.checkpoint import check_state, load_tensors, save_tensors
from pysim.workload import BlockMask

_KIND = "pysim pruned network"
_SCHEMA = 1
_MASK = "mask."


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedFile:
    """What a file says, checked.

    Args:
        masks: Weight name to block mask.
        prune: How the masks were chosen.
        facts: Data, seed, method, versions, accuracies and history, as JSON values.
    """

    masks: dict[str, BlockMask]
    prune: PruneConfig
    facts: dict[str, object]


def mask_tensors(masks: Mapping[str, BlockMask]) -> dict[str, Tensor]:
    """Masks as packed bits, under names that no weight has."""
    return {_MASK + name: torch.from_numpy(pack_bits(mask.keep)) for name, mask in masks.items()}


def split_masks(
    path: Path, tensors: Mapping[str, Tensor], description: object
) -> tuple[dict[str, Tensor], dict[str, BlockMask]]:
    """A file's weights and its masks. Raises DataError if the masks cannot be rebuilt."""
    bits = {n.removeprefix(_MASK): t for n, t in tensors.items() if n.startswith(_MASK)}
    try:
        masks = rebuild_masks(description, {name: tensor.numpy() for name, tensor in bits.items()})
    except (TypeError, ValueError, PysimError) as error:
        raise DataError(f"{path}: its masks cannot be read: {error}") from error
    return {n: t for n, t in tensors.items() if not n.startswith(_MASK)}, masks


def save_pruned(
    path: Path,
    model_name: str,
    model: nn.Module,
    masks: Mapping[str, BlockMask],
    prune: PruneConfig,
    facts: Mapping[str, object],
) -> None:
    """Writes the file atomically. Raises OSError if the disk refuses."""
    note: dict[str, object] = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "layout": prune.layout,
        "model": model_name,
        "prune": _prune_json(prune),
        "masks": describe_masks(masks),
        "facts": dict(facts),
    }
    save_tensors(path, model.state_dict() | mask_tensors(masks), note)


def _prune_json(prune: PruneConfig) -> dict[str, object]:
    fields = {name: getattr(prune, name) for name in PruneConfig.__dataclass_fields__}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def is_pruned_file(path: Path) -> bool:
    """Whether ``path`` is a readable checkpoint that holds masks. Raises DataError if it is not readable."""
    _, note = load_tensors(path)
    return note.get("kind") == _KIND


def load_pruned(path: Path, model_name: str, model: nn.Module) -> PrunedFile:
    """Puts the file's weights into ``model``.

    Raises:
        DataError: The file is damaged, holds no masks, is of another model, layout or newer schema, or a
            pruned weight is not zero.
    """
    tensors, note = load_tensors(path)
    if note.get("kind") != _KIND:
        raise DataError(f"{path}: expected a pruned network, got a checkpoint without masks")
    for field, expected in (("schema", _SCHEMA), ("model", model_name)):
        if note.get(field) != expected:
            raise DataError(
                f"{path}: expected {field} {expected!r}, got {note.get(field)!r}",
                hint="Masks hold only for the model that they were made for.",
            )
    if note.get("layout") not in LAYOUTS:
        raise DataError(f"{path}: expected a layout of {', '.join(LAYOUTS)}, got {note.get('layout')!r}")
    weights, masks = split_masks(path, tensors, note.get("masks"))
    check_state(path, weights, model.state_dict())
    try:
        prune = _read_prune(note.get("prune"))
        check_masks(model, masks)
        check_layout(model, masks, prune.layout)
    except (PysimError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if prune.layout != note["layout"]:
        raise DataError(f"{path}: expected layout {note['layout']!r} in its settings, got {prune.layout!r}")
    blocks = {(mask.grid.bh, mask.grid.bw) for mask in masks.values()}
    if blocks != {prune.block}:
        raise DataError(f"{path}: expected masks of block {prune.block}, got {sorted(blocks)}")
    for name, keep in element_masks(model, masks).items():
        if bool(weights[name][~keep].any()):
            raise DataError(f"{path}: {name}: expected zeros where its mask prunes, got other weights")
    model.load_state_dict(weights)
    facts = note.get("facts")
    if not isinstance(facts, dict):
        raise DataError(f"{path}: expected facts as a JSON object, got {type(facts).__name__}")
    return PrunedFile(masks=masks, prune=prune, facts=facts)


def _read_prune(fields: object) -> PruneConfig:
    kinds: dict[str, type | tuple[type, ...]] = {
        "block": list,
        "sparsity": (int, float),
        "prune_all": bool,
        "score": str,
        "scope": str,
        "layout": str,
        "structured": bool,
        "mask": str,
        "only": list,
        "keep_dense": list,
        "seed": int,
    }
    if isinstance(fields, dict):
        fields = {"layout": "kh,kw,cin", **fields}  # files from before there were others do not say it
    if not isinstance(fields, dict) or set(fields) != set(kinds):
        raise ValueError(f"expected the settings {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(fields[name], kind):
            raise ValueError(f"{name}: got {fields[name]!r}")
    numbers, patterns = fields["block"], [*fields["only"], *fields["keep_dense"]]
    if not all(type(n) is int for n in numbers) or not all(isinstance(p, str) for p in patterns):
        raise ValueError(f"expected a block of integers and patterns of text, got {numbers} and {patterns}")
    try:
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return PruneConfig(**values)
    except ConfigError as error:
        raise ValueError(str(error)) from error
