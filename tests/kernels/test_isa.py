"""Which instruction set runs: reported, forced, refused; and that no object leaks its instructions."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pysim.sparse import available_isas, isa_report

ROOT = Path(__file__).parents[2]
# Sanitizers add symbols of their own; those objects are never part of the module.
OBJECTS = sorted(
    path
    for path in (ROOT / "build").glob("**/pysim_*.dir/*.o")
    if not path.relative_to(ROOT / "build").parts[0].startswith("sanitize-")
)
ISA_TABLES = {
    "avx2": "kAvx2Kernels",
    "avx512": "kAvx512Kernels",
    "emulated16": "kEmulated16Kernels",
    "array_avx2": "kAvx2Array",
    "array_avx512": "kAvx512Array",
    "bfloat16_avx2": "kAvx2Bfloat16",
    "bfloat16_avx512": "kAvx512Bfloat16",
    "int8_avx2": "kAvx2Int8",
    "int8_avx_vnni": "kAvxVnniInt8",
    "int8_avx512_vnni": "kAvx512VnniInt8",
    "int8_emulated16": "kEmulated16Int8",
}

MULTIPLY = """
import numpy as np
from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.workload import BlockGrid
w = np.arange(60, dtype=np.float32).reshape(6, 10)
x = np.arange(190, dtype=np.float32).reshape(10, 19)
plan = SpmmPlan(BsrMatrix.from_dense(w, BlockGrid(m=6, k=10, bh=4, bw=3)))
assert (plan(x) == w @ x).all()
print(plan.isa)
"""


def _run(code, isa):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYSIM_ISA": isa},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_reference_is_always_there_and_what_is_missing_has_a_reason():
    assert [status.name for status in isa_report()] == ["scalar", "avx2", "avx512"]
    assert available_isas()[0] == "scalar"
    for status in isa_report():
        assert status.available == (status.reason == "")


@pytest.mark.parametrize("name", available_isas())
def test_a_forced_instruction_set_is_the_one_that_runs(name):
    done = _run(MULTIPLY, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name


@pytest.mark.parametrize("name", [*(s.name for s in isa_report() if not s.available), "sse9", "emulated16"])
def test_a_forced_instruction_set_that_is_not_here_is_refused_by_name(name):
    """The module still loads: the error comes from the first product, with what could be had instead."""
    done = _run(f"import pysim._core\nprint('loaded')\n{MULTIPLY}", name)
    assert done.stdout.strip() == "loaded"
    assert f"ConfigError: PYSIM_ISA: expected one of {', '.join(available_isas())}, got {name}" in done.stderr


def _symbols(path):
    lines = subprocess.run(
        ["nm", "--extern-only", "--defined-only", path], capture_output=True, text=True, check=True
    )
    return [line.split()[-2:] for line in lines.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(not OBJECTS, reason="no object files under build/: installed from a wheel")
@pytest.mark.parametrize("name", ISA_TABLES)
def test_an_isa_object_exports_its_table_and_nothing_else(name):
    """A weak symbol would do harm: the linker could pick this copy, for a newer CPU, for everyone."""
    objects = [path for path in OBJECTS if re.match(rf"{name}\.", path.name)]
    if not objects:
        pytest.skip(f"{name} is not part of this build")
    for path in objects:
        table = ISA_TABLES[name]
        ((kind, symbol),) = _symbols(path)
        assert kind in "DR", f"{path}: {symbol} is of kind {kind}"  # a constant, in relocatable or plain form
        assert symbol == f"_ZN5pysim{len(table)}{table}E"


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(not OBJECTS, reason="no object files under build/: installed from a wheel")
def test_the_check_above_can_see_weak_symbols():
    """bsr.cpp uses std::vector, so its object has weak symbols: a blind check would miss them."""
    objects = [path for path in OBJECTS if path.name.startswith("bsr.")]
    assert any(kind in "WVu" for path in objects for kind, _ in _symbols(path))
