"""Cases of the kernels: products, convolutions and whole networks, each against its dense counterpart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.utils.mkldnn
from torch import Tensor, nn
from torch.nn.functional import conv2d

import pysim
from pysim.models import InputShape, build_model
from pysim.pruning import PruneConfig, prune_one_shot
from pysim.runner import KernelBenchConfig, bench_kernels
from pysim.sparse import (
    BsrMatrix,
    ConvPlan,
    Int8ConvPlan,
    Int8SpmmPlan,
    SpmmPlan,
    available_isas,
    compress,
    quantize_weights,
)
from pysim.sparse.peak import fma_gflops
from pysim.workload import BlockGrid
from tests.bench.case import Case, make_case, ratios, seconds

_GREY = InputShape(channels=1, height=28, width=28, num_classes=10)


def _problem(
    m: int, k: int, block: int, keep: float = 0.1, positions: int = 1
) -> tuple[BlockGrid, np.ndarray]:
    rng = np.random.default_rng(0)
    grid = BlockGrid(m=m, k=k, positions=positions, bh=block, bw=block)
    w = rng.standard_normal((m, k)).astype(np.float32) * grid.expand(rng.random(grid.shape) < keep)
    return grid, w


def spmm_against_dense() -> Iterator[Case]:
    goals = {
        (64, 1): 4.3,
        (64, 2): 7,
        (64, 4): 9.5,
        (64, 8): 10,
        (64, 16): 10.5,
        (512, 1): 2.6,
        (512, 2): 4,
        (512, 4): 5.5,
        (512, 8): 5.5,
        (512, 16): 6,
        (1, 1): 3,
        (1, 2): 6,
        (1, 4): 11,
        (1, 8): 12,
        (1, 16): 14,
    }
    torch.set_num_threads(1)
    for (n, block), goal in goals.items():
        grid, w = _problem(768, 768, block)
        x, dense = torch.randn(768, n), torch.from_numpy(w)
        plan = SpmmPlan(BsrMatrix.from_dense(w, grid), threads=1)
        torch.testing.assert_close(plan(x), dense @ x, rtol=1e-4, atol=1e-4)
        found = ratios(lambda: torch.mm(dense, x), lambda: plan(x), calls=50 if n == 1 else 5)  # noqa: B023
        name = f"spmm 768 x 768, n = {n}, 90 %, block {block}, {plan.isa}, 1 thread"
        yield make_case(name, f">= {goal} (AVX-512)", "x dense", found)
        if n == 1:  # a few microseconds, of which making a tensor for the result is one
            y, z = torch.empty(768, 1), torch.empty(768, 1)
            found = ratios(lambda: torch.mm(dense, x, out=y), lambda: plan(x, z), calls=50)  # noqa: B023
            yield make_case(f"{name}, both with out=", f">= {goal} (AVX-512)", "x dense", found)


def spmm_against_peers() -> Iterator[Case]:
    """MKL is what torch's CSR and BSR products call."""
    config = KernelBenchConfig(blocks=tuple((b, b) for b in (1, 2, 4, 8, 16)), columns=(64,), peers=True)
    for row in bench_kernels(config).rows:
        for peer, goal in (("torch CSR", 1.5), ("torch BSR", 3.0)):
            time_us = row.peers[peer]
            if time_us is not None:
                name = f"spmm 768 x 768, n = 64, 90 %, block {row.block[0]}, 1 thread"
                yield make_case(name, f">= {goal}", f"x {peer}", np.array([time_us / row.sparse_us]))


def spmm_break_even() -> Iterator[Case]:
    """The speedup at the sparsity at which the kernel has to have drawn level."""
    torch.set_num_threads(1)
    for block, sparsity in ((1, 0.6), (2, 0.35), (4, 0.15), (8, 0.1), (16, 0.1)):
        grid, w = _problem(768, 768, block, keep=1 - sparsity)
        x, dense = torch.randn(768, 64), torch.from_numpy(w)
        plan = SpmmPlan(BsrMatrix.from_dense(w, grid), threads=1)
        found = ratios(lambda: torch.mm(dense, x), lambda: plan(x), calls=5)  # noqa: B023
        name = f"spmm 768 x 768, n = 64, {100 * sparsity:.0f} % pruned, block {block}, 1 thread"
        yield make_case(name, ">= 1 (AVX-512)", "x dense", found)


def spmm_share_of_peak() -> Iterator[Case]:
    """Operations of the kept weights, as a share of what multiply-adds in registers alone reach.

    A ratio over torch flatters where torch is slow; this one does not. Peak and product are measured in turn,
    because the clock of a shared machine drifts.
    """
    for isa in [name for name in ("avx2", "avx512") if name in available_isas()]:
        for n in (64, 512):
            for block in (1, 2, 4, 8, 16):
                grid, w = _problem(768, 768, block)
                x = np.random.default_rng(1).standard_normal((768, n)).astype(np.float32)
                plan, out = SpmmPlan(BsrMatrix.from_dense(w, grid), isa=isa), np.empty((768, n), np.float32)
                operations = 2e-9 * np.count_nonzero(w) * n
                shares = [
                    operations
                    / seconds(lambda: plan(x, out), rounds=1, calls=5)[0]  # noqa: B023
                    / fma_gflops(isa, samples=3)
                    for _ in range(31)
                ]
                goal = ">= 80" if isa == "avx2" and block >= 4 else "-"
                name = f"spmm 768 x 768, n = {n}, 90 %, block {block}, {isa}, 1 thread"
                yield make_case(name, goal, "% of the FMA peak", 100 * np.array(shares))


def spmm_call_overhead() -> Iterator[Case]:
    """A product of one block: all but the kernel."""
    plan = SpmmPlan(BsrMatrix.from_dense(np.ones((4, 4)), BlockGrid(m=4, k=4, bh=4, bw=4)))
    x, out = torch.ones(4, 1), torch.empty(4, 1)
    array, array_out = x.numpy(), out.numpy()
    forms = {
        "torch": lambda: plan(x),
        "torch, out=": lambda: plan(x, out),
        "numpy": lambda: plan(array),
        "numpy, out=": lambda: plan(array, array_out),
    }
    for name, call in forms.items():
        yield make_case(
            f"spmm, the call alone, {name}", "-", "us", 1e6 * seconds(call, rounds=31, calls=1000)
        )


def spmm_two_threads() -> Iterator[Case]:
    grid, w = _problem(768, 768, 4)
    x = torch.randn(768, 512)
    matrix = BsrMatrix.from_dense(w, grid)
    one, two = SpmmPlan(matrix, threads=1), SpmmPlan(matrix, threads=2)
    found = ratios(lambda: one(x), lambda: two(x), calls=5)
    yield make_case("spmm 768 x 768, n = 512, 90 %, block 4, 2 threads", ">= 1.5", "x one thread", found)


def int8_against_float32() -> Iterator[Case]:
    """8 bits in and out, against pysim's own float32 product of the same blocks."""
    for n in (1, 64, 512):
        for block in (4, 8, 16):
            grid, w = _problem(768, 768, block)
            matrix = BsrMatrix.from_dense(w, grid)
            small, scale = quantize_weights(matrix)
            q = torch.randint(0, 256, (768, n), dtype=torch.uint8)
            x = q.float()
            float32 = SpmmPlan(matrix, threads=1)
            sums = Int8SpmmPlan(small, threads=1)
            assert torch.equal(sums(q).double(), torch.from_numpy(small.to_dense()).double() @ q.double())
            plan = Int8SpmmPlan(small, scale=scale / 100, output="uint8", output_zero_point=128, threads=1)
            y, y8 = torch.empty(768, n), torch.empty(768, n, dtype=torch.uint8)  # made once: memory is not it
            found = ratios(lambda: float32(x, y), lambda: plan(q, y8), calls=50 if n == 1 else 10)  # noqa: B023
            name = f"int8 spmm 768 x 768, n = {n}, 90 %, block {block}, {plan.isa}, 1 thread"
            goal = ">= 1" if n == 1 else ">= 2 (AVX-512 VNNI)"
            yield make_case(name, goal, "x pysim float32", found)


def int8_convolution_against_float32() -> Iterator[Case]:
    """3 x 3 layers of ResNet-20 and ResNet-18, 8 bits in and out, against pysim's own float32."""
    layers = ((16, 28, 1), (32, 14, 1), (64, 7, 1), (64, 56, 2), (128, 28, 2), (256, 14, 2))
    for channels, side, goal in layers:
        grid, w = _problem(channels, 9 * channels, 4, positions=9)
        matrix = BsrMatrix.from_dense(w, grid)
        small, scale = quantize_weights(matrix)
        q = torch.randint(0, 256, (1, channels, side, side), dtype=torch.uint8)
        x, window = q.float(), {"kernel_size": (3, 3), "padding": (1, 1)}
        float32 = ConvPlan([matrix], **window)
        plan = Int8ConvPlan([small], scale=scale / 100, output="uint8", output_zero_point=128, **window)
        dense = small.to_dense().reshape(channels, 3, 3, channels).transpose(0, 3, 1, 2)
        sums = conv2d(q.double(), torch.from_numpy(dense.copy()).double(), padding=1)
        assert torch.equal(Int8ConvPlan([small], **window)(q).double(), sums)
        y, y8 = float32(x), plan(q)
        found = ratios(lambda: float32(x, y), lambda: plan(q, y8), calls=20)  # noqa: B023
        name = f"int8 conv {channels} x {side} x {side}, batch 1, 90 %, block 4, 1 thread"
        yield make_case(name, f">= {goal} (AVX-512 VNNI)", "x pysim float32", found)


def bfloat16_against_float32() -> Iterator[Case]:
    """A matrix whose weights do not stay in the second-level cache, few columns."""
    for n in (1, 8):
        grid, w = _problem(4096, 4096, 4)
        matrix = BsrMatrix.from_dense(w, grid)
        x = torch.randn(4096, n)
        float32, plan = SpmmPlan(matrix, threads=1), SpmmPlan(matrix, weight_dtype="bfloat16", threads=1)
        found = ratios(lambda: float32(x), lambda: plan(x), calls=5)  # noqa: B023
        name = f"bfloat16 spmm 4096 x 4096, n = {n}, 90 %, block 4, {plan.isa}, 1 thread"
        yield make_case(name, ">= 1", "x pysim float32", found)


def convolution_against_dense() -> Iterator[Case]:
    """3 x 3 layers of ResNet-20 at 28 x 28 and of ResNet-18, against eager conv2d and prepacked oneDNN.

    Called from Python one by one, and as part of a compiled network: then without the call and the copies of
    images in and out.
    """
    torch.set_num_threads(1)
    layers = [
        (16, 28, 1, 9),
        (32, 14, 1, 9),
        (64, 7, 1, 9),
        (16, 28, 8, 6.5),
        (32, 14, 8, 6.5),
        (64, 7, 8, 6.5),
    ]
    layers += [(64, 56, 1, 5.5), (128, 28, 1, 5.5), (256, 14, 1, 5.5), (512, 7, 1, 5.5)]
    for channels, side, batch, goal in layers:
        grid, rows = _problem(channels, 9 * channels, 4, positions=9)
        weight = torch.from_numpy(rows.reshape(channels, 3, 3, channels).transpose(0, 3, 1, 2).copy())
        x = torch.randn(batch, channels, side, side)
        plan = ConvPlan([BsrMatrix.from_dense(rows, grid)], kernel_size=(3, 3), padding=(1, 1))
        torch.testing.assert_close(plan(x), conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layer.weight.data = weight
        depth = 8
        network = pysim.compile(nn.Sequential(*[layer] * depth).eval(), x, threads=1)
        packed = torch.utils.mkldnn.to_mkldnn(nn.Sequential(layer).eval())
        image = x.to_mkldnn()
        calls = max(1, 20 // batch)
        with torch.inference_mode():
            eager = ratios(
                lambda: conv2d(x, weight, padding=1),  # noqa: B023
                lambda: plan(x),  # noqa: B023
                calls=calls,
            )
            inside = depth * ratios(
                lambda: packed(image),  # noqa: B023
                lambda: network(x),  # noqa: B023
                calls=calls,
            )
        name = f"conv {channels} x {side} x {side}, batch {batch}, 90 %, block 4, {plan.isa}, 1 thread"
        yield make_case(name, f">= {goal} (AVX-512)", "x eager", eager)
        yield make_case(f"{name}, compiled", f">= {goal} (AVX-512)", "x oneDNN", inside)


def _resnet20() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("resnet20", _GREY).eval()
    prune_one_shot(model, PruneConfig(block=(4, 4), sparsity=0.9))
    return model


def _frozen(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The dense network as one graph with oneDNN's packed weights."""
    traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))
    for _ in range(3):
        traced(x)
    return traced


def networks() -> Iterator[Case]:
    """The whole ResNet-20: layer by layer in PyTorch, and as one native call."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (1, 16):
            x = torch.randn(batch, 1, 28, 28)
            model = _resnet20()
            small = compress(model, x).model
            native = pysim.compile(model, x, threads=threads)
            name = f"ResNet-20, 90 %, block 4, batch {batch}, {threads} thread{'s' * (threads > 1)}"
            with torch.inference_mode():
                frozen = _frozen(model, x)
                torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(native(x), model(x), rtol=1e-4, atol=1e-4)
                forms = (
                    (f"{name}, compressed", "> 1", "x eager", lambda: model(x), lambda: small(x)),  # noqa: B023
                    (f"{name}, compiled", ">= 5", "x eager", lambda: model(x), lambda: native(x)),  # noqa: B023
                    (f"{name}, compiled", ">= 4", "x frozen", lambda: frozen(x), lambda: native(x)),  # noqa: B023
                )
                for label, goal, unit, dense, sparse in forms:
                    yield make_case(label, goal, unit, ratios(dense, sparse, calls=3))


CASES = (
    spmm_against_dense,
    spmm_against_peers,
    spmm_break_even,
    spmm_share_of_peak,
    spmm_call_overhead,
    spmm_two_threads,
    int8_against_float32,
    int8_convolution_against_float32,
    bfloat16_against_float32,
    convolution_against_dense,
    networks,
)
