"""What comes back from simulation. Plain frozen data."""

from pysim.result.gemm import GemmResult

__all__ = ["GemmResult"]
