"""All CUDA sources are built where there is a compiler; what is built where there is none compiles too.

That they compile without a warning is for builds with PYSIM_WERROR=ON: CI's, and make lint's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pysim.sparse import cuda_status

ROOT = Path(__file__).parents[2] / "csrc"
CXX = shutil.which("c++")


def test_every_cuda_source_is_one_of_the_build():
    sources = sorted(path.name for path in (ROOT / "kernels" / "cuda").glob("*.cu"))
    built = re.findall(r"cuda/(\w+\.cu)\b", (ROOT / "kernels" / "CMakeLists.txt").read_text())
    assert sorted(built) == sources != []


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="NO NVCC: the CUDA sources were not compiled")
def test_with_nvcc_the_cuda_backend_is_built():
    assert cuda_status().built


@pytest.mark.skipif(CXX is None, reason="no C++ compiler")
def test_what_stands_in_for_the_cuda_backend_compiles_without_a_warning():
    source = ROOT / "kernels" / "no_cuda" / "cuda_backend.cpp"
    options = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only", f"-I{ROOT}"]
    done = subprocess.run([CXX, *options, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
