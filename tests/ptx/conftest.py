"""The machine with the project's kernels, compiled once, also where several processes share the tests."""

from collections.abc import Iterator

import pytest
from filelock import FileLock

from tests.ptx.simulated import CXX, NVCC, Gpu, build


@pytest.fixture(scope="session")
def simulated_gpu(tmp_path_factory, request) -> Gpu:
    if NVCC is None or CXX is None:
        pytest.skip("NO NVCC OR NO C++ COMPILER: the compiled kernels were not run in software")
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # each worker of pytest-xdist has a folder in that of the run
        shared = shared.parent
    folder = shared / "ptx"
    with FileLock(shared / "ptx.lock"):
        return build(folder)


@pytest.fixture
def with_faults(simulated_gpu) -> Iterator[Gpu]:
    """The same; a module that was replaced is put back."""
    yield simulated_gpu
    for text in simulated_gpu.modules.values():
        simulated_gpu.load(text)
