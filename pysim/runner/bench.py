"""``pysim bench kernels``: block-sparse products against torch's dense one and other libraries.

Every form is checked against the exact product before it is timed, then called in turn with the others.
Weights of fewer bits are timed beside pysim's own float32 product too.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pysim.errors import ConfigError
from pysim.result import KernelBench, KernelBenchRow
from pysim.runner.timing import PYSIM, fastest, interleave
from pysim.sparse import (
    BsrMatrix,
    Int8SpmmPlan,
    Quantization,
    SpmmPlan,
    quantize_weights,
    to_scipy_bsr,
)
from pysim.sparse.peak import fma_gflops
from pysim.training import Progress, no_progress
from pysim.workload import BlockGrid

_MOST_WEIGHTS = 2**28
_DTYPES = ("float32", "bfloat16", "int8")
_OWN_FLOAT32 = "pysim float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBenchConfig:
    """What to measure.

    Args:
        blocks: Heights and widths, at least one.
        m: Rows of W.
        k: Columns of W.
        columns: Widths n of X.
        sparsity: Share of blocks to prune, from 0 to below 1.
        dtype: Of pysim's weights: ``float32``, ``bfloat16``, or ``int8``, where X and Y have 8 bits too.
        threads: For every library that takes them.
        peers: Whether to time other libraries too.
        seed: Of masks and values.

    Raises:
        ConfigError: A field is out of range.
    """

    blocks: tuple[tuple[int, int], ...]
    m: int = 768
    k: int = 768
    columns: tuple[int, ...] = (1, 64, 512)
    sparsity: float = 0.9
    dtype: str = "float32"
    threads: int = 1
    peers: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("m", "k", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.columns or min(self.columns) < 1:
            raise ConfigError(f"columns: expected widths of at least 1, got {self.columns}")
        if self.m * self.k > _MOST_WEIGHTS or self.k * max(self.columns) > _MOST_WEIGHTS:
            raise ConfigError(f"size: expected matrices of at most {_MOST_WEIGHTS} elements")
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity: expected from 0 to below 1, got {self.sparsity}")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype: expected one of {', '.join(_DTYPES)}, got {self.dtype!r}")


def bench_kernels(config: KernelBenchConfig, progress: Progress = no_progress) -> KernelBench:
    """Times W X for every block and width.

    Raises:
        ConfigError: A field is out of range.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows: list[KernelBenchRow] = []
        isa = ""
        total = len(config.blocks) * len(config.columns)
        for block in config.blocks:
            for n in config.columns:
                row, isa = _row(config, block, n)
                rows.append(row)
                progress("timing kernels", len(rows), total)
    finally:
        torch.set_num_threads(before)
    versions = {"torch": str(torch.__version__)}
    if config.peers and _scipy_version():
        versions["scipy"] = _scipy_version()
    return KernelBench(
        m=config.m,
        k=config.k,
        sparsity=config.sparsity,
        dtype=config.dtype,
        isa=isa,
        threads=config.threads,
        peak_gflops=None if config.dtype == "int8" else config.threads * fma_gflops(isa),
        seed=config.seed,
        versions=versions,
        rows=tuple(rows),
    )


def _row(config: KernelBenchConfig, block: tuple[int, int], n: int) -> tuple[KernelBenchRow, str]:
    rng = np.random.default_rng(config.seed)
    grid = BlockGrid(m=config.m, k=config.k, bh=block[0], bw=block[1])
    blocks = grid.shape[0] * grid.shape[1]
    keep = np.zeros(blocks, dtype=bool)
    keep[rng.permutation(blocks)[: round((1 - config.sparsity) * blocks)]] = True
    mask = keep.reshape(grid.shape)
    w = rng.standard_normal((config.m, config.k), dtype=np.float32) * grid.expand(mask)
    x = torch.from_numpy(rng.standard_normal((config.k, n), dtype=np.float32))
    dense = torch.from_numpy(w)
    matrix = BsrMatrix.from_dense(w, grid, mask)
    plan = SpmmPlan(matrix, threads=config.threads)
    exact = dense.double() @ x.double()
    u = 2.0**-24
    allowed = config.k * u / (1 - config.k * u) * (dense.abs().double() @ x.abs().double()) + 1e-30
    call, error, isa = _product(config, matrix, plan, x, exact, allowed)

    tokens = x.t().contiguous()
    dense_forms: dict[str, Callable[[], object]] = {
        "mm": lambda: torch.mm(dense, x),
        "linear": lambda: torch.nn.functional.linear(tokens, dense),
    }
    forms = {**dense_forms, PYSIM: call}
    names: list[str] = []
    peers: dict[str, float | None] = {}
    if config.dtype != "float32":
        forms[_OWN_FLOAT32] = lambda: plan(x)
        names.append(_OWN_FLOAT32)
    if config.peers:
        for name, peer in _peers(matrix, dense, x).items():
            peers[name] = None
            if peer is not None and _agrees(peer, exact, allowed):
                forms[name] = peer
                names.append(name)
    samples = interleave(forms)
    times = samples.pop(PYSIM)
    for name in names:
        peers[name] = float(np.median(samples.pop(name))) * 1e6
    _, dense_times = fastest(samples)
    low, median, high = np.quantile(dense_times / times, (0.25, 0.5, 0.75))
    kept = int((mask * grid.sizes()).sum())
    return (
        KernelBenchRow(
            block=block,
            n=n,
            dense_us=float(np.median(dense_times)) * 1e6,
            sparse_us=float(np.median(times)) * 1e6,
            speedup_quartiles=(float(low), float(median), float(high)),
            gflops=2 * kept * n / float(np.median(times)) / 1e9,
            max_error=error,
            peers=peers,
        ),
        isa,
    )


def _product(
    config: KernelBenchConfig, matrix: BsrMatrix, plan: SpmmPlan, x: Tensor, exact: Tensor, allowed: Tensor
) -> tuple[Callable[[], object], float, str]:
    """The product to time, its error as a share of what is allowed, and the instruction set that runs."""
    if config.dtype == "int8":
        small, scale = quantize_weights(matrix)
        quantization = Quantization.of(x.numpy())
        q = torch.from_numpy(quantization.quantize(x.numpy()))
        shift = quantization.zero_point
        sums = Int8SpmmPlan(small, input_zero_point=shift, threads=config.threads)(q)
        if not torch.equal(sums.double(), torch.from_numpy(small.to_dense()).double() @ (q.double() - shift)):
            raise RuntimeError("int8 product: expected exact sums, got others; this is a bug in pysim")
        steps = Quantization.of(exact.float().numpy())
        requantised = Int8SpmmPlan(
            small,
            input_zero_point=shift,
            scale=scale * np.float32(quantization.scale / steps.scale),
            output="uint8",
            output_zero_point=steps.zero_point,
            threads=config.threads,
        )
        return (lambda: requantised(q)), 0.0, requantised.isa
    if config.dtype == "bfloat16":
        plan = SpmmPlan(matrix, weight_dtype="bfloat16", threads=config.threads)
        exact = torch.from_numpy(matrix.to_dense()).bfloat16().double() @ x.double()
    return (lambda: plan(x)), float(((plan(x).double() - exact).abs() / allowed).max()), plan.isa


def _peers(matrix: BsrMatrix, dense: Tensor, x: Tensor) -> dict[str, Callable[[], object] | None]:
    """Calls of other libraries; None where one refuses the block. torch's CSR and BSR products are MKL's."""
    block = matrix.grid.bh, matrix.grid.bw
    calls: dict[str, Callable[[], object] | None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse layouts a beta
        csr = dense.to_sparse_csr()
        calls["torch CSR"] = lambda: csr @ x
        try:
            bsr = dense.to_sparse_bsr(block)
            bsr @ x
            calls["torch BSR"] = lambda: bsr @ x
        except RuntimeError:  # blocks that do not divide the matrix, or are not square
            calls["torch BSR"] = None
    if _scipy_version():
        divides = dense.shape[0] % block[0] == 0 and dense.shape[1] % block[1] == 0
        scipy_bsr = to_scipy_bsr(matrix) if divides else None
        columns = x.numpy()
        calls["scipy BSR"] = None if scipy_bsr is None else lambda: scipy_bsr @ columns
    return calls


def _agrees(call: Callable[[], object], exact: Tensor, allowed: Tensor) -> bool:
    """Whether the peer computes this product at all."""
    result = torch.as_tensor(call()).double()
    return result.shape == exact.shape and bool(((result - exact).abs() <= allowed).all())


def _scipy_version() -> str:
    try:
        return importlib.metadata.version("scipy")
    except importlib.metadata.PackageNotFoundError:
        return ""
