"""The 8-bit rows of ``pysim bench kernels --device cuda``: against cuBLAS through torch's int8 product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pysim.result import GpuBenchRow
from pysim.runner.bench import KernelBenchConfig
from pysim.runner.gpu_timing import interleave_on
from pysim.runner.timing import PYSIM
from pysim.sparse import Int8BsrMatrix
from pysim.sparse.gpu_int8 import GpuInt8Plan
from pysim.workload import BlockGrid, BoolArray

# What torch._int_mm takes on a GPU: more than 16 rows, and multiples of 8 for the other two.
_LEAST_ROWS, _MULTIPLE = 24, 8


def time_int8(
    config: KernelBenchConfig, device: torch.device, block: tuple[int, int], n: int, mask: BoolArray
) -> GpuBenchRow:
    """Times W X of bytes to int32, tokens on both sides.

    The reduction is padded with zeros to a multiple of 8 for both sides; the dense side's other sizes too,
    and to at least 24 tokens. Errors are counted in half units: every sum is exact, so all but 0 is wrong.

    Args:
        config: What; as for ``bench_gpu``.
        device: The GPU; the CPU runs the emulation.
        block: Height and width.
        n: Tokens.
        mask: The kept blocks of W (m, k).

    Raises:
        ConfigError: The GPU cannot be used.
    """
    rng = np.random.default_rng(config.seed)
    kept = BlockGrid(m=config.m, k=config.k, bh=block[0], bw=block[1]).expand(mask)
    k = _rounded(config.k)
    w = np.zeros((config.m, k), np.int8)
    w[:, : config.k] = rng.integers(-128, 128, kept.shape) * kept
    matrix = Int8BsrMatrix.from_dense(w, BlockGrid(m=config.m, k=k, bh=block[0], bw=block[1]))
    plan = GpuInt8Plan([matrix], device=device, input_dtype="int8", columns=n)
    tokens = torch.zeros((max(_LEAST_ROWS, n), k), dtype=torch.int8)
    tokens[:n, : config.k] = torch.from_numpy(rng.integers(-128, 128, (n, config.k)).astype(np.int8))
    tokens = tokens.to(device)
    dense = torch.zeros((_rounded(config.m), k), dtype=torch.int8)
    dense[: config.m] = torch.from_numpy(w)
    right = dense.to(device).t()
    x = tokens[:n]
    exact = x.double() @ right[:, : config.m].double()
    error = 2 * float((plan.multiply(x).double() - exact).abs().max())
    forms: dict[str, Callable[[], Tensor]] = {
        "int_mm": lambda: torch._int_mm(tokens, right),
        PYSIM: lambda: plan.multiply(x),
    }
    samples = interleave_on(device, forms)
    low, median, high = np.quantile(samples["int_mm"] / samples[PYSIM], (0.25, 0.5, 0.75))
    return GpuBenchRow(
        math="i8",
        block=block,
        n=n,
        dense_us=float(np.median(samples["int_mm"])) * 1e6,
        sparse_us=float(np.median(samples[PYSIM])) * 1e6,
        speedup_quartiles=(float(low), float(median), float(high)),
        max_error=error,
        peers={},
        variants={},
    )


def _rounded(size: int) -> int:
    return -(-size // _MULTIPLE) * _MULTIPLE
