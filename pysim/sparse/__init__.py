"""Block-sparse matrices and the measured CPU kernels."""

from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.export import from_scipy, from_torch, padded_shape, to_scipy, to_torch
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
    "from_scipy",
    "from_torch",
    "isa_report",
    "padded_shape",
    "spmm",
    "to_scipy",
    "to_torch",
]
