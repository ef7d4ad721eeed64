"""make test-cuda and make bench-cuda: what surrounds the GPU, with the emulation in its place."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from pysim.result import GpuBench, GpuBenchRow
from pysim.runner import gpu_timing
from pysim.sparse import cuda_status
from tests.gpu import __main__ as commands
from tests.gpu import goals, networks, sanitized

WITHOUT_GPU = pytest.mark.skipif(bool(cuda_status().devices), reason="a GPU is here")


@WITHOUT_GPU
@pytest.mark.parametrize("what", ["test", "bench"])
def test_without_a_gpu_nothing_is_run_and_that_is_said(what, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["tests.gpu", what, str(out)])
    assert commands.main() == 2
    assert "NO GPU TESTS WERE RUN: CUDA: expected a" in capsys.readouterr().err
    assert not out.exists()


def row(math, b, n, ratio, peers=None):
    return GpuBenchRow(
        math=math,
        block=(b, b),
        n=n,
        dense_us=ratio,
        sparse_us=1.0,
        speedup_quartiles=(ratio, ratio, ratio),
        max_error=0.1,
        peers=peers or {},
    )


def test_rows_are_judged_by_their_goals():
    rows = (
        row("f16", 64, 4096, 6.0, {"bsr_dense_addmm": 1.2}),
        row("f32", 4, 4096, 3.9),
        row("f16", 16, 16, 4.0),
        row("f16", 8, 16, 9.0),
        row("tf32", 8, 4096, 9.0),
    )
    bench = GpuBench(gpu="x", capability=(9, 0), m=4096, k=4096, sparsity=0.9, seed=0, versions={}, rows=rows)
    assert goals.judge(bench) == [
        "goal reached: f16 64x64 n=4096: 6.00x, goal 6x",
        "goal missed: f16 64x64 over bsr_dense_addmm: 1.20x, goal 1.3x",
        "goal missed: f32 4x4 n=4096: 3.90x, goal 4x",
        "goal reached: f16 16x16 n=16: 4.00x, goal 4x",
    ]
    assert goals.judge(replace(bench, m=768)) == []


def test_the_bench_fills_its_json(monkeypatch):
    monkeypatch.setattr(gpu_timing, "_SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(gpu_timing, "_ROUNDS", 1)
    small = replace(goals._BIG, blocks=((4, 4),), m=16, k=24, columns=(20,))
    monkeypatch.setattr(commands, "BENCHES", (("small", small, ("f16",)), ("late", small, ("f32",))))
    monkeypatch.setattr(networks, "RESNET50", ((8, 8, 3, 4),))
    monkeypatch.setattr(networks, "build_model", lambda *_: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1)))
    monkeypatch.setattr(commands, "resnet_layers", partial(networks.resnet_layers, batch=1, image_size=4))
    found = {}
    assert commands.run_benches(found, torch.device("cpu"), time.monotonic() + 1000)
    assert [table["name"] for table in found["benches"]] == ["small", "late"]
    assert found["resnet_layers"]
    assert found["left_out"] == []
    json.dumps(found, allow_nan=False)
    late = {}
    commands.run_benches(late, torch.device("cpu"), time.monotonic() + 10)
    assert late["left_out"] == ["small", "late", "ResNet layers"]


@pytest.mark.slow
def test_what_the_sanitizer_runs_is_right():
    sanitized.main()
