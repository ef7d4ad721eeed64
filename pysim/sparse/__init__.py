"""Block-sparse matrices and the measured CPU kernels."""

from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.isa import CudaStatus, IsaStatus, available_isas, cuda_status, isa_report
from pysim.sparse.plans import ConvPlan, SpmmPlan, spmm

__all__ = [
    "BsrMatrix",
    "ConvPlan",
    "CudaStatus",
    "IsaStatus",
    "SpmmPlan",
    "available_isas",
    "cuda_status",
    "isa_report",
    "spmm",
]
