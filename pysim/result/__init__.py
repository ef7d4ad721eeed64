"""What comes back from simulation and from a run. Plain frozen data."""

from pysim.result.gemm import CoreResult, GemmResult, MemoryResult, add_results
from pysim.result.run import (
    SCHEMA,
    Accuracy,
    BlockRun,
    Check,
    Energy,
    EnergyDelay,
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
    "CoreResult",
    "Energy",
    "EnergyDelay",
    "GemmResult",
    "KernelTiming",
    "LayerResult",
    "MemoryResult",
    "NetworkTime",
    "RunResult",
    "VectorWork",
    "add_results",
]
