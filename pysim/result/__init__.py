"""What comes back from simulation and from a run. Plain frozen data."""

from pysim.result.bench import KernelBench, KernelBenchRow
from pysim.result.gemm import CoreResult, GemmResult, MemoryResult, add_results
from pysim.result.gpu_bench import GpuBench, GpuBenchRow
from pysim.result.prune import PRUNE_SCHEMA, LevelResult, PruneResult, Sample, Trial
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
    OneCallTiming,
    RunResult,
    VectorWork,
)
from pysim.result.study import STUDY_SCHEMA, Answer, Evidence, Point, StudyResult, TradeOff, Verdict

__all__ = [
    "PRUNE_SCHEMA",
    "SCHEMA",
    "STUDY_SCHEMA",
    "Accuracy",
    "Answer",
    "BlockRun",
    "Check",
    "CoreResult",
    "Energy",
    "EnergyDelay",
    "Evidence",
    "GemmResult",
    "GpuBench",
    "GpuBenchRow",
    "KernelBench",
    "KernelBenchRow",
    "KernelTiming",
    "LayerResult",
    "LevelResult",
    "MemoryResult",
    "NetworkTime",
    "OneCallTiming",
    "Point",
    "PruneResult",
    "RunResult",
    "Sample",
    "StudyResult",
    "TradeOff",
    "Trial",
    "VectorWork",
    "Verdict",
    "add_results",
]
