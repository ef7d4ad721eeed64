from typing import TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

# numpy or torch, all of a call alike.
_ArrayT = TypeVar("_ArrayT", npt.NDArray[np.float32], Tensor)

# The simulated machine (csrc/bindings/sim.cpp).

_Grid: TypeAlias = tuple[int, int, int, int, int]  # m, k, positions, block height, block width

# Input height and width, output height and width, then (y, x) of kernel, stride, padding and dilation.
_Conv: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int]

class MemoryConfig:
    def __init__(
        self,
        *,
        input_capacity: int,
        weight_capacity: int,
        output_capacity: int,
        bandwidth: int,
        latency: int,
        input_bits: int,
        weight_bits: int,
        output_bits: int,
        accumulator_bits: int,
        index_bits: int,
        dram: tuple[int, ...] | None = None,
    ) -> None: ...

class MemoryCounts:
    @property
    def compute_cycles(self) -> int: ...
    @property
    def stall_weight_cycles(self) -> int: ...
    @property
    def stall_input_cycles(self) -> int: ...
    @property
    def stall_output_cycles(self) -> int: ...
    @property
    def input_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def index_bytes(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...
    @property
    def spill_bytes(self) -> int: ...
    @property
    def reload_bytes(self) -> int: ...
    @property
    def dram_bursts(self) -> int: ...
    @property
    def row_misses(self) -> int: ...
    @property
    def row_conflicts(self) -> int: ...
    @property
    def input_reads(self) -> int: ...
    @property
    def input_writes(self) -> int: ...
    @property
    def weight_reads(self) -> int: ...
    @property
    def weight_writes(self) -> int: ...
    @property
    def output_reads(self) -> int: ...
    @property
    def output_writes(self) -> int: ...

class ArrayConfig:
    def __init__(
        self,
        *,
        rows: int,
        cols: int,
        dataflow: str,
        skip: str,
        pipelining: str,
        mux: int,
        group_cols: int,
        cores: int = 1,
        swapped: bool = False,
        piece: int = 256,
    ) -> None: ...

class CoreCycles:
    @property
    def compute_cycles(self) -> int: ...
    @property
    def stall_weight_cycles(self) -> int: ...
    @property
    def stall_input_cycles(self) -> int: ...
    @property
    def stall_output_cycles(self) -> int: ...

class Counts:
    @property
    def cycles(self) -> int: ...
    @property
    def folds(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def skipped_macs(self) -> int: ...
    @property
    def kept_macs(self) -> int: ...
    @property
    def padded_macs(self) -> int: ...
    @property
    def memory(self) -> MemoryCounts | None: ...
    @property
    def cores(self) -> list[CoreCycles]: ...

def simulate_event(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    n: int,
    memory: MemoryConfig | None = None,
    conv: _Conv | None = None,
) -> Counts: ...
def list_timeline(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    n: int,
    memory: MemoryConfig | None,
    conv: _Conv | None,
    max_rows: int,
) -> tuple[dict[str, npt.NDArray[np.int64]], int, bool]: ...
@overload
def simulate_cycle(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    w: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    memory: MemoryConfig | None = None,
    conv: _Conv | None = None,
) -> tuple[Counts, npt.NDArray[np.float32]]: ...
@overload
def simulate_cycle(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    w: npt.NDArray[np.int8],
    x: npt.NDArray[np.int8],
    memory: MemoryConfig | None = None,
    conv: _Conv | None = None,
) -> tuple[Counts, npt.NDArray[np.int32]]: ...

# csrc/kernels: block-sparse products on this machine.

_ScalarT = TypeVar("_ScalarT", np.float32, np.int8)
BsrParts: TypeAlias = tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[_ScalarT]]

class SpmmPlan:
    def __init__(
        self,
        grid: _Grid,
        row_ptr: npt.NDArray[np.int64],
        col_idx: npt.NDArray[np.int32],
        values: npt.NDArray[np.float32],
        *,
        bias: list[float] | None = None,
        relu: bool = False,
        trainable: bool = False,
        transposed: bool = False,
        bfloat16: bool = False,
        isa: str,
        threads: int,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def run(self, x: _ArrayT, out: _ArrayT | None = None, residual: _ArrayT | None = None) -> _ArrayT: ...
    def weight_gradient(self, dy: _ArrayT, x: _ArrayT, values: npt.NDArray[np.float32]) -> None: ...

class ConvWeights:
    def __init__(
        self,
        groups: list[BsrParts[np.float32]],
        *,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        bias: list[float] | None,
        relu: bool = False,
        trainable: bool = False,
        isa: str,
        threads: int,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def prepare(self, height: int, width: int) -> None: ...
    def run(
        self, x: _ArrayT, out: _ArrayT | None = None, residual: _ArrayT | None = None
    ) -> _ArrayT | None: ...
    def with_values(self, values: npt.NDArray[np.float32] | Tensor) -> ConvWeights: ...
    def gradients(
        self,
        dy: _ArrayT,
        x: _ArrayT | None,
        height: int,
        width: int,
        dx: _ArrayT | None,
        values: list[npt.NDArray[np.float32]],
    ) -> bool: ...

class NetworkGraph:
    def __init__(self) -> None: ...
    def input(self, channels: int, height: int, width: int) -> int: ...
    def conv(self, x: int, weights: ConvWeights, residual: int = -1) -> int: ...
    def pool(
        self,
        x: int,
        *,
        average: bool,
        rows: list[tuple[int, int, int]],
        cols: list[tuple[int, int, int]],
    ) -> int: ...
    def add(self, a: int, b: int, *, relu: bool) -> int: ...
    def clamp(self, x: int, *, low: float, high: float) -> int: ...
    def flatten(self, x: int) -> int: ...

class Network:
    def __init__(
        self,
        graph: NetworkGraph,
        *,
        output: int,
        batch: int,
        in_dims: int,
        out_dims: int,
        isa: str,
        threads: int,
    ) -> None: ...
    def run(self, x: _ArrayT, out: _ArrayT | None = None) -> _ArrayT: ...
    @property
    def chunk_images(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...

def run_fma(isa: str, rounds: int) -> float: ...
def check_bsr(
    grid: _Grid,
    row_ptr: npt.NDArray[np.int64],
    col_idx: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None: ...
def isa_report() -> list[tuple[str, bool, str]]: ...
def resolve_isa(requested: str) -> str: ...
def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    relu: bool,
    epsilon: float,
    isa: str,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def batch_norm_gradient(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    inverse_deviation: Tensor,
    *,
    relu: bool,
    isa: str,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]: ...

# Signed input, its zero point, bias of the sums, scale, bias, output, its zero point, ReLU.
Int8Options: TypeAlias = tuple[bool, int, list[int], list[float], list[float], str, int, bool]

class Int8SpmmPlan:
    def __init__(
        self,
        grid: _Grid,
        row_ptr: npt.NDArray[np.int64],
        col_idx: npt.NDArray[np.int32],
        values: npt.NDArray[np.int8],
        *,
        options: Int8Options,
        isa: str,
        threads: int,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def run(self, x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> None: ...

class Int8ConvPlan:
    def __init__(
        self,
        groups: list[BsrParts[np.int8]],
        *,
        size: tuple[int, int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        options: Int8Options,
        isa: str,
        threads: int,
    ) -> None: ...
    def run(self, x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> None: ...
    def out_shape(self, batch: int) -> list[int]: ...

def check_int8_bsr(
    grid: _Grid,
    row_ptr: npt.NDArray[np.int64],
    col_idx: npt.NDArray[np.int32],
    values: npt.NDArray[np.int8],
) -> None: ...
def int8_isa_report() -> list[tuple[str, bool, str]]: ...
def resolve_int8_isa(requested: str, *, missing: list[str] = ...) -> str: ...

# Products on GPUs. Memory crosses as (address, bytes from there on).

_Memory: TypeAlias = tuple[int, int]

class Int8Epilogue:
    def __init__(self, groups: list[BsrParts[np.int8]], *, options: Int8Options) -> None: ...
    @property
    def table(self) -> npt.NDArray[np.int32]: ...

class GpuPlan:
    def __init__(
        self,
        groups: list[tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int32]]],
        *,
        math: str,
        shared_bytes: int,
        processors: int,
        columns: int,
        cluster: int,
    ) -> None: ...
    def run(
        self,
        *,
        device: int,
        stream: int,
        image: _Memory,
        weights: _Memory,
        x: _Memory,
        source: tuple[int, ...],
        y: _Memory,
        y_strides: tuple[int, int],
        bias: _Memory | None,
        workspace: _Memory | None,
        relu: bool,
        epilogue: Int8Epilogue | None = None,
    ) -> str: ...
    def launches(
        self,
        *,
        image: _Memory,
        weights: _Memory,
        x: _Memory,
        source: tuple[int, ...],
        y: _Memory,
        y_strides: tuple[int, int],
        bias: _Memory | None,
        workspace: _Memory | None,
        relu: bool,
        epilogue: Int8Epilogue | None = None,
    ) -> bytes: ...
    def workspace_bytes(self, n: int) -> int: ...
    @property
    def image(self) -> npt.NDArray[np.uint8]: ...
    @property
    def places(self) -> npt.NDArray[np.int32]: ...
    @property
    def facts(self) -> dict[str, int]: ...

def cuda_status() -> tuple[bool, list[tuple[str, int, int, int, int]], str]: ...
