"""Workload and accelerator to result, through the C++ engines."""

from pysim.sim.gemm import ENGINES, Engine, simulate_gemm, simulate_layer

__all__ = ["ENGINES", "Engine", "simulate_gemm", "simulate_layer"]
