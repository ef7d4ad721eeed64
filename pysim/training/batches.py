"""Batches of normalised images: channels last; in training cropped, flipped and in seeded order.

The images lie on the device that trains, and are cut there; order, crops and flips are drawn on the CPU, so
that they do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pysim.data import Dataset


class Batches:
    """A data set as torch tensors, cut into batches.

    Args:
        dataset: The images; kept as uint8, normalised batch by batch.
        crop_pad: Zero border in pixels within which training crops move.
        device: Where they are kept and handed out.
    """

    def __init__(self, dataset: Dataset, *, crop_pad: int, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(dataset.mean, dtype=torch.float32).view(shape).to(self.device)
        self._std = torch.tensor(dataset.std, dtype=torch.float32).view(shape).to(self.device)
        self._crop_pad = crop_pad
        self._height, self._width = dataset.image_size
        train = torch.from_numpy(dataset.train_images.copy())
        border = (crop_pad, crop_pad, crop_pad, crop_pad)
        padded = torch.nn.functional.pad(train, border).permute(0, 2, 3, 1).contiguous()
        self._train = padded.to(self.device)
        self._train_labels = torch.from_numpy(dataset.train_labels.astype("int64")).to(self.device)
        self._test = torch.from_numpy(dataset.test_images.copy()).to(self.device)
        self._test_labels = torch.from_numpy(dataset.test_labels.astype("int64")).to(self.device)

    @property
    def train_count(self) -> int:
        return len(self._train_labels)

    @property
    def test_count(self) -> int:
        return len(self._test_labels)

    def train(self, batch_size: int, *, seed: int, epoch: int, flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented (B, C, H, W) float32 batches and (B,) int64 labels; the last may be short.

        The order, crops and flips depend on ``seed`` and ``epoch`` alone, so that a resumed run sees what an
        uninterrupted one would have.
        """
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(self.train_count, generator=generator)
        for indices in order.split(batch_size):
            count = len(indices)
            spots = 2 * self._crop_pad + 1
            top = torch.randint(0, spots, (count, 1), generator=generator)
            left = torch.randint(0, spots, (count, 1), generator=generator)
            rows = top + torch.arange(self._height)
            cols = left + torch.arange(self._width)
            if flip:
                flipped = torch.rand(count, 1, generator=generator) < 0.5
                cols = torch.where(flipped, cols.flip(1), cols)
            indices, rows, cols = (spot.to(self.device) for spot in (indices, rows, cols))
            images = self._train[indices[:, None, None], rows[:, :, None], cols[:, None, :]]
            yield self._normalise(images.permute(0, 3, 1, 2)), self._train_labels[indices]

    def train_head(self, count: int) -> Tensor:
        """The first ``count`` training images, normalised and not augmented."""
        pad = self._crop_pad
        images = self._train[:count, pad : pad + self._height, pad : pad + self._width]
        return self._normalise(images.permute(0, 3, 1, 2))

    def examples(self, batches: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """The first training images and labels, not augmented, in at most ``batches`` batches."""
        count = batches * batch_size
        images, labels = self.train_head(count), self._train_labels[:count]
        return list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def test(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images in file order, as (B, C, H, W) float32 and (B,) int64."""
        for start in range(0, self.test_count, batch_size):
            stop = start + batch_size
            yield self._normalise(self._test[start:stop]), self._test_labels[start:stop]

    def _normalise(self, images: Tensor) -> Tensor:
        scaled = (images.float() - self._mean) / self._std
        return scaled.contiguous(memory_format=torch.channels_last)
