"""CIFAR-10, binary version: records of 1 label byte and 3072 image bytes, planes of 32 x 32.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is a pickle and is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pysim.data.dataset import Dataset, UInt8Array
from pysim.errors import DataError

_RECORD_BYTES = 1 + 3 * 32 * 32
_MAX_RECORDS = 1_000_000

# Per channel over the 50,000 training images, of 255; the values in common use.
_MEAN = (125.3, 123.0, 113.9)
_STD = (63.0, 62.1, 66.7)


def read_cifar10_batch(path: Path) -> tuple[UInt8Array, UInt8Array]:
    """Reads one ``.bin`` batch of any number of records.

    Returns:
        Images (N, 3, 32, 32) and labels (N,), both uint8.

    Raises:
        DataError: Unreadable, empty, not a whole number of records, too large, or a label above 9.
    """
    try:
        size = path.stat().st_size
        if size == 0 or size % _RECORD_BYTES:
            raise DataError(
                f"{path}: expected a whole number of {_RECORD_BYTES}-byte records, got {size} bytes",
                hint="Is the file truncated, or is it the Python version? Only the binary version is read.",
            )
        if size > _MAX_RECORDS * _RECORD_BYTES:
            raise DataError(f"{path}: expected at most {_MAX_RECORDS} records, got {size // _RECORD_BYTES}")
        records = np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    labels = records[:, 0].copy()
    if int(labels.max()) > 9:
        raise DataError(
            f"{path}: expected labels 0..9, got {int(labels.max())} in record {int(labels.argmax())}",
            hint="CIFAR-100 has two label bytes a record and is not read.",
        )
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels


def load_cifar10_folder(folder: Path) -> Dataset:
    """Loads every ``data_batch_*.bin`` and ``test_batch.bin`` of ``folder``.

    Raises:
        DataError: A file is absent or broken.
    """
    batches = sorted(folder.glob("data_batch_*.bin"))
    test = folder / "test_batch.bin"
    if not batches or not test.is_file():
        pickled = (folder / "data_batch_1").is_file()
        raise DataError(
            f"{folder}: expected data_batch_*.bin and test_batch.bin, found "
            + ("the Python version, which is a pickle and is not read" if pickled else "none of them"),
            hint="Unpack cifar-10-binary.tar.gz and name the folder cifar-10-batches-bin.",
        )
    parts = [read_cifar10_batch(path) for path in batches]
    test_images, test_labels = read_cifar10_batch(test)
    return Dataset(
        name="cifar10",
        train_images=np.concatenate([images for images, _ in parts]),
        train_labels=np.concatenate([labels for _, labels in parts]),
        test_images=test_images,
        test_labels=test_labels,
        num_classes=10,
        mean=_MEAN,
        std=_STD,
    )
