"""What only a GPU can show. Skipped without one; ``make test-cuda`` runs it where there is one.

PYSIM_GPU_TESTS=emulated runs what can run in the emulation, to test these tests.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from torch import nn

import pysim
from pysim.errors import ShapeError
from pysim.sparse import BsrConv2d, BsrLinear, BsrMatrix, cuda_status
from pysim.sparse.gpu import GpuPlan
from pysim.workload import BlockGrid

EMULATED = os.environ.get("PYSIM_GPU_TESTS") == "emulated"
HERE = bool(cuda_status().devices) and torch.cuda.is_available()
pytestmark = pytest.mark.skipif(not (HERE or EMULATED), reason="NO GPU: these tests have not run")
real_gpu = pytest.mark.skipif(not HERE, reason="needs a GPU itself")

GPU = torch.device("cuda", 0) if HERE else torch.device("cpu")
DTYPES = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Large enough for several groups and chunks; the emulation takes small ones.
SIZES = [(1000, 1500)] if HERE else [(70, 150)]
WIDTHS = [1, 3, 16, 17, 64, 500, 520] if HERE else [1, 16, 65]


@pytest.fixture(autouse=True)
def _fill_with_nan():
    """torch.empty is filled with NaN: an element that no kernel writes is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def whole_numbers(*shape, dtype=torch.float32):
    return torch.randint(-4, 5, shape).to(dtype)


def problem(bh, bw, m, k, kind="even", seed=0):
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=m, k=k, bh=bh, bw=bw)
    mask = rng.random(grid.shape) < 0.1
    if kind == "skewed":
        mask = rng.random(grid.shape) < rng.random((grid.shape[0], 1)) ** 6
        mask[0] = True
        mask[1:3] = False
    w = rng.integers(-4, 5, (m, k)).astype(np.float32) * grid.expand(mask)
    return BsrMatrix.from_dense(w, grid, mask)


def plan_of(matrix, math, n=1024, cluster=1):
    indices = [(matrix.row_ptr, matrix.col_idx)]
    plan = GpuPlan(matrix.grid, indices, math=math, device=GPU, columns=n, cluster=cluster)
    return plan, plan.pack(torch.from_numpy(matrix.values.copy()).to(GPU, DTYPES[math]))


def expected_of(matrix, x):
    w = torch.from_numpy(matrix.to_dense()).to(GPU)
    return (x.double() @ w.double().t()).to(x.dtype)


@pytest.mark.parametrize("math", DTYPES)
@pytest.mark.parametrize(
    "block", [(1, 1), (2, 4), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (5, 3), (16, 1)]
)
@pytest.mark.parametrize("kind", ["even", "skewed"])
def test_product_is_exact_on_integers(math, block, kind):
    for m, k in SIZES:
        matrix = problem(*block, m, k, kind)
        plan, packed = plan_of(matrix, math)
        for n in WIDTHS:
            x = whole_numbers(n, k, dtype=DTYPES[math]).to(GPU)
            expected = expected_of(matrix, x)
            for source in (x, x.t().contiguous().t()):
                torch.testing.assert_close(plan.multiply(packed, source), expected, rtol=0, atol=0)


@pytest.mark.parametrize("math", DTYPES)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolution_is_exact_on_integers(math, groups, stride, dilation):
    channels, size, images = (64, 28, 8) if HERE else (16, 7, 2)
    dense = nn.Conv2d(channels, channels, 3, stride, 1, dilation, groups, bias=False)
    with torch.no_grad():
        dense.weight.copy_(whole_numbers(*dense.weight.shape))
    layer = BsrConv2d.from_dense(dense, (8, 8) if groups == 1 else (4, 4))
    grid = layer.grid
    parts = [(m.row_ptr, m.col_idx) for m in layer.matrices()]
    plan = GpuPlan(grid, parts, math=math, device=GPU)
    packed = plan.pack(layer.values.detach().to(GPU, DTYPES[math]))
    x = whole_numbers(images, channels, size, size, dtype=DTYPES[math]).to(GPU)
    expected = dense.double()(x.cpu().double()).to(DTYPES[math]).to(GPU)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        y = plan.convolve(
            packed,
            image,
            kernel_size=(3, 3),
            stride=(stride, stride),
            padding=(1, 1),
            dilation=(dilation, dilation),
        )
        torch.testing.assert_close(y, expected, rtol=0, atol=0, check_stride=False)


@pytest.mark.parametrize("math", DTYPES)
@pytest.mark.parametrize("n", [16, 300])
def test_the_bits_are_the_same_in_every_run(math, n):
    m, k = SIZES[0]
    matrix = problem(16, 16, m, k, "skewed")
    plan, packed = plan_of(matrix, math)
    x = torch.randn(n, k, device=GPU).to(DTYPES[math])
    first = plan.multiply(packed, x)
    for _ in range(10 if HERE else 1):
        torch.testing.assert_close(plan.multiply(packed, x), first, rtol=0, atol=0)


def modules(dtype=torch.float32):
    torch.manual_seed(0)
    linear = nn.Linear(96, 64)
    conv = nn.Conv2d(16, 32, 3, padding=1)
    for dense in (linear, conv):
        with torch.no_grad():
            dense.weight.copy_(whole_numbers(*dense.weight.shape))
            dense.weight[:16, :8] = 0
            dense.bias.copy_(whole_numbers(*dense.bias.shape))
    sparse = [BsrLinear.from_dense(linear, (8, 8)), BsrConv2d.from_dense(conv, (8, 8))]
    return [(d.to(GPU, dtype), s.to(GPU, dtype)) for d, s in zip((linear, conv), sparse, strict=True)]


INPUTS = ((40, 96), (2, 16, 9, 9))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=real_gpu)])
def test_layers_and_their_gradients_agree_with_dense_ones(dtype):
    for (dense, sparse), shape in zip(modules(dtype), INPUTS, strict=True):
        x = whole_numbers(*shape, dtype=dtype).to(GPU)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = sparse(ours), dense(theirs)
        torch.testing.assert_close(y, z, rtol=0, atol=0, check_stride=False)
        step = whole_numbers(*y.shape, dtype=dtype).to(GPU)
        y.backward(step)
        z.backward(step)
        torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)
        kept = type(sparse).from_dense(copy.deepcopy(dense).float().cpu(), (8, 8))
        assert sparse.values.grad.shape == kept.values.shape
        with torch.no_grad():
            dense.weight.copy_(dense.weight.grad)
        wanted = type(sparse).from_dense(
            copy.deepcopy(dense).float().cpu(), (8, 8), np.stack([_mask(m) for m in kept.matrices()])
        )
        torch.testing.assert_close(sparse.values.grad.float().cpu(), wanted.values.detach())


def _mask(matrix):
    mask = np.zeros(matrix.grid.shape, bool)
    rows = np.repeat(np.arange(matrix.grid.shape[0]), np.diff(matrix.row_ptr))
    mask[rows, matrix.col_idx] = True
    return mask


def test_a_training_step_changes_what_the_next_call_computes():
    for (_, sparse), shape in zip(modules(), INPUTS, strict=True):
        x = whole_numbers(*shape).to(GPU)
        before = sparse(x).detach()
        optimizer = torch.optim.SGD(sparse.parameters(), lr=1.0)
        sparse(x).sum().backward()
        optimizer.step()
        assert not torch.equal(sparse(x), before)


def test_a_compressed_model_stays_where_it_is_and_computes_the_same():
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)).to(GPU).eval()
    with torch.no_grad():
        model[0].weight[:, 32:] = 0
    x = torch.randn(64, 256, device=GPU)
    found = pysim.compress(model, x)
    assert found.layers[0].dense_us is not None
    asked = pysim.compress(model, x, only_if_faster=False).model
    assert asked[0].values.device == model[0].weight.device
    torch.testing.assert_close(asked(x), model(x), rtol=1e-4, atol=1e-4)


@real_gpu
def test_a_compiled_layer_runs_on_the_gpu():
    for (_, sparse), shape in zip(modules(), INPUTS, strict=True):
        x = whole_numbers(*shape).to(GPU)
        compiled = torch.compile(sparse, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), sparse(x), rtol=0, atol=0)


@real_gpu
def test_products_on_several_streams_do_not_disturb_each_other():
    matrix = problem(16, 16, 1000, 1500, "skewed")
    plan, packed = plan_of(matrix, "f16")
    inputs = [whole_numbers(n, 1500, dtype=torch.float16).to(GPU) for n in (16, 200, 333, 16)]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(GPU) for _ in inputs]
    for _ in range(20):
        outputs = []
        for stream, x in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                outputs.append(plan.multiply(packed, x))
        torch.cuda.synchronize()
        for x, y in zip(inputs, outputs, strict=True):
            torch.testing.assert_close(y, expected_of(matrix, x), rtol=0, atol=0)


@real_gpu
@pytest.mark.parametrize("n", [16, 300])
def test_a_captured_graph_computes_on_new_inputs(n):
    matrix = problem(16, 16, 1000, 1500, "skewed")
    plan, packed = plan_of(matrix, "f16")
    x = whole_numbers(n, 1500, dtype=torch.float16).to(GPU)
    side = torch.cuda.Stream(GPU)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        plan.multiply(packed, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = plan.multiply(packed, x)
    for _ in range(3):
        x.copy_(whole_numbers(n, 1500, dtype=torch.float16))
        graph.replay()
        torch.testing.assert_close(y, expected_of(matrix, x), rtol=0, atol=0)


@real_gpu
def test_graphs_that_are_replayed_at_once_have_partial_sums_of_their_own():
    matrix = problem(16, 16, 1000, 1500, "skewed")
    plan, packed = plan_of(matrix, "f16")
    assert plan.facts["splits"] > 0
    inputs = [whole_numbers(300, 1500, dtype=torch.float16).to(GPU) for _ in range(3)]
    plan.multiply(packed, inputs[0])
    graphs, outputs = [torch.cuda.CUDAGraph() for _ in inputs], []
    for graph, x in zip(graphs, inputs, strict=True):
        with torch.cuda.graph(graph):
            outputs.append(plan.multiply(packed, x))
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(GPU) for _ in inputs]
    for _ in range(20):
        for stream, graph in zip(streams, graphs, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
        torch.cuda.synchronize()
        for x, y in zip(inputs, outputs, strict=True):
            torch.testing.assert_close(y, expected_of(matrix, x), rtol=0, atol=0)


@real_gpu
def test_a_call_allocates_its_result_and_nothing_else():
    matrix = problem(16, 16, 1000, 1500, "skewed")
    plan, packed = plan_of(matrix, "f16")
    x = whole_numbers(300, 1500, dtype=torch.float16).to(GPU)
    plan.multiply(packed, x)
    before = torch.cuda.memory_stats(GPU)["allocation.all.allocated"]
    held = plan.multiply(packed, x)
    assert torch.cuda.memory_stats(GPU)["allocation.all.allocated"] == before + 1
    del held


@real_gpu
def test_a_tensor_in_the_wrong_place_is_an_error_not_a_crash():
    (_, linear), _ = modules()
    with pytest.raises(ShapeError, match="where the input is"):
        linear(torch.zeros(3, 96))
    matrix = problem(16, 16, 64, 64)
    plan, packed = plan_of(matrix, "f32")
    with pytest.raises(ShapeError, match="expected a dense tensor on cuda"):
        plan.multiply(packed, torch.zeros(3, 64))
    if torch.cuda.device_count() > 1:
        with pytest.raises(ShapeError):
            plan.multiply(packed, torch.zeros(3, 64, device="cuda:1"))


@real_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_every_gpu_has_its_own_plan():
    layer = BsrLinear.from_dense(nn.Linear(64, 64), (8, 8))
    x = torch.randn(40, 64)
    outputs = [copy.deepcopy(layer).to(f"cuda:{i}")(x.to(f"cuda:{i}")).cpu() for i in range(2)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
