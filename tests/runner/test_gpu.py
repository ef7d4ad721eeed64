"""Measurement on a GPU: what surrounds the clock, by emulation; and what is said where there is no GPU."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pysim import runner
from pysim.config import Accelerator
from pysim.errors import ConfigError
from pysim.lowering import trace
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.report import render_gpu_bench
from pysim.runner import gpu_bench, gpu_timing
from pysim.sparse import cuda_status

CPU = torch.device("cpu")
WITHOUT_GPU = pytest.mark.skipif(bool(cuda_status().devices), reason="a GPU is here")


def test_every_type_is_checked_and_timed_against_the_dense_product(monkeypatch):
    monkeypatch.setattr(gpu_timing, "_SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(gpu_timing, "_ROUNDS", 2)
    config = runner.KernelBenchConfig(
        blocks=((16, 16), (5, 3)), m=32, k=48, columns=(3, 20), sparsity=0.5, peers=True
    )
    seen = []
    bench = gpu_bench.bench_gpu(config, CPU, lambda *state: seen.append(state))
    assert [(row.math, row.block, row.n) for row in bench.rows] == [
        (math, block, n) for math in gpu_bench.MATHS for block in config.blocks for n in (3, 20)
    ]
    assert len(seen) == len(bench.rows) == 20
    for row in bench.rows:
        assert 0 <= row.max_error <= 1, row
        assert min(row.dense_us, row.sparse_us) > 0
        assert row.peers.get("bsr_dense_addmm") is None  # Triton is not for the CPU
        assert row.math != "i8" or row.max_error == 0
    text = render_gpu_bench(bench)
    assert "bf16  16x16" in text
    assert "emulated, sm_90" in text
    json.dumps(bench.to_json(), allow_nan=False)


def test_the_error_bound_tells_float32_from_lesser_types():
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(rng.standard_normal((32, 256), dtype=np.float32))
    tokens = torch.from_numpy(rng.standard_normal((50, 256), dtype=np.float32))
    exact, allowed = gpu_bench._exact("f32", dense, tokens)
    assert ((tokens @ dense.t() - exact).abs() <= allowed).all()
    # The last 13 bits of a fraction cut off: less exact than TF32, which rounds them.
    lesser = (tokens.view(torch.int32) & -(2**13)).view(torch.float32)
    assert not ((lesser @ dense.t() - exact).abs() <= allowed).all()


def test_a_networks_layers_are_timed_and_agree_with_torch(monkeypatch):
    monkeypatch.setattr(gpu_timing, "_SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(gpu_timing, "_ROUNDS", 1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.Linear(32, 10),
    ).eval()
    masks = prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.7))
    image = torch.randn(2, 1, 8, 8)
    workload, _ = trace(model, image)
    names = frozenset(layer.name for layer in workload.layers)
    _, activations = trace(model, image, keep_activations=names)
    flags = torch.backends.cudnn.allow_tf32
    found = list(
        gpu_timing.time_layers_on(CPU, workload.layers, dict(model.named_parameters()), activations, masks)
    )
    assert torch.backends.cudnn.allow_tf32 == flags
    kinds = [timing.isa for timing in found]
    assert kinds.count("sm_90") == len(masks) > 0
    for timing in found:
        assert timing.max_error <= 1
        assert timing.dense_us > 0


@WITHOUT_GPU
def test_without_a_gpu_the_command_says_so_at_once():
    done = subprocess.run(
        [sys.executable, "-c", "from pysim.cli import main; main()", "bench", "kernels", "--device", "cuda"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: CUDA: expected a")
    assert "hint: " in done.stderr
    assert done.stdout == ""


@WITHOUT_GPU
def test_without_a_gpu_a_run_ends_before_it_trains():
    config = runner.RunConfig(
        model="no such model", blocks=((4, 4),), accelerator=Accelerator(rows=4, cols=4), device="cuda"
    )
    with pytest.raises(ConfigError, match="CUDA: expected a"):
        runner.run(config)


def test_devices_other_than_cpu_and_cuda_are_refused():
    with pytest.raises(ConfigError, match="device: expected cpu or cuda, got tpu"):
        runner.RunConfig(
            model="lenet5", blocks=((4, 4),), accelerator=Accelerator(rows=4, cols=4), device="tpu"
        )
