from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

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

BsrParts: TypeAlias = tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]

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
        isa: str,
        threads: int,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def run(
        self,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,
    ) -> None: ...
    def weight_gradient(
        self, dy: npt.NDArray[np.float32], x: npt.NDArray[np.float32], values: npt.NDArray[np.float32]
    ) -> None: ...

class ConvPlan:
    def run(
        self,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,
    ) -> None: ...
    def out_shape(self, batch: int) -> list[int]: ...
    def weight_gradient(
        self, dy: npt.NDArray[np.float32], x: npt.NDArray[np.float32], values: list[npt.NDArray[np.float32]]
    ) -> None: ...

class ConvInputGradient:
    def run(self, dy: npt.NDArray[np.float32], dx: npt.NDArray[np.float32]) -> None: ...

class ConvWeights:
    def __init__(
        self,
        groups: list[BsrParts],
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
    def plan(self, height: int, width: int) -> ConvPlan: ...
    def input_gradient(self, height: int, width: int) -> ConvInputGradient: ...

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
    def __init__(self, graph: NetworkGraph, *, output: int, batch: int, isa: str, threads: int) -> None: ...
    def run(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> None: ...
    @property
    def chunk_images(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...

def check_bsr(
    grid: _Grid,
    row_ptr: npt.NDArray[np.int64],
    col_idx: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None: ...
def isa_report() -> list[tuple[str, bool, str]]: ...
def resolve_isa(requested: str) -> str: ...

# Products on GPUs. Memory crosses as (address, bytes from there on).

_Memory: TypeAlias = tuple[int, int]

class GpuPlan:
    def __init__(
        self,
        groups: list[tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int32]]],
        *,
        math: str,
        shared_bytes: int,
        processors: int,
        columns: int,
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
    ) -> None: ...
    def workspace_bytes(self, n: int) -> int: ...
    @property
    def image(self) -> npt.NDArray[np.uint8]: ...
    @property
    def places(self) -> npt.NDArray[np.int32]: ...
    @property
    def facts(self) -> dict[str, int]: ...

def cuda_status() -> tuple[bool, list[tuple[str, int, int, int, int]], str]: ...
