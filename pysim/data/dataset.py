"""What every loader returns: images and labels as plain arrays, nothing lazy, nothing on a device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pysim.errors import DataError

UInt8Array = npt.NDArray[np.uint8]

# A set of many tiny images grows a thousandfold when it is padded.
_MAX_PADDED_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Labelled images, split for training and test.

    Args:
        name: Short name, printed with every result.
        train_images: (N, C, H, W) uint8.
        train_labels: (N,) uint8, each below ``num_classes``.
        test_images: (M, C, H, W) uint8.
        test_labels: (M,) uint8, each below ``num_classes``.
        num_classes: Number of labels.
        mean: Per channel, in units of 0..255, subtracted before the network.
        std: Per channel, in units of 0..255, divided by before the network.

    Raises:
        DataError: Shapes disagree, a split is empty, or a label is out of range.
    """

    name: str
    train_images: UInt8Array
    train_labels: UInt8Array
    test_images: UInt8Array
    test_labels: UInt8Array
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for split, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.ndim != 4 or images.dtype != np.uint8:
                raise DataError(
                    f"{self.name} {split} images: expected uint8 (N, C, H, W), "
                    f"got {images.dtype} {images.shape}"
                )
            if images.size == 0:
                raise DataError(
                    f"{self.name} {split} images: expected at least 1 of at least 1 pixel, got {images.shape}"
                )
            if labels.shape != (len(images),) or labels.dtype != np.uint8:
                raise DataError(
                    f"{self.name} {split} labels: expected uint8 ({len(images)},), "
                    f"got {labels.dtype} {labels.shape}"
                )
            if int(labels.max()) >= self.num_classes:
                raise DataError(
                    f"{self.name} {split} labels: expected below {self.num_classes}, "
                    f"got {int(labels.max())} at index {int(labels.argmax())}"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: expected test images of shape {self.train_images.shape[1:]} "
                f"as in training, got {self.test_images.shape[1:]}"
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise DataError(
                f"{self.name}: expected mean and std for {self.channels} channels, "
                f"got {len(self.mean)} and {len(self.std)}"
            )

    @property
    def channels(self) -> int:
        return int(self.train_images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.train_images.shape[2]), int(self.train_images.shape[3])

    def fingerprint(self) -> str:
        """SHA-256 of every image, label and constant: the identity that caches use."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr((self.num_classes, self.mean, self.std)).encode())
        return digest.hexdigest()

    def padded(self, size: int) -> Dataset:
        """The same images with a zero border that brings them to ``size`` x ``size`` pixels."""
        height, width = self.image_size
        if size < max(height, width):
            raise DataError(f"{self.name}: expected a size of at least {max(height, width)}, got {size}")
        images = len(self.train_images) + len(self.test_images)
        if images * self.channels * size * size > _MAX_PADDED_BYTES:
            raise DataError(
                f"{self.name}: expected at most {_MAX_PADDED_BYTES} bytes of padded images, "
                f"got {images} of {size} x {size}"
            )
        top, left = (size - height) // 2, (size - width) // 2
        border = ((0, 0), (0, 0), (top, size - height - top), (left, size - width - left))
        return Dataset(
            name=f"{self.name}-pad{size}",
            train_images=np.pad(self.train_images, border),
            train_labels=self.train_labels,
            test_images=np.pad(self.test_images, border),
            test_labels=self.test_labels,
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
        )
