"""The hardware notices faults in the engines: each is put into a copy of csrc/sim, and must be found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pybind11
import pytest

from pysim.config import Skip
from tests.rtl.build import missing_tools, program, which
from tests.rtl.model import MODELS
from tests.rtl.with_core import DIFFERENT

ROOT = Path(__file__).parent.parent.parent
SIM = ROOT / "csrc" / "sim"

needs_tools = pytest.mark.skipif(
    bool(missing_tools("verilator", "g++", "cmake", "ninja")),
    reason="ENGINE FAULTS NOT TESTED: needs verilator, g++, cmake and ninja",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A change of one text in one file of csrc/sim, and a mode whose cases must show it.

    Args:
        name: What is wrong.
        file: In csrc/sim.
        old: Occurs exactly once in the file.
        new: What it becomes.
        mode: Dataflow, rows, cols and skip.
    """

    name: str
    file: str
    old: str
    new: str
    mode: tuple[str, int, int, Skip]


FAULTS = (
    Fault(
        name="a serial fold costs a cycle less, in both engines",
        file="schedule.cpp",
        old="2 * array_.rows + array_.cols - 2",
        new="2 * array_.rows + array_.cols - 3",
        mode=("ws", 3, 4, "none"),
    ),
    Fault(
        name="a short fold does not wait for the shadow registers",
        file="schedule.cpp",
        old="stationary ? std::max(depth_, array_.rows)",
        new="stationary ? depth_",
        mode=("ws", 5, 2, "gather"),
    ),
    Fault(
        name="a short fold does not wait for the hold registers",
        file="schedule.cpp",
        old="std::max<std::int64_t>(0, array_.rows - depth)",
        new="std::max<std::int64_t>(0, array_.rows - 1 - depth)",
        mode=("os", 5, 2, "gather"),
    ),
    Fault(
        name="a fold waits a cycle more than it has to, in both engines",
        file="schedule.cpp",
        old="std::max<std::int64_t>(0, array_.rows - depth)",
        new="std::max<std::int64_t>(0, array_.rows + 1 - depth)",
        mode=("os", 5, 2, "gather"),
    ),
    Fault(
        name="the drain is left out of the total of the event engine",
        file="schedule.cpp",
        old="array_.dataflow == Dataflow::os ? array_.rows : 0",
        new="0",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="a block row that lies in a strip in part does not count",
        file="folding.cpp",
        old="ceil_div(feature_end, height)",
        new="std::max(row_begin + 1, feature_end / height)",
        mode=("ws", 5, 2, "gather"),
    ),
    Fault(
        name="only the last block of a chunk decides whether it is kept",
        file="folding.cpp",
        old="any = any || kept_[j] > 0;",
        new="any = kept_[j] > 0;",
        mode=("ws", 3, 4, "tile"),
    ),
    Fault(
        name="the last block column of a reduction tile is not looked at",
        file="folding.cpp",
        old="std::any_of(row + first, row + last + 1,",
        new="std::any_of(row + first, row + std::max(first + 1, last),",
        mode=("is", 5, 2, "gather"),
    ),
    Fault(
        name="columns are combined in rising order of kept blocks",
        file="folding.cpp",
        old="return kept_[a] > kept_[b];",
        new="return kept_[a] < kept_[b];",
        mode=("os", 2, 6, "mux"),
    ),
    Fault(
        name="a multiplexer of two combines nothing",
        file="folding.cpp",
        old="if (limit > 1) open.push_back(slot);",
        new="if (limit > 2) open.push_back(slot);",
        mode=("ws", 4, 3, "mux"),
    ),
    Fault(
        name="groups are counted a column short",
        file="folding.cpp",
        old="feed.col_end = std::min(features, col + per_feed);",
        new="feed.col_end = std::min(features, col + std::max<std::int64_t>(1, per_feed - 1));",
        mode=("os", 3, 7, "group"),
    ),
    Fault(
        name="the first member of a lane is always selected",
        file="operands.h",
        old="if (chosen < 0 || keeps) chosen = i;",
        new="if (chosen < 0) chosen = i;",
        mode=("ws", 2, 6, "mux"),
    ),
    Fault(
        name="a fold's results replace those of the fold before",
        file="stationary_array.h",
        old="*result = add(*result, psum[c]);",
        new="*result = psum[c];",
        mode=("is", 2, 7, "gather"),
    ),
    Fault(
        name="pruned weights that are not skipped count",
        file="cycle_engine.cpp",
        old="if (layer.mask[i * grid.block_cols() + j] != 0) continue;",
        new="continue;",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="a sum is not restarted by the first operand of a fold",
        file="array_kernels-inl.h",
        old="acc = lanes_of(in.tokens[r * in.words + col / 64].first, col) ? Vec<Lane>{} : acc;",
        new="",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="a new weight is multiplied with the member that the old one selected",
        file="array_kernels-inl.h",
        old="store(s.active_select + row + col, first ? load(s.shadow_select + row + col) : select);",
        new="store(s.active_select + row + col, select);",
        mode=("ws", 2, 6, "mux"),
    ),
    Fault(
        name="the third input of a multiplexer is never met",
        file="array_kernels-inl.h",
        old="splat(static_cast<std::int32_t>(i));",
        new="splat(static_cast<std::int32_t>(i > 1 ? 1 : i));",
        mode=("os", 2, 6, "mux"),
    ),
    Fault(
        name="the last of the operands that are pushed side by side is left out",
        file="top_edge.h",
        old="if (line >= image.lines()) continue;",
        new="if (line >= image.lines() - 1) continue;",
        mode=("ws", 3, 4, "none"),
    ),
    Fault(
        name="every group's operand enters where the first group begins",
        file="left_edge.h",
        old="injected_.row(r)[group * feeder_cols_]",
        new="injected_.row(r)[0]",
        mode=("os", 3, 7, "group"),
    ),
    Fault(
        name="a chain stops a cycle before its last result has left",
        file="output_stationary_array.h",
        old="chain_busy_until_ = cycle + rows_ - 1;",
        new="chain_busy_until_ = cycle + rows_ - 2;",
        mode=("os", 3, 4, "none"),
    ),
)


def occurrences(fault: Fault) -> int:
    path = SIM / fault.file
    return path.read_text().count(fault.old) if path.exists() else 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_text_that_a_fault_changes_is_there(fault):
    """Without the tools and the minutes that trying it takes."""
    assert occurrences(fault) == 1, (
        f"csrc/sim/{fault.file} has this text {occurrences(fault)} times: {fault.old}\n"
        f'Put the fault "{fault.name}" where that is now decided, so that it is still shown to be found.'
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A configured copy of the C++ sources, built without a fault."""
    tree = tmp_path_factory.mktemp("core")
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    shutil.copy(ROOT / "CMakeLists.txt", tree)
    configure = [which("cmake"), "-S", str(tree), "-B", str(tree / "build"), "-G", "Ninja"]
    paths = [f"-DCMAKE_MAKE_PROGRAM={which('ninja')}", f"-DPython_EXECUTABLE={sys.executable}"]
    options = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", "-DPYSIM_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
    subprocess.run([*configure, *paths, *options], check=True, capture_output=True)
    built(tree)
    return tree


def built(tree: Path) -> Path:
    """The extension module made of the tree as it is."""
    subprocess.run([which("cmake"), "--build", str(tree / "build")], check=True, capture_output=True)
    (core,) = (tree / "build").rglob("_core*.so")
    return core


def compare(core: Path, mode: tuple[str, int, int, Skip]) -> subprocess.CompletedProcess[str]:
    *shape, _ = mode
    program([next(model for model in MODELS if [model.dataflow, model.rows, model.cols] == shape)])
    command = [sys.executable, "-m", "tests.rtl.with_core", str(core), *map(str, mode)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@needs_tools
def test_the_same_cases_agree_without_a_fault(tree):
    core = built(tree)
    for mode in sorted({fault.mode for fault in FAULTS}):
        done = compare(core, mode)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault, tree):
    copy = tree / "csrc" / "sim" / fault.file
    sound = copy.read_text()
    copy.write_text(sound.replace(fault.old, fault.new))
    try:
        done = compare(built(tree), fault.mode)
    finally:
        copy.write_text(sound)
    assert done.returncode == DIFFERENT, done.stdout + done.stderr
    print(done.stdout)
