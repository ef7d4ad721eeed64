"""What a file may make pysim allocate: about what it holds, whatever it says it holds."""

import gzip
import io
import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from pysim.data.dataset import Dataset
from pysim.data.idx import read_idx
from pysim.errors import DataError


def header(*shape):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def zeros_gz(path, head, megabytes):
    """A gzip file of zeros: a thousandth of what it unpacks to."""
    with gzip.open(path, "wb", 9) as file:
        file.write(head)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return path


def test_a_gzip_bomb_is_refused_before_memory_is_taken(tmp_path):
    path = zeros_gz(tmp_path / "bomb.gz", header(200, 1024, 1024), 200)
    assert path.stat().st_size < 300_000
    with pytest.raises(DataError, match="in a file of this size") as caught:
        read_idx(path, dims=3)
    assert "gunzip" in caught.value.hint


def test_images_that_shrink_as_images_do_are_read_and_so_are_small_files_of_zeros(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, (100, 28, 28)).astype(np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(header(100, 28, 28) + images.tobytes()))
    np.testing.assert_array_equal(read_idx(path, dims=3), images)
    zeros = zeros_gz(tmp_path / "zeros.gz", header(8, 1024, 1024), 8)
    assert not read_idx(zeros, dims=3).any()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on address space")
@pytest.mark.parametrize("shape", [(1 << 20, 40, 40), (1, 1 << 15, 1 << 15)])
def test_a_header_that_promises_gigabytes_costs_none(shape, tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(header(*shape) + b"few")
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import resource, sys
            from pathlib import Path
            from pysim.data.idx import read_idx
            from pysim.errors import DataError
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (taken + (96 << 20), most))
            for name in sys.argv[1:]:
                try:
                    read_idx(Path(name), dims=3)
                except DataError as error:
                    print(error)
            """),
            str(plain),
            str(packed),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_empty_images_of_absurd_sides_are_refused(tmp_path):
    path = tmp_path / "idx"
    path.write_bytes(header(0, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="expected at most"):
        read_idx(path, dims=3)


def dataset(count, side):
    images = np.zeros((count, 1, side, side), np.uint8)
    labels = np.zeros(count, np.uint8)
    return Dataset(
        name="tiny",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        num_classes=10,
        mean=(0.0,),
        std=(1.0,),
    )


def test_padding_many_tiny_images_is_refused_before_memory_is_taken():
    with pytest.raises(DataError, match="bytes of padded images"):
        dataset(3_000_000, 1).padded(32)
    assert dataset(3, 1).padded(32).image_size == (32, 32)


def test_images_without_pixels_are_refused():
    with pytest.raises(DataError, match="at least 1 pixel"):
        dataset(3, 0)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(header(10, 28, 28) + bytes(7840))
    path = tmp_path / "cut.gz"
    path.write_bytes(packed.getvalue()[:-12])
    with pytest.raises(DataError, match=r"cannot be read|truncated"):
        read_idx(path, dims=3)
