"""The CUDA kernels as nvcc compiles them to PTX, run in software by way of cuda_backend.cu.

machine.h says what the machine checks, runtime.cpp stands in for the CUDA runtime.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
NVCC = shutil.which("nvcc")
CXX = shutil.which("c++")
# The one architecture that all kernels compile for.
ARCHITECTURE = "compute_90a"


class PtxError(Exception):
    """What a GPU would not allow or does not define."""


class _Region(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_int64),
        ("writable", ctypes.c_int32),
        ("name", ctypes.c_char_p),
    )


class Counts(ctypes.Structure):
    """What the last run did; see machine.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "instructions",
            "products",
            "shared_wavefronts",
            "shared_ideal",
            "copied_bytes",
            "fetched_bytes",
            "global_read_sectors",
            "missed_sectors",
            "global_written_sectors",
        )
    )


@dataclass(frozen=True)
class Memory:
    """Bytes that a kernel may touch."""

    name: str
    address: int
    bytes: int
    writable: bool = False


def memory_of(name: str, array: npt.NDArray[Any], *, writable: bool = False) -> Memory:
    """A contiguous array as a kernel's memory."""
    return Memory(name, array.ctypes.data, array.nbytes, writable)


class Gpu:
    """The machine with the project's kernels in it."""

    def __init__(self, library: Path, modules: dict[str, str]) -> None:
        self.modules = modules
        self._library = ctypes.CDLL(str(library))
        for name in ("ptx_load", "ptx_product", "ptx_run", "ptx_launched"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._library.ptx_counts.restype = Counts
        for text in modules.values():
            self.load(text)

    def load(self, text: str) -> None:
        """Adds a module, or replaces one that has the same entries."""
        self._require(self._library.ptx_load(text.encode()))

    def product(self, launches: bytes, memory: list[Memory], seed: int) -> list[str]:
        """Runs what ``GpuPlan.run`` would launch on a GPU; the kernels' mangled names."""
        self._require(
            self._library.ptx_product(
                launches,
                ctypes.c_int64(len(launches)),
                _regions(memory),
                len(memory),
                ctypes.c_uint64(seed),
            )
        )
        return str(self._library.ptx_launched().decode()).split()

    def run(
        self,
        name: str,
        parameters: bytes,
        memory: list[Memory],
        *,
        ctas: int = 1,
        threads: int = 32,
        shared_bytes: int = 0,
        cluster: int = 1,
        seed: int = 0,
    ) -> None:
        """Runs one entry."""
        self._require(
            self._library.ptx_run(
                name.encode(),
                parameters,
                ctypes.c_int64(ctas),
                threads,
                ctypes.c_int64(shared_bytes),
                cluster,
                _regions(memory),
                len(memory),
                ctypes.c_uint64(seed),
            )
        )

    @property
    def counts(self) -> dict[str, int]:
        counts = self._library.ptx_counts()
        return {str(name): int(getattr(counts, name)) for name, *_ in Counts._fields_}

    @staticmethod
    def _require(error: bytes | None) -> None:
        if error is not None:
            raise PtxError(error.decode())


def _regions(memory: list[Memory]) -> ctypes.Array[_Region]:
    return (_Region * len(memory))(
        *(_Region(m.address, m.bytes, int(m.writable), m.name.encode()) for m in memory)
    )


def build(folder: Path) -> Gpu:
    """Compiles kernels and machine in a folder that has nothing else, or takes what is there already.

    Needs nvcc and a C++ compiler; two run at a time.
    """
    kernels = sorted((CSRC / "kernels" / "cuda").glob("*.cu"))
    library = folder / "libptx.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        _build(folder, kernels, library)
    modules = {source.stem: (folder / f"{source.stem}.ptx").read_text() for source in kernels}
    return Gpu(library, modules)


def _build(folder: Path, kernels: list[Path], library: Path) -> None:
    machine = sorted(HERE.glob("*.cpp"))
    to_ptx = [str(NVCC), "-gencode", f"arch={ARCHITECTURE},code={ARCHITECTURE}"]
    to_ptx += ["-Xcompiler=-fPIC", "--keep", "--keep-dir", str(folder)]
    # The runtime includes CUDA's headers, whose place nvcc knows.
    with_cuda = [str(NVCC), "-x", "c++", "-O2", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    plain = [str(CXX), "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    compilers = [to_ptx] * len(kernels) + [
        with_cuda if source.name == "runtime.cpp" else plain for source in machine
    ]
    objects = [folder / f"{source.stem}.o" for source in kernels + machine]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_compile, compilers, kernels + machine, objects))
    _call([str(CXX), "-shared", "-Wl,-z,defs", "-o", str(library), *map(str, objects)])


def _compile(compiler: list[str], source: Path, to: Path) -> None:
    _call([*compiler, "-std=c++20", f"-I{CSRC}", f"-I{HERE.parent}", "-c", str(source), "-o", str(to)])


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


class Simulated:
    """A core plan whose products run in the machine instead of the emulation."""

    def __init__(self, plan: Any, gpu: Gpu, seed: int) -> None:
        self._plan, self._gpu, self._seed = plan, gpu, seed
        self.launched: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def run(self, *, device: int, stream: int, **operands: Any) -> str:
        """As the core's, whose answer is the first kernel's kind."""
        launches = self._plan.launches(**operands)
        memory = [
            Memory(name, *operands[name], writable=name in ("y", "workspace"))
            for name in ("image", "weights", "x", "y", "bias", "workspace")
            if operands[name] is not None
        ]
        self.launched = self._gpu.product(launches, memory, self._seed)
        kinds = {"panel_kernel": "panel", "cluster_kernel": "cluster", "decode_kernel": "few columns"}
        return next(
            (kind for name, kind in kinds.items() if self.launched and name in self.launched[0]), "none"
        )
