"""Loaders read what is right and refuse, with a reason, what is not."""

from __future__ import annotations

import contextlib
import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysim.data import load_dataset
from pysim.data.cifar10 import read_cifar10_batch
from pysim.data.embedded import CHECKSUM, PACK, load_embedded, stratified_head, write_pack
from pysim.data.idx import read_idx
from pysim.errors import DataError, PysimError


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx_folder(folder, *, train=20, test=12, compress=False):
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28))
        labels = rng.integers(0, 10, count)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{split}-{kind}-ubyte"
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
            else:
                (folder / name).write_bytes(idx_bytes(array))


@given(shape=st.tuples(*[st.integers(1, 6)] * 3), compress=st.booleans(), seed=st.integers(0, 999))
def test_idx_round_trips(tmp_path_factory, shape, compress, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path_factory.mktemp("idx") / "images"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compress else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path, dims=3), array)


GOOD = idx_bytes(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected an IDX file"),
        (b"\x89PNG" + GOOD, "expected an IDX file"),
        (b"\0\0\x0d\x03" + GOOD[4:], "type 0x08"),
        (idx_bytes(np.zeros(5)), "expected 3 dimension"),
        (GOOD[:9], "truncated in its header"),
        (GOOD[:-1], "truncated, expected 24 bytes"),
        (GOOD + b"x", "oversized"),
        (GOOD[:4] + b"\xff" * 12, "at most"),
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(GOOD[:-1], mtime=0), "truncated"),
        (gzip.compress(GOOD + bytes(100), mtime=0), "oversized"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be read"),
    ],
)
def test_a_broken_idx_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_idx(path, dims=3)


@given(content=st.binary(max_size=64))
def test_no_bytes_make_the_idx_reader_crash(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("idx") / "any"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_idx(path, dims=1).ndim == 1


@pytest.mark.parametrize("compress", [False, True])
def test_an_idx_folder_is_loaded_plain_or_compressed(tmp_path, compress):
    write_idx_folder(tmp_path, compress=compress)
    dataset = load_dataset(f"idx:{tmp_path}")
    assert dataset.train_images.shape == (20, 1, 28, 28)
    assert dataset.test_labels.shape == (12,)
    assert dataset.padded(32).image_size == (32, 32)
    assert dataset.padded(32).test_images.sum() == dataset.test_images.sum()


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    write_idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19)))
    with pytest.raises(DataError, match=r"expected uint8 \(20,\)"):
        load_dataset(f"idx:{tmp_path}")


def test_a_folder_without_idx_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="found neither"):
        load_dataset(f"idx:{tmp_path}")


def cifar_bytes(labels, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    return np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1).tobytes(), images


def test_cifar10_batches_are_read_plane_by_plane(tmp_path):
    content, images = cifar_bytes([3, 9, 0])
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(content)
    dataset = load_dataset(f"cifar10:{tmp_path}")
    assert dataset.train_labels.tolist() == [3, 9, 0, 3, 9, 0]
    assert dataset.test_images.shape == (3, 3, 32, 32)
    assert dataset.test_images[1, 2, 0, 5] == images[1, 2048 + 5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "whole number"),
        (cifar_bytes([1])[0][:-1], "whole number"),
        (cifar_bytes([1])[0] + b"x", "whole number"),
        (cifar_bytes([10])[0], "labels 0..9"),
    ],
)
def test_a_broken_cifar10_batch_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_cifar10_batch(path)


def test_the_pickled_cifar10_is_refused_not_loaded(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="pickle"):
        load_dataset(f"cifar10:{tmp_path}")


def test_the_embedded_set_is_the_documented_one():
    dataset = load_dataset("fashion-mnist")
    assert dataset.name == "fashion-mnist-12k"
    assert np.bincount(dataset.train_labels).tolist() == [1200] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    # Mean and deviation over the whole set are 72.94 and 90.02; a stratified fifth is near them.
    assert abs(dataset.train_images.mean() - 72.94) < 0.5
    assert abs(dataset.train_images.std() - 90.02) < 0.5


def test_a_damaged_pack_is_refused(tmp_path):
    content = bytearray(PACK.read_bytes())
    content[1000] ^= 1
    damaged = tmp_path / "pack"
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        load_embedded(damaged, CHECKSUM)
    with pytest.raises(DataError, match="cannot be read"):
        load_embedded(tmp_path / "absent", CHECKSUM)


def test_packing_needs_the_whole_set(tmp_path):
    write_idx_folder(tmp_path)
    with pytest.raises(DataError, match="10000 test images"):
        write_pack(load_dataset(f"idx:{tmp_path}"), tmp_path / "pack", tmp_path / "sum")


def test_the_stratified_head_takes_the_first_of_every_class_in_file_order():
    labels = np.array([*range(10), *range(10), *range(10)], np.uint8)
    assert stratified_head(labels, 2).tolist() == list(range(20))
    with pytest.raises(DataError, match="expected 4 samples"):
        stratified_head(labels, 4)


@pytest.mark.parametrize("spec", ["", "mnist", "idx", "idx:", "idx:/no/such/folder", "cifar10:/etc/hosts"])
def test_an_unknown_data_set_is_refused(spec):
    with pytest.raises(PysimError, match="--data"):
        load_dataset(spec)
