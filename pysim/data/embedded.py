"""The Fashion-MNIST subset that ships with the package, and how it is packed.

The official 10,000 test images and the first stratified 12,000 training images (the first 1,200 of each
class, in file order) are one xz stream: test images, test labels, training images, training labels.
Fashion-MNIST is (c) 2017 Zalando SE, MIT licence; see FASHION_MNIST_LICENSE beside the pack.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import numpy as np

from pysim.atomic import write_bytes_atomic
from pysim.data.dataset import Dataset, UInt8Array
from pysim.data.idx import FASHION_MNIST_MEAN, FASHION_MNIST_STD
from pysim.errors import DataError

PACK = Path(__file__).parent / "fashion_mnist_subset.bin.xz"
CHECKSUM = Path(__file__).parent / "fashion_mnist_subset.sha256"

_CLASSES = 10
_TEST = 10_000
_TRAIN = 12_000
_PIXELS = 28 * 28
_UNPACKED_BYTES = (_TEST + _TRAIN) * (_PIXELS + 1)


def stratified_head(labels: UInt8Array, per_class: int) -> np.ndarray:
    """Indices of the first ``per_class`` samples of every class, in file order: (classes * per_class,)."""
    chosen = [np.flatnonzero(labels == label)[:per_class] for label in range(_CLASSES)]
    if any(len(indices) < per_class for indices in chosen):
        raise DataError(
            f"expected {per_class} samples of each of {_CLASSES} classes, got {[len(c) for c in chosen]}"
        )
    return np.sort(np.concatenate(chosen))


def write_pack(full: Dataset, pack: Path, checksum: Path) -> None:
    """Packs the subset of the whole Fashion-MNIST set, and its SHA-256, each written atomically.

    Raises:
        DataError: ``full`` is not Fashion-MNIST by its shapes.
    """
    if full.test_images.shape != (_TEST, 1, 28, 28):
        raise DataError(f"expected {_TEST} test images of 1 x 28 x 28, got {full.test_images.shape}")
    train = stratified_head(full.train_labels, _TRAIN // _CLASSES)
    raw = b"".join(
        np.ascontiguousarray(array).tobytes()
        for array in (
            full.test_images,
            full.test_labels,
            full.train_images[train],
            full.train_labels[train],
        )
    )
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
    packed = lzma.compress(raw, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
    write_bytes_atomic(pack, packed)
    write_bytes_atomic(checksum, f"{hashlib.sha256(packed).hexdigest()}  {pack.name}\n".encode())


def load_embedded(pack: Path = PACK, checksum: Path = CHECKSUM) -> Dataset:
    """Unpacks the embedded subset after checking its SHA-256.

    Raises:
        DataError: The pack is absent, its checksum differs, or it is not of the expected length.
    """
    try:
        packed = pack.read_bytes()
        expected = checksum.read_text().split()[0]
    except (OSError, IndexError) as error:
        raise DataError(f"{pack}: cannot be read: {error}", hint="Reinstall pysim.") from error
    actual = hashlib.sha256(packed).hexdigest()
    if actual != expected:
        raise DataError(f"{pack}: expected SHA-256 {expected}, got {actual}", hint="Reinstall pysim.")
    try:
        raw = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(packed, _UNPACKED_BYTES + 1)
    except lzma.LZMAError as error:
        raise DataError(f"{pack}: not an xz stream: {error}") from error
    if len(raw) != _UNPACKED_BYTES:
        raise DataError(f"{pack}: expected {_UNPACKED_BYTES} bytes unpacked, got {len(raw)}")
    data = np.frombuffer(raw, dtype=np.uint8)
    cuts = np.cumsum([_TEST * _PIXELS, _TEST, _TRAIN * _PIXELS])
    test_images, test_labels, train_images, train_labels = np.split(data, cuts)
    return Dataset(
        name="fashion-mnist-12k",
        train_images=train_images.reshape(-1, 1, 28, 28),
        train_labels=train_labels,
        test_images=test_images.reshape(-1, 1, 28, 28),
        test_labels=test_labels,
        num_classes=_CLASSES,
        mean=(FASHION_MNIST_MEAN,),
        std=(FASHION_MNIST_STD,),
    )
