"""``pysim bench kernels --device cuda``: block-sparse products against cuBLAS and torch's own, on one GPU.

Every form is checked against the product in float64 before it is timed, then called in turn with the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from pysim.errors import ConfigError
from pysim.result import GpuBench, GpuBenchRow, KernelVariant
from pysim.runner.bench import KernelBenchConfig
from pysim.runner.gpu_int8_bench import time_int8
from pysim.runner.gpu_timing import interleave_on
from pysim.runner.timing import PYSIM, fastest
from pysim.sparse import BsrMatrix
from pysim.sparse.gpu import GpuPlan, Math, usable_device
from pysim.training import Progress, no_progress
from pysim.workload import BlockGrid

# Sizes of clusters that are timed beside the default kernel where the GPU has clusters.
CLUSTERS = (2, 4, 8)
MATHS: tuple[Math, ...] = ("f32", "tf32", "f16", "bf16", "i8")
_DTYPES = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Half a unit in the last place, relative: of a factor before it is multiplied, of a result as it is stored.
_FACTOR = {"f32": 0.0, "tf32": 2.0**-11, "f16": 0.0, "bf16": 0.0}
_STORED = {"f32": 2.0**-24, "tf32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}


def bench_gpu(
    config: KernelBenchConfig,
    device: torch.device,
    progress: Progress = no_progress,
    *,
    maths: Sequence[Math] = MATHS,
    clusters: Sequence[int] = CLUSTERS,
) -> GpuBench:
    """Times W X for every type, block and width.

    Args:
        config: What; ``threads`` has no meaning here.
        device: The GPU; the CPU runs the emulation, for tests.
        progress: Told how many products are done.
        maths: Types, both of pysim's kernel and of torch's.
        clusters: Sizes of clusters to time beside the default kernel, where there is one for them.

    Raises:
        ConfigError: The GPU cannot be used.
    """
    gpu = usable_device(device)
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    rows: list[GpuBenchRow] = []
    total = len(maths) * len(config.blocks) * len(config.columns)
    try:
        for math in maths:
            matmul.allow_tf32 = math == "tf32"
            for block in config.blocks:
                for n in config.columns:
                    rows.append(_row(config, device, math, block, n, clusters))
                    progress("timing kernels on the GPU", len(rows), total)
    finally:
        matmul.allow_tf32 = before
    return GpuBench(
        gpu=gpu.name,
        capability=gpu.capability,
        m=config.m,
        k=config.k,
        sparsity=config.sparsity,
        seed=config.seed,
        versions={"torch": str(torch.__version__), "CUDA of torch": str(torch.version.cuda)},
        rows=tuple(rows),
    )


def _row(
    config: KernelBenchConfig,
    device: torch.device,
    math: Math,
    block: tuple[int, int],
    n: int,
    clusters: Sequence[int],
) -> GpuBenchRow:
    rng = np.random.default_rng(config.seed)
    grid = BlockGrid(m=config.m, k=config.k, bh=block[0], bw=block[1])
    blocks = grid.shape[0] * grid.shape[1]
    keep = np.zeros(blocks, dtype=bool)
    keep[rng.permutation(blocks)[: round((1 - config.sparsity) * blocks)]] = True
    mask = keep.reshape(grid.shape)
    if math == "i8":
        return time_int8(config, device, block, n, mask)
    w = rng.standard_normal((config.m, config.k), dtype=np.float32) * grid.expand(mask)
    dtype = _DTYPES[math]
    dense = torch.from_numpy(w).to(device, dtype)
    tokens = torch.from_numpy(rng.standard_normal((n, config.k), dtype=np.float32)).to(device, dtype)
    matrix = BsrMatrix.from_dense(w, grid, mask)
    plan = GpuPlan(grid, [(matrix.row_ptr, matrix.col_idx)], math=math, device=device, columns=n)
    exact, allowed = _exact(math, dense, tokens)
    columns = tokens.t().contiguous()
    values = torch.from_numpy(matrix.values.copy()).to(device, dtype)
    packed = plan.pack(values)
    clustered = _clustered(matrix, math, clusters, values, columns)

    # Both layouts of the activations for both sides; each is judged by its faster one.
    sparse_forms: dict[str, Callable[[], Tensor]] = {
        f"{PYSIM} tokens": lambda: plan.multiply(packed, tokens),
        f"{PYSIM} columns": lambda: plan.multiply(packed, columns.t()),
    }

    def error_of(call: Callable[[], Tensor]) -> float:
        return float(((call().double() - exact).abs() / allowed).max())

    error = max(error_of(call) for call in sparse_forms.values())
    variant_errors = {name: error_of(call) for name, call in clustered.items() if callable(call)}
    forms: dict[str, Callable[[], object]] = {
        "linear": lambda: linear(tokens, dense),
        "mm": lambda: torch.mm(dense, columns),
        **sparse_forms,
    }
    forms.update({name: call for name, call in clustered.items() if callable(call)})
    peers: dict[str, float | None] = {}
    if config.peers:
        for name, call in _peers(dense, columns, block).items():
            peers[name] = None
            if call is not None and _agrees(call, exact.t(), allowed.t()):
                forms[name] = call
    samples = interleave_on(device, forms)
    for name in peers:
        if name in samples:
            peers[name] = float(np.median(samples.pop(name))) * 1e6
    variants: dict[str, KernelVariant | str] = {n: c for n, c in clustered.items() if isinstance(c, str)}
    for name, largest in variant_errors.items():
        us = float(np.median(samples.pop(name))) * 1e6
        variants[name] = KernelVariant(us=us, max_error=largest)
    _, times = fastest({name: samples.pop(name) for name in sparse_forms})
    _, dense_times = fastest(samples)
    low, median, high = np.quantile(dense_times / times, (0.25, 0.5, 0.75))
    return GpuBenchRow(
        math=math,
        block=block,
        n=n,
        dense_us=float(np.median(dense_times)) * 1e6,
        sparse_us=float(np.median(times)) * 1e6,
        speedup_quartiles=(float(low), float(median), float(high)),
        max_error=error,
        peers=peers,
        variants=variants,
    )


def _clustered(
    matrix: BsrMatrix, math: Math, clusters: Sequence[int], values: Tensor, columns: Tensor
) -> dict[str, Callable[[], Tensor] | str]:
    """Calls of the kernel for clusters on X (k, n), if it takes it; for a size that fails, why."""
    calls: dict[str, Callable[[], Tensor] | str] = {}
    device, n = columns.device, columns.shape[1]
    if usable_device(device).capability != (9, 0) or values.element_size() != 2:
        return calls
    for size in clusters:
        name = f"cluster {size}"
        indices = [(matrix.row_ptr, matrix.col_idx)]
        try:
            plan = GpuPlan(matrix.grid, indices, math=math, device=device, columns=n, cluster=size)
            call = partial(plan.multiply, plan.pack(values), columns.t())
            call()
        except ConfigError as error:
            calls[name] = str(error)
            continue
        if plan.last_kernel != "cluster":
            return {}
        calls[name] = call
    return calls


def _exact(math: Math, dense: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """X W^T in float64, (n, m), and how far a float32 sum of the same products may be from it.

    Tensor cores cut off where others round, and align the terms of a step to the largest before they add: at
    most 2^-22 an addition (Fasi, Higham, Mikaitis, Pranesh, Numerical behavior of NVIDIA tensor cores, 2021).
    """
    exact = tokens.double() @ dense.double().t()
    magnitude = tokens.abs().double() @ dense.abs().double().t()
    u = 2.0**-24 if math == "f32" else 2.0**-22
    k = dense.shape[1] + 16  # padding of a step counts as additions too
    gamma = k * u / (1 - k * u)
    sums = ((1 + _FACTOR[math]) ** 2 * (1 + gamma) - 1) * magnitude
    smallest = 2.0**-25 if math == "f16" else 1e-30
    return exact, sums + _STORED[math] * (exact.abs() + sums) + smallest


def _peers(dense: Tensor, columns: Tensor, block: tuple[int, int]) -> dict[str, Callable[[], object] | None]:
    """Calls of torch's sparse products, None where blocks do not divide; some raise when they are called."""
    calls: dict[str, Callable[[], object] | None] = {"torch BSR": None, "bsr_dense_addmm": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse layouts a beta
        csr = dense.to_sparse_csr()
        calls["cuSPARSE CSR"] = lambda: csr @ columns
        if dense.shape[0] % block[0] == 0 and dense.shape[1] % block[1] == 0:
            bsr = dense.to_sparse_bsr(block)
            zeros = columns.new_zeros((dense.shape[0], columns.shape[1]))
            calls["torch BSR"] = lambda: bsr @ columns
            calls["bsr_dense_addmm"] = lambda: _bsr_dense_addmm(zeros, bsr, columns)
    return calls


def _bsr_dense_addmm(zeros: Tensor, bsr: Tensor, columns: Tensor) -> Tensor:
    """torch's Triton kernel, by its module: torch has no public name for it."""
    from torch.sparse._triton_ops import bsr_dense_addmm

    result: Tensor = bsr_dense_addmm(zeros, bsr, columns, beta=0)
    return result


def _agrees(call: Callable[[], object], exact: Tensor, allowed: Tensor) -> bool:
    """Whether the peer computes this product at all. Ten times as far off is still the same product."""
    try:
        result = call()
    except Exception:  # a peer may refuse a shape with any error of its own
        return False
    if not isinstance(result, Tensor) or result.shape != exact.shape:
        return False
    return bool(((result.double() - exact).abs() <= 10 * allowed).all())
