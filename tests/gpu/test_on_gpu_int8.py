"""What only a GPU can show of 8-bit products: that they have the bits of the CPU's plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pysim.sparse import Int8BsrMatrix, Int8ConvPlan, Int8SpmmPlan
from pysim.sparse.gpu_int8 import GpuInt8Plan
from pysim.workload import BlockGrid
from tests.gpu.test_on_gpu import EMULATED, GPU, HERE, SIZES, WIDTHS, real_gpu

pytestmark = pytest.mark.skipif(not (HERE or EMULATED), reason="NO GPU: these tests have not run")
OPTIONS = [
    {"input_dtype": "int8", "input_zero_point": -5},
    {"input_dtype": "uint8", "input_zero_point": 77, "output": "float32", "relu": True},
    {"input_dtype": "uint8", "input_zero_point": 255, "output": "uint8", "output_zero_point": 9},
    {"input_dtype": "int8", "output": "int8", "output_zero_point": -3, "relu": True},
]


def problem(bh, bw, m, positions, channels, seed=0):
    """One full block row and an empty one, so that sums are divided."""
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=m, k=positions * channels, positions=positions, bh=bh, bw=bw)
    mask = rng.random(grid.shape) < 0.1
    mask[0] = True
    mask[1:2] = False
    return Int8BsrMatrix.from_dense(rng.integers(-128, 128, (m, grid.k)) * grid.expand(mask), grid, mask)


def options_of(which, m):
    """With a scale and a bias of floats where results are no sums, and one of integers where they are."""
    rng = np.random.default_rng(which)
    options = dict(OPTIONS[which])
    if options.get("output", "int32") == "int32":
        return {**options, "bias": rng.integers(-1000, 1000, m).astype(np.int32)}
    scale = rng.choice([1e-3, -1e-3, 1e-4], m).astype(np.float32)
    return {**options, "scale": scale, "bias": rng.normal(0, 40, m).astype(np.float32)}


def random_input(dtype, *shape):
    low = -128 if dtype == "int8" else 0
    return torch.randint(low, low + 256, shape).to(getattr(torch, dtype))


@pytest.mark.parametrize("which", range(len(OPTIONS)))
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (8, 8), (16, 16), (64, 64), (5, 3)])
def test_product_has_the_bits_of_the_cpus_plan(which, block):
    for m, k in SIZES:
        matrix = problem(*block, m, 1, k // 4 * 4)
        options = options_of(which, m)
        plan = GpuInt8Plan([matrix], device=GPU, **options)
        expected_of = Int8SpmmPlan(matrix, **options)
        for n in WIDTHS:
            x = random_input(options["input_dtype"], n, matrix.grid.k)
            y = plan.multiply(x.to(GPU)).cpu()
            assert torch.equal(y, expected_of(x.t().contiguous()).t())


@pytest.mark.parametrize("which", range(len(OPTIONS)))
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolution_has_the_bits_of_the_cpus_plan(which, groups, stride, dilation):
    channels, side, images = (64, 28, 8) if HERE else (16, 7, 2)
    matrices = [problem(4, 4, channels // groups, 9, channels // groups, seed) for seed in range(groups)]
    window = {
        "kernel_size": (3, 3),
        "stride": (stride, stride),
        "padding": (1, 1),
        "dilation": (dilation, dilation),
    }
    options = options_of(which, channels)
    x = random_input(options["input_dtype"], images, channels, side, side)
    plan = GpuInt8Plan(matrices, device=GPU, **options)
    y = plan.convolve(x.to(GPU).contiguous(memory_format=torch.channels_last), **window).cpu()
    assert torch.equal(y, Int8ConvPlan(matrices, **window, **options)(x))


@real_gpu
@pytest.mark.parametrize("n", [16, 300])
def test_a_captured_graph_computes_on_new_inputs(n):
    matrix = problem(16, 16, 1000, 1, 1504)
    plan = GpuInt8Plan([matrix], device=GPU)
    x = random_input("uint8", n, 1504).to(GPU)
    side = torch.cuda.Stream(GPU)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        plan.multiply(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = plan.multiply(x)
    for _ in range(3):
        x.copy_(random_input("uint8", n, 1504))
        graph.replay()
        assert torch.equal(y.cpu(), Int8SpmmPlan(matrix)(x.cpu().t().contiguous()).t())
