"""The machine with the project's kernels, compiled once."""

from collections.abc import Iterator

import pytest

from tests.ptx.simulated import CXX, NVCC, Gpu, build


@pytest.fixture(scope="session")
def simulated_gpu(tmp_path_factory) -> Gpu:
    if NVCC is None or CXX is None:
        pytest.skip("NO NVCC OR NO C++ COMPILER: the compiled kernels were not run in software")
    return build(tmp_path_factory.mktemp("ptx"))


@pytest.fixture
def with_faults(simulated_gpu) -> Iterator[Gpu]:
    """The same; a module that was replaced is put back."""
    yield simulated_gpu
    for text in simulated_gpu.modules.values():
        simulated_gpu.load(text)
