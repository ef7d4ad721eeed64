"""The peak of this machine's multiply-adds, measured: what a kernel's rate is a share of."""

from __future__ import annotations

import time

from pysim import _core

# Rounds of one sample: some hundred microseconds, short enough to find a moment without other work.
_ROUNDS = 1 << 16


def fma_gflops(isa: str, *, samples: int = 20) -> float:
    """The best rate of multiply-adds in registers on one thread, in 1e9 floating-point operations a second.

    A multiply-add counts as two. The best of many samples is near what the core can do, whatever else runs.

    Args:
        isa: As ``SpmmPlan.isa``.
        samples: At least 1.

    Raises:
        ValueError: The instruction set is unknown or not available here.
    """
    best = 0.0
    for _ in range(samples):
        start = time.perf_counter()
        operations = _core.run_fma(isa, _ROUNDS)
        best = max(best, operations / (time.perf_counter() - start))
    return best / 1e9
