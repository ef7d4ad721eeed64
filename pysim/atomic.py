"""Whole-file writes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Calls ``write`` on a temporary neighbour of ``path``, then renames it into place.

    Args:
        path: Where the file is to be; its folder is made if absent.
        write: Fills the file at the path that it is given.

    Raises:
        OSError: The folder cannot be written, or the disk is full; ``path`` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` in one step. See ``write_atomic``."""
    write_atomic(path, lambda temporary: _write_all(temporary, data))


def _write_all(path: Path, data: bytes) -> None:
    path.write_bytes(data)
