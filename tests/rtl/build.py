"""Verilates hdl/ and links it with harness.cpp: one program for any number of parameter sets."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.rtl.model import Model

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted((FOLDER / "hdl").glob("*.sv")))
HARNESS = FOLDER / "harness.cpp"
CACHE = FOLDER.parent.parent / "build" / "rtl"

_CXX = [os.environ.get("CXX", "g++"), "-std=c++17", "-O1", "-pthread"]


def which(tool: str) -> str | None:
    """Where a program is: beside this Python, or on the path."""
    beside = Path(sys.executable).parent
    return shutil.which(tool, path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))


def missing_tools(*tools: str) -> list[str]:
    """Those of the programs that are not here."""
    return [tool for tool in tools if which(tool) is None]


def program(models: Sequence[Model], sources: Sequence[Path] = SOURCES, *, trace: bool = False) -> Path:
    """The harness linked with these models, built unless it is in build/rtl already.

    Raises:
        subprocess.CalledProcessError: A tool refused the sources; its output is printed.
    """
    texts = [path.read_bytes() for path in (*sources, HARNESS)]
    return _cached(
        (models, trace, [path.name for path in sources], texts),
        lambda folder: _build(folder, models, sources, trace),
        "rtl",
    )


def lint(model: Model, sources: Sequence[Path] = SOURCES) -> str:
    """What ``verilator --lint-only -Wall`` has to say; empty is good."""
    done = subprocess.run(
        ["verilator", "--lint-only", "-Wall", *_parameters(model), *map(str, sources)],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def _parameters(model: Model) -> list[str]:
    return ["--top-module", "bench", *(f"-G{name}={value}" for name, value in model.parameters.items())]


def _cached(content: object, build: Callable[[Path], None], target: str) -> Path:
    """The file ``target`` that ``build`` makes in an empty folder; kept in build/rtl for the same content."""
    key = repr((_version(), Path(__file__).read_bytes(), content))
    path = CACHE / hashlib.sha256(key.encode()).hexdigest()[:24] / target
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        build(Path(name))
        path.parent.mkdir(exist_ok=True)
        (Path(name) / target).replace(path)
    return path


def _build(folder: Path, models: Sequence[Model], sources: Sequence[Path], trace: bool) -> None:
    (folder / "models.h").write_text(_models_header(models))

    def verilate(model: Model) -> Path:
        """Object file of one model."""
        made = folder / model.name
        verilator = [
            "verilator",
            "--cc",
            "--no-timing",
            "-O3",
            "--x-initial",
            "unique",
            "--x-assign",
            "unique",
        ]
        options = ["--prefix", model.name, "--Mdir", str(made), *(["--trace"] if trace else [])]
        _run([*verilator, *options, *_parameters(model), *map(str, sources)])
        unit = made / "all.cc"
        unit.write_text("".join(f'#include "{path.name}"\n' for path in sorted(made.glob("*.cpp"))))
        return _compile(unit, made / "all.o", trace, made)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runtime = [pool.submit(_runtime, part, trace) for part in ("verilated", "verilated_threads")]
        if trace:
            runtime.append(pool.submit(_runtime, "verilated_vcd_c", trace))
        objects = [job.result() for job in [*runtime, *(pool.submit(verilate, model) for model in models)]]
    includes = [folder, *(folder / model.name for model in models)]
    objects.append(_compile(HARNESS, folder / "harness.o", trace, *includes))
    _run([*_CXX, *map(str, objects), "-o", str(folder / "rtl")])


def _runtime(part: str, trace: bool) -> Path:
    """Object file of a part of Verilator's library."""
    source = _include() / f"{part}.cpp"
    return _cached((part, trace), lambda folder: _compile(source, folder / f"{part}.o", trace), f"{part}.o")


def _compile(source: Path, target: Path, trace: bool, *includes: Path) -> Path:
    folders = [_include(), _include() / "vltstd", *includes]
    flags = [f"-DVM_TRACE={int(trace)}", *(f"-I{folder}" for folder in folders)]
    _run([*_CXX, *flags, "-c", str(source), "-o", str(target)])
    return target


def _models_header(models: Sequence[Model]) -> str:
    cases = "".join(
        f"    case {at}: return std::make_unique<VerilatedBench<{model.name}>>(trace_path);\n"
        for at, model in enumerate(models)
    )
    return (
        "".join(f'#include "{model.name}.h"\n' for model in models)
        + f"constexpr std::size_t model_count = {len(models)};\n"
        + "std::unique_ptr<Bench> make_bench(std::size_t model, const char* trace_path) {\n"
        + f"  switch (model) {{\n{cases}    default: return nullptr;\n  }}\n}}\n"
    )


@cache
def _include() -> Path:
    """Folder of Verilator's library."""
    root = subprocess.run(
        ["verilator", "--getenv", "VERILATOR_ROOT"], check=True, capture_output=True, text=True
    )
    return Path(root.stdout.strip()) / "include"


@cache
def _version() -> str:
    return subprocess.run(["verilator", "--version"], check=True, capture_output=True, text=True).stdout


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr)
    done.check_returncode()
