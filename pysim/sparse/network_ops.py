"""The operators of a compiled network, as plain data. Value 0 is the input, operator i makes value i + 1."""

from __future__ import annotations

from dataclasses import dataclass

from pysim.sparse.arrays import Float32Array
from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.pooling import PoolRanges


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvOp:
    """A convolution, then bias, residual and ReLU, in that order.

    A linear layer is a convolution of 1 x 1 on images of 1 x 1.
    """

    name: str
    x: int
    matrices: tuple[BsrMatrix, ...]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    bias: Float32Array | None = None
    residual: int | None = None
    relu: bool = False

    def __str__(self) -> str:
        grid = self.matrices[0].grid
        blocks = sum(m.nnz_blocks for m in self.matrices) / (
            len(self.matrices) * grid.shape[0] * grid.shape[1]
        )
        parts = [f"{len(self.matrices) * grid.m} x {grid.k}, {grid.bh}x{grid.bw}, {blocks:.0%} kept"]
        parts += ["+ bias"] if self.bias is not None else []
        parts += [f"+ %{self.residual}"] if self.residual is not None else []
        parts += ["ReLU"] if self.relu else []
        return f"{self.name}: %{self.x}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOp:
    name: str
    x: int
    average: bool
    rows: PoolRanges
    cols: PoolRanges

    def __str__(self) -> str:
        return f"{self.name}: {'average' if self.average else 'largest'} of %{self.x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOp:
    name: str
    a: int
    b: int
    relu: bool = False

    def __str__(self) -> str:
        return f"{self.name}: %{self.a} + %{self.b}{', ReLU' if self.relu else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClampOp:
    name: str
    x: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name}: %{self.x} to {self.low:g} .. {self.high:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenOp:
    name: str
    x: int

    def __str__(self) -> str:
        return f"{self.name}: %{self.x} as features"


Op = ConvOp | PoolOp | AddOp | ClampOp | FlattenOp


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOps:
    """Operators in order; operator i's result is value i + 1, value 0 is the input.

    Args:
        input_shape: (N, C, H, W) or (N, features).
        output_shape: The same of the result.
        output: The value that is the result.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    output: int
