"""make test-cuda and make bench-cuda: what surrounds the GPU, with the emulation in its place."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from pysim import runner
from pysim.errors import ConfigError
from pysim.result import GpuBench, GpuBenchRow, KernelVariant
from pysim.runner import gpu_timing
from pysim.sparse import cuda_status
from tests.gpu import __main__ as commands
from tests.gpu import child, goals, networks, sanitized, watch
from tests.gpu.watch import Report, watch_tests

WITHOUT_GPU = pytest.mark.skipif(bool(cuda_status().devices), reason="a GPU is here")


@WITHOUT_GPU
@pytest.mark.parametrize("what", ["test", "bench"])
def test_without_a_gpu_nothing_is_run_and_that_is_said(what, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["tests.gpu", what, str(out)])
    assert commands.main() == 2
    assert "NO GPU TESTS WERE RUN: CUDA: expected a" in capsys.readouterr().err
    assert not out.exists()


def row(math, b, n, ratio, peers=None, variants=None):
    return GpuBenchRow(
        math=math,
        block=(b, b),
        n=n,
        dense_us=ratio,
        sparse_us=1.0,
        speedup_quartiles=(ratio, ratio, ratio),
        max_error=0.1,
        peers=peers or {},
        variants=variants or {},
    )


def test_rows_are_judged_by_their_goals():
    rows = (
        row(
            "f16",
            64,
            4096,
            6.0,
            {"bsr_dense_addmm": 1.2},
            {"cluster 2": KernelVariant(us=2.0, max_error=0.1)},
        ),
        row("f32", 4, 4096, 3.9),
        row("f16", 16, 16, 4.0),
        row("f16", 8, 16, 9.0),
        row("tf32", 8, 4096, 9.0),
    )
    bench = GpuBench(gpu="x", capability=(9, 0), m=4096, k=4096, sparsity=0.9, seed=0, versions={}, rows=rows)
    assert goals.judge(bench) == [
        "goal reached: f16 64x64 n=4096: 6.00x, goal 6x",
        "goal missed: f16 64x64 over bsr_dense_addmm: 1.20x, goal 1.3x",
        "goal missed: f16 64x64 n=4096 with cluster 2: 3.00x, goal 6x",
        "goal missed: f32 4x4 n=4096: 3.90x, goal 4x",
        "goal reached: f16 16x16 n=16: 4.00x, goal 4x",
    ]
    assert goals.judge(replace(bench, m=768)) == []


CASES = """
import os, sys, time
import pytest

def test_passes(): pass

def test_fails(): assert 1 == 2

@pytest.mark.skip
def test_skipped(): pass

def test_takes_the_process_down():
    os._exit(7)

def test_hangs():
    time.sleep(60)

@pytest.mark.parametrize("case", range(9))
def test_dies_in_every_case(case):
    os._exit(8)

def test_passes_after_all_that(): pass
"""


def test_a_test_that_dies_or_hangs_does_not_hide_the_others(tmp_path):
    path = tmp_path / "test_cases.py"
    path.write_text(CASES)
    report = watch_tests([str(path)], silence=3, deadline=time.monotonic() + 300)
    outcomes = {name.split("::")[1]: case["outcome"] for name, case in report.cases.items()}
    dead = {"test_dies_in_every_case" + case: "failed" for case in ("[0]", "[1]", "")}
    assert outcomes == dead | {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_skipped": "skipped",
        "test_takes_the_process_down": "failed",
        "test_hangs": "failed",
        "test_passes_after_all_that": "passed",
    }
    texts = {name.split("::")[1]: case["text"] for name, case in report.cases.items()}
    assert "assert 1 == 2" in texts["test_fails"]
    assert texts["test_takes_the_process_down"] == "the process ended with status 7"
    assert texts["test_hangs"] == "silent for 3 s, so it was ended"
    assert report.why == ""


def test_a_file_that_cannot_be_read_ends_the_tests(tmp_path):
    path = tmp_path / "test_cases.py"
    path.write_text("import os; os._exit(5)")
    report = watch_tests([str(path)], silence=30, deadline=time.monotonic() + 300)
    assert (report.cases, report.why) == ({}, "the process ended with status 5")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_bench_reports_each_block_and_goes_on_after_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_timing, "_SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(gpu_timing, "_ROUNDS", 1)
    config = replace(goals._BIG, blocks=((4, 4), (2, 2), (16, 16)), m=16, k=24, columns=(24,), peers=False)
    bench = runner.bench_gpu

    def sometimes(config, *arguments, **options):
        if config.blocks == ((2, 2),):
            raise ConfigError("broken on purpose")
        return bench(config, *arguments, **options)

    monkeypatch.setattr(runner, "bench_gpu", sometimes)
    path = tmp_path / "lines"
    child.run_bench(child.Lines(path), set(), "small", config, "f16", torch.device("cpu"), [2, 8])
    ends = [line for line in lines_of(path) if "end" in line]
    assert [(line["end"], line["outcome"]) for line in ends] == [
        ("small, f16 4x4", "passed"),
        ("small, f16 2x2", "failed"),
        ("small, f16 16x16", "passed"),
    ]
    assert "broken on purpose" in ends[1]["text"]
    assert set(ends[0]["table"]["rows"][0]["variants"]) == {"cluster 2", "cluster 8"}

    found = {}
    report = Report(cases={line.pop("end"): line for line in ends}, why="it was ended")
    commands.add_bench(found, "small, f16", report)
    assert [row["block"] for row in found["benches"][0]["rows"]] == [[4, 4], [16, 16]]
    assert found["failed"] == {"small, f16 2x2": "ConfigError: broken on purpose"}
    assert found["unfinished"] == {"small, f16": "it was ended"}
    json.dumps(found, allow_nan=False)


def case(outcome):
    return {"outcome": outcome, "text": ""}


def test_a_block_that_dies_with_clusters_is_measured_without_them(monkeypatch):
    replies = [
        Report(cases={"a": case("passed"), "b": case("failed")}, why="died", died_in="b"),
        Report(cases={"b": case("passed"), "c": case("passed")}),
    ]
    calls = []

    def reply(arguments, lines, *, silence, deadline):
        calls.append((arguments[3:], Path(arguments[2]).read_text().splitlines()))
        return replies[len(calls) - 1]

    monkeypatch.setattr(watch, "watch", reply)
    report = watch.watch_bench("table", "f16", (2, 8), silence=1, deadline=1)
    assert calls == [(["table", "f16", "2", "8"], []), (["table", "f16"], ["a"])]
    assert {name: found["outcome"] for name, found in report.cases.items()} == {
        "a": "passed",
        "b with clusters": "failed",
        "b": "passed",
        "c": "passed",
    }
    assert report.why == ""


def test_layers_are_reported_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_timing, "_SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(gpu_timing, "_ROUNDS", 1)
    monkeypatch.setattr(networks, "RESNET50", ((8, 8, 3, 4),))
    monkeypatch.setattr(networks, "build_model", lambda *_: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1)))
    monkeypatch.setattr(child, "resnet_layers", partial(networks.resnet_layers, batch=1, image_size=4))
    path = tmp_path / "lines"
    child.run_resnet(child.Lines(path), torch.device("cpu"), 1000)
    found = {}
    cases = {line.pop("end"): line for line in lines_of(path) if "end" in line}
    commands.add_bench(found, "layers", Report(cases=cases))
    assert len(found["resnet_layers"]) == len(cases) > 0


def test_without_time_everything_is_left_out_and_named():
    found = {}
    assert not commands.run_benches(found, time.monotonic() + 10)
    assert found["unfinished"]["large, half precision, f16"] == "no time left"
    assert found["unfinished"]["ResNet layers"] == "no time left"


def test_a_sanitizer_that_does_not_know_the_machine_has_not_failed():
    assert commands.verdict(0, "") == "clean"
    assert commands.verdict(1, "Error: Device not supported").startswith("not run")
    assert commands.verdict(9, "Invalid __shared__ read").startswith("status 9: Invalid")


@pytest.mark.slow
def test_what_the_sanitizer_runs_is_right():
    sanitized.main()
