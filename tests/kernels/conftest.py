"""Every kernel test runs on every instruction set of this machine, and on the 16-lane body made of AVX2."""

import pytest

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
