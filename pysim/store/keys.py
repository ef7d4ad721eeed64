"""Content keys: two pieces of work share a key only if every setting, every input byte and the code agree."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pysim
from pysim.errors import DataError

_KEY_SCHEMA = 1


def cache_folder() -> Path:
    """``PYSIM_CACHE`` if set, else ``~/.cache/pysim``. Not made here."""
    return Path(os.environ.get("PYSIM_CACHE") or Path.home() / ".cache" / "pysim")


def content_key(fields: Mapping[str, object]) -> str:
    """32 hex digits for ``fields`` (whatever JSON can hold), pysim's version and the key's own schema."""
    whole = {"key_schema": _KEY_SCHEMA, "pysim_version": pysim.__version__, "fields": fields}
    text = json.dumps(whole, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def data_identity(spec: str) -> str:
    """What ``--data`` stands for, by content: for a folder, a hash of its files."""
    kind, _, folder = spec.partition(":")
    if not folder or kind == "synthetic":
        return spec
    paths = [path for path in sorted(Path(folder).expanduser().glob("*")) if path.is_file()]
    return content_key({"kind": kind, "files": [[path.name, file_digest(path)] for path in paths]})


@functools.cache
def source_digest(packages: tuple[str, ...]) -> str:
    """SHA-256 over the Python sources of the named parts of pysim: the code's version between releases."""
    root = Path(pysim.__file__).parent
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
