"""The CUDA sources compile without a warning, where there is a compiler.

For both architectures, or for the one that has clusters.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "csrc"
NVCC = shutil.which("nvcc")
SOURCES = sorted((ROOT / "kernels" / "cuda").glob("*.cu"))


def test_there_are_cuda_sources():
    kernels = [f"kernels_{math}.cu" for math in ("bf16", "f16", "f32", "i8", "tf32")]
    assert [path.name for path in SOURCES] == ["cluster.cu", "cuda_backend.cu", "kernels.cu", *kernels]


@pytest.mark.skipif(NVCC is None, reason="NO NVCC: the CUDA sources were not compiled")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_compiles_without_a_warning(source, tmp_path):
    # Optimised code is built by the module itself; here it is the language and the PTX that are checked.
    options = subprocess.run([NVCC, "--help"], capture_output=True, text=True, check=True).stdout
    quick = ["-Ofc", "max"] if "--Ofast-compile" in options else []
    command = [NVCC, "-std=c++20", *quick, "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    for architecture in ("90a",) if source.name == "cluster.cu" else (80, 90):
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    command += [f"-I{ROOT}", "-c", str(source), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
