"""Block-sparse matrices, the measured CPU kernels, and layers that run on them."""

from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.compression import Compressed, LayerChoice, compress
from pysim.sparse.conv2d import BsrConv2d
from pysim.sparse.convert import from_scipy_bsr, from_torch_bsr, to_scipy_bsr, to_torch_bsr
from pysim.sparse.isa import CudaDevice, CudaStatus, IsaStatus, available_isas, cuda_status, isa_report
from pysim.sparse.linear import BsrLinear
from pysim.sparse.network import CompiledNetwork, compile  # noqa: A004
from pysim.sparse.plans import ConvPlan, SpmmPlan, spmm

__all__ = [
    "BsrConv2d",
    "BsrLinear",
    "BsrMatrix",
    "CompiledNetwork",
    "Compressed",
    "ConvPlan",
    "CudaDevice",
    "CudaStatus",
    "IsaStatus",
    "LayerChoice",
    "SpmmPlan",
    "available_isas",
    "compile",
    "compress",
    "cuda_status",
    "from_scipy_bsr",
    "from_torch_bsr",
    "isa_report",
    "spmm",
    "to_scipy_bsr",
    "to_torch_bsr",
]
