"""What comes back from simulation and from a run. Plain frozen data."""

from pysim.result.gemm import GemmResult, MemoryResult, add_results
from pysim.result.prune import PRUNE_SCHEMA, LevelResult, PruneResult, Sample, Trial
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
from pysim.result.study import STUDY_SCHEMA, Answer, Evidence, StudyResult, Verdict

__all__ = [
    "PRUNE_SCHEMA",
    "SCHEMA",
    "STUDY_SCHEMA",
    "Accuracy",
    "Answer",
    "BlockRun",
    "Check",
    "Energy",
    "Evidence",
    "GemmResult",
    "KernelTiming",
    "LayerResult",
    "LevelResult",
    "MemoryResult",
    "NetworkTime",
    "PruneResult",
    "RunResult",
    "Sample",
    "StudyResult",
    "Trial",
    "VectorWork",
    "Verdict",
    "add_results",
]
