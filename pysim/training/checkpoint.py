"""Checkpoints as safetensors: tensors and a JSON note, no code, written atomically."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pysim.atomic import write_atomic
from pysim.errors import DataError, printable

# Far above any model of this project; a hostile file cannot make us allocate more.
_MAX_BYTES = 4 << 30
_NOTE = "pysim"
_CHECKSUM = "checksum"


def save_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, object]) -> None:
    """Writes ``tensors``, a JSON ``note`` and a checksum of both, atomically.

    Raises:
        OSError: The disk refuses; what was at ``path`` is still there.
    """
    plain: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        # The format has no names for one tensor: what several layers share is written for each of them.
        plain[name] = whole.clone() if whole.data_ptr() in places else whole
        places.add(whole.data_ptr())
    # One key, because the order in which safetensors writes several changes from call to call.
    metadata = {_NOTE: json.dumps(note | {_CHECKSUM: _checksum(plain, note)}, sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # it wraps the system's error
            raise OSError(f"{path}: cannot be written: {error}") from error

    write_atomic(path, write)


def _checksum(tensors: dict[str, Tensor], note: dict[str, object]) -> str:
    as_read = json.loads(json.dumps(note))  # keys are strings from here on, and sorted as such
    digest = hashlib.sha256(json.dumps(as_read, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Reads what ``save_tensors`` wrote; a file without a checksum is read unchecked.

    Raises:
        DataError: Absent, too large, not safetensors, truncated, or not what its checksum says.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: expected at most {_MAX_BYTES} bytes, got {size}")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        note = json.loads(metadata.get(_NOTE, "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable safetensors checkpoint: {printable(error)}") from error
    if not isinstance(note, dict):
        raise DataError(f"{path}: expected a JSON object as note, got {type(note).__name__}")
    if _CHECKSUM in note and note.pop(_CHECKSUM) != _checksum(tensors, note):
        raise DataError(f"{path}: is damaged: its checksum is not that of its content")
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
