"""Every kernel test runs on every instruction set of this machine, and on the 16-lane body made of AVX2."""

import pytest
import torch

from pysim.sparse import available_isas

# The AVX-512 body needs no AVX-512 to be tested: "emulated16" is the same source on pairs of AVX2 registers.
_EMULATED = pytest.param(
    "emulated16",
    marks=pytest.mark.skipif(
        "avx2" not in available_isas(), reason="emulated16 needs AVX2, which is not here"
    ),
)


@pytest.fixture(params=[*available_isas(), _EMULATED], scope="session")
def isa(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread():
    """For torch's own references, which are small; the kernels are told their number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
