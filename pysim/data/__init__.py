"""Labelled images: the embedded Fashion-MNIST subset, IDX, CIFAR-10 and synthetic."""

from __future__ import annotations

from pathlib import Path

from pysim.data.cifar10 import load_cifar10_folder
from pysim.data.dataset import Dataset
from pysim.data.embedded import load_embedded
from pysim.data.idx import load_idx_folder
from pysim.data.synthetic import make_synthetic
from pysim.errors import DataError

__all__ = ["Dataset", "load_dataset"]

_FOLDERS = {"idx": load_idx_folder, "cifar10": load_cifar10_folder}


def load_dataset(spec: str) -> Dataset:
    """Loads the data set that ``spec`` names.

    Args:
        spec: ``fashion-mnist`` (embedded), ``synthetic``, ``idx:DIR`` or ``cifar10:DIR``.

    Raises:
        DataError: The name is unknown, or a file is missing or broken.
    """
    if spec == "fashion-mnist":
        return load_embedded()
    if spec == "synthetic":
        return make_synthetic()
    kind, _, folder = spec.partition(":")
    if kind in _FOLDERS and folder:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise DataError(f"--data {spec}: expected a folder, {path} is not one")
        return _FOLDERS[kind](path)
    raise DataError(
        f"--data: expected fashion-mnist, synthetic, idx:DIR or cifar10:DIR, got {spec!r}",
        hint="fashion-mnist is embedded and needs no download.",
    )
