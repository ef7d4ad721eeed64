"""The walk from a model's name to a result: train, prune, lower, simulate, time."""

from pysim.pruning import Layout, PruneConfig
from pysim.runner.bench import KernelBenchConfig, bench_kernels
from pysim.runner.gpu_bench import bench_gpu
from pysim.runner.gpu_timing import gpu_device
from pysim.runner.inputs import choose_data
from pysim.runner.measure import Measured, measure_study
from pysim.runner.methods import METHODS, Init
from pysim.runner.prune import PruneRunConfig, prune
from pysim.runner.run import RunConfig, run
from pysim.runner.study import find_study, load_study, run_study
from pysim.runner.system import SystemFacts, default_threads, describe_system
from pysim.runner.train_dense import train_dense
from pysim.runner.tune import TuneConfig, tune, tune_machine
from pysim.training import Threads

__all__ = [
    "METHODS",
    "Init",
    "KernelBenchConfig",
    "Layout",
    "Measured",
    "PruneConfig",
    "PruneRunConfig",
    "RunConfig",
    "SystemFacts",
    "Threads",
    "TuneConfig",
    "bench_gpu",
    "bench_kernels",
    "choose_data",
    "default_threads",
    "describe_system",
    "find_study",
    "gpu_device",
    "load_study",
    "measure_study",
    "prune",
    "run",
    "run_study",
    "train_dense",
    "tune",
    "tune_machine",
]
