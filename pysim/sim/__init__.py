"""Workload and accelerator to result, through the C++ engines."""

from pysim.sim.gemm import ENGINES, Engine, choose_mapping, simulate_gemm, simulate_layer
from pysim.sim.mapping import Mapping
from pysim.sim.timeline import STALL_CAUSES, TRANSFER_KINDS, Timeline, list_timeline, write_request_trace

__all__ = [
    "ENGINES",
    "STALL_CAUSES",
    "TRANSFER_KINDS",
    "Engine",
    "Mapping",
    "Timeline",
    "choose_mapping",
    "list_timeline",
    "simulate_gemm",
    "simulate_layer",
    "write_request_trace",
]
