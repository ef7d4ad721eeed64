"""Ten noisy patterns: enough to exercise the whole walk without data. Says nothing about accuracy."""

from __future__ import annotations

import numpy as np

from pysim.data.dataset import Dataset

_CLASSES = 10
_SIZE = 28


def make_synthetic(
    *, train: int = 1024, test: int = 512, seed: int = 0, shape: tuple[int, int, int] = (1, _SIZE, _SIZE)
) -> Dataset:
    """Images (N, *shape): a fixed random pattern per class plus uniform noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 160, (_CLASSES, *shape))

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, _CLASSES, count).astype(np.uint8)
        images = patterns[labels] + rng.integers(0, 96, (count, *shape))
        return images.astype(np.uint8), labels

    train_images, train_labels = split(train)
    test_images, test_labels = split(test)
    return Dataset(
        name="synthetic",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=_CLASSES,
        mean=(127.0,) * shape[0],
        std=(54.0,) * shape[0],
    )
