"""Block-sparse matrices, the measured CPU kernels, and layers that run on them."""

from pysim.sparse.batch_norm import FusedBatchNorm2d
from pysim.sparse.bsr import BsrMatrix, Int8BsrMatrix
from pysim.sparse.compression import Compressed, LayerChoice, compress
from pysim.sparse.conv2d import BsrConv2d
from pysim.sparse.convert import from_scipy_bsr, from_torch_bsr, to_scipy_bsr, to_torch_bsr
from pysim.sparse.int8 import Int8ConvPlan, Int8SpmmPlan
from pysim.sparse.isa import (
    CudaDevice,
    CudaStatus,
    IsaStatus,
    available_int8_isas,
    available_isas,
    cuda_status,
    int8_isa_report,
    isa_report,
)
from pysim.sparse.linear import BsrLinear
from pysim.sparse.network import CompiledNetwork, compile  # noqa: A004
from pysim.sparse.plans import ConvPlan, SpmmPlan, spmm
from pysim.sparse.quantization import Quantization, quantize_weights
from pysim.sparse.training_form import training_form

__all__ = [
    "BsrConv2d",
    "BsrLinear",
    "BsrMatrix",
    "CompiledNetwork",
    "Compressed",
    "ConvPlan",
    "CudaDevice",
    "CudaStatus",
    "FusedBatchNorm2d",
    "Int8BsrMatrix",
    "Int8ConvPlan",
    "Int8SpmmPlan",
    "IsaStatus",
    "LayerChoice",
    "Quantization",
    "SpmmPlan",
    "available_int8_isas",
    "available_isas",
    "compile",
    "compress",
    "cuda_status",
    "from_scipy_bsr",
    "from_torch_bsr",
    "int8_isa_report",
    "isa_report",
    "quantize_weights",
    "spmm",
    "to_scipy_bsr",
    "to_torch_bsr",
    "training_form",
]
