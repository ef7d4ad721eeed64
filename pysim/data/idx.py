"""IDX files, the format of MNIST and Fashion-MNIST: a big-endian header, then bytes.

Source: the format's description at the end of http://yann.lecun.com/exdb/mnist/.
Only what those sets use is read: unsigned bytes, one or three dimensions.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pysim.data.dataset import Dataset, UInt8Array
from pysim.errors import DataError

_UNSIGNED_BYTE = 0x08
# Forty times the 60,000 images of 28 x 28 of MNIST: a header cannot make us allocate more.
_MAX_BYTES = 2_000_000_000
# Nor can a small compressed file: images shrink to a fifth, and zeros to a thousandth.
_MAX_RATIO = 50
_FREE_BYTES = 64 << 20  # whatever the ratio

# Of the bytes of Fashion-MNIST's 10,000 test images, to know the set whatever its folder is called.
_FASHION_MNIST_TEST_SHA256 = "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"

FASHION_MNIST_MEAN = 72.94
FASHION_MNIST_STD = 90.02


def read_idx(path: Path, *, dims: int) -> UInt8Array:
    """Reads one IDX file of unsigned bytes, plain or gzip (told by content, not by name).

    Args:
        path: The file.
        dims: Dimensions the file must have: 3 for images, 1 for labels.

    Raises:
        DataError: Unreadable, not IDX, another number of dimensions, shorter or longer than its header says.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            size = raw.seek(0, 2)
            raw.seek(0)
            if not compressed:
                return _parse(raw, path, dims, size)
            with gzip.GzipFile(fileobj=raw) as file:
                return _parse(file, path, dims, max(_FREE_BYTES, _MAX_RATIO * size))  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _parse(file: BinaryIO, path: Path, dims: int, most: int) -> UInt8Array:
    """Reads header and body; allocates no more than ``most`` bytes."""
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError(
            f"{path}: expected an IDX file (first bytes 00 00), got {header[:4].hex(' ') or 'an empty file'}"
        )
    if header[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: expected IDX type 0x08 (unsigned byte), got 0x{header[2]:02x}")
    if header[3] != dims:
        raise DataError(
            f"{path}: expected {dims} dimension(s), got {header[3]}",
            hint="Are the image and the label file exchanged?",
        )
    sizes = file.read(4 * dims)
    if len(sizes) < 4 * dims:
        raise DataError(f"{path}: truncated in its header, {4 + len(sizes)} of {4 + 4 * dims} bytes")
    shape = struct.unpack(f">{dims}I", sizes)
    total = math.prod(shape)
    sides = math.prod(size for size in shape if size)  # numpy has limits for empty arrays, too
    if sides > _MAX_BYTES:
        raise DataError(f"{path}: expected at most {_MAX_BYTES} bytes, its header asks for {sides}")
    if total > most and isinstance(file, gzip.GzipFile):
        raise DataError(
            f"{path}: expected at most {most} bytes in a file of this size, its header asks for {total}",
            hint="If it is right, unpack it with gunzip.",
        )
    body = np.empty(min(total, most), dtype=np.uint8)
    got = 0
    while got < len(body) and (piece := file.readinto(body.data[got:])):  # type: ignore[attr-defined]
        got += piece
    if got < total:
        raise DataError(f"{path}: truncated, expected {total} bytes of data for shape {shape}, got {got}")
    if file.read(1):
        raise DataError(f"{path}: oversized, data goes on after the {total} bytes of shape {shape}")
    return body.reshape(shape)


def load_idx_folder(folder: Path) -> Dataset:
    """Loads the four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, each plain or ``.gz``.

    Normalisation is Fashion-MNIST's (mean 72.94, standard deviation 90.02 of 255) whatever the images.

    Raises:
        DataError: A file is absent or broken, or images and labels differ in number.
    """
    arrays = {}
    for split in ("train", "t10k"):
        for kind, dims in (("images-idx3", 3), ("labels-idx1", 1)):
            arrays[split, kind] = read_idx(_find(folder, f"{split}-{kind}-ubyte"), dims=dims)
    classes = 1 + max(
        (int(arrays[split, "labels-idx1"].max(initial=0)) for split in ("train", "t10k")), default=0
    )
    test = arrays["t10k", "images-idx3"]
    is_fashion = hashlib.sha256(test.data).hexdigest() == _FASHION_MNIST_TEST_SHA256
    count = len(arrays["train", "images-idx3"])
    return Dataset(
        name=f"fashion-mnist-{count // 1000}k" if is_fashion else f"idx:{folder.name}",
        train_images=arrays["train", "images-idx3"][:, None],
        train_labels=arrays["train", "labels-idx1"],
        test_images=test[:, None],
        test_labels=arrays["t10k", "labels-idx1"],
        num_classes=max(classes, 10),
        mean=(FASHION_MNIST_MEAN,),
        std=(FASHION_MNIST_STD,),
    )


def _find(folder: Path, stem: str) -> Path:
    for name in (stem, f"{stem}.gz"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder}: expected {stem} or {stem}.gz, found neither",
        hint="Debian's package dataset-fashion-mnist has them in /usr/share/datasets/fashion-mnist.",
    )
