"""What comes back from simulation and from a run. Plain frozen data."""

from pysim.result.bench import KernelBench, KernelBenchRow
from pysim.result.gemm import GemmResult, MemoryResult, add_results
from pysim.result.run import (
    SCHEMA,
    Accuracy,
    BlockRun,
    Check,
    Energy,
    KernelTiming,
    LayerResult,
    NetworkTime,
    RunResult,
    VectorWork,
)

__all__ = [
    "SCHEMA",
    "Accuracy",
    "BlockRun",
    "Check",
    "Energy",
    "GemmResult",
    "KernelBench",
    "KernelBenchRow",
    "KernelTiming",
    "LayerResult",
    "MemoryResult",
    "NetworkTime",
    "RunResult",
    "VectorWork",
    "add_results",
]
