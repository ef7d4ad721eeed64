"""Checkpoints as safetensors: tensors and a JSON note, no code, written atomically."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pysim.atomic import write_atomic
from pysim.errors import DataError

# Far above any model of this project; a hostile file cannot make us allocate more.
_MAX_BYTES = 4 << 30
_NOTE = "pysim"


def save_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, object]) -> None:
    """Writes ``tensors`` and a JSON ``note`` atomically. Raises OSError if the disk refuses."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {_NOTE: json.dumps(note, sort_keys=True)}
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Reads what ``save_tensors`` wrote.

    Raises:
        DataError: Absent, too large, not safetensors, or truncated.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: expected at most {_MAX_BYTES} bytes, got {size}")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        note = json.loads(metadata.get(_NOTE, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not a readable safetensors checkpoint: {error}") from error
    if not isinstance(note, dict):
        raise DataError(f"{path}: expected a JSON object as note, got {type(note).__name__}")
    return tensors, note


def load_weights(model: nn.Module, path: Path) -> dict[str, object]:
    """Loads a checkpoint into ``model`` and returns its note.

    Raises:
        DataError: The file is broken, or its tensors are not the model's.
    """
    tensors, note = load_tensors(path)
    check_state(path, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return note


def check_state(path: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises DataError, naming the first difference, unless names, shapes and types agree."""
    for name, tensor in expected.items():
        if name not in tensors:
            raise DataError(f"{path}: tensor {name!r} is missing")
        if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
            raise DataError(
                f"{path}: {name}: expected {tensor.dtype} {tuple(tensor.shape)}, "
                f"got {tensors[name].dtype} {tuple(tensors[name].shape)}"
            )
        if torch.is_floating_point(tensor) and not bool(torch.isfinite(tensors[name]).all()):
            raise DataError(f"{path}: {name} holds values that are not finite")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise DataError(f"{path}: {len(extra)} unexpected tensor(s), the first {extra[0]!r}")
