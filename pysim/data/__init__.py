"""Labelled images: the embedded Fashion-MNIST subset, IDX, CIFAR-10 and synthetic."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pysim.data.cifar10 import load_cifar10_folder
from pysim.data.dataset import Dataset
from pysim.data.embedded import load_embedded
from pysim.data.idx import load_idx_folder
from pysim.data.synthetic import make_synthetic
from pysim.errors import DataError

__all__ = ["Dataset", "load_dataset"]

# 1,536 images of 3 x 224 x 224 are 231 MB.
_MAX_PIXELS = 3 * 224 * 224
_FOLDERS = {"idx": load_idx_folder, "cifar10": load_cifar10_folder}


def load_dataset(spec: str) -> Dataset:
    """Loads the data set that ``spec`` names.

    Args:
        spec: ``fashion-mnist`` (embedded), ``synthetic``, ``synthetic:CxHxW``, ``idx:DIR`` or
            ``cifar10:DIR``.

    Raises:
        DataError: The name is unknown, or a file is missing or broken.
    """
    if spec == "fashion-mnist":
        return load_embedded()
    if spec == "synthetic":
        return make_synthetic()
    kind, _, folder = spec.partition(":")
    if kind == "synthetic" and folder:
        match = re.fullmatch(r"(\d{1,4})x(\d{1,4})x(\d{1,4})", folder)
        shape = (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
        if min(shape) < 1 or math.prod(shape) > _MAX_PIXELS:
            raise DataError(
                f"--data {spec}: expected synthetic:CxHxW with at most {_MAX_PIXELS} values an image"
            )
        return make_synthetic(shape=shape)
    if kind in _FOLDERS and folder:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise DataError(f"--data {spec}: expected a folder, {path} is not one")
        return _FOLDERS[kind](path)
    raise DataError(
        f"--data: expected fashion-mnist, synthetic, idx:DIR or cifar10:DIR, got {spec!r}",
        hint="fashion-mnist is embedded and needs no download.",
    )
