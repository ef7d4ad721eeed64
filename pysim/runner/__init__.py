"""The walk from a model's name to a result: train, prune, lower, simulate, time."""

from pysim.runner.bench import KernelBenchConfig, bench_kernels
from pysim.runner.run import RunConfig, run
from pysim.runner.system import SystemFacts, default_threads, describe_system
from pysim.runner.train_dense import train_dense

__all__ = [
    "KernelBenchConfig",
    "RunConfig",
    "SystemFacts",
    "bench_kernels",
    "default_threads",
    "describe_system",
    "run",
    "train_dense",
]
