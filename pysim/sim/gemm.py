"""One matrix product on one accelerator: checks the arguments and hands them to the C++ engines."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pysim import _core
from pysim.config import Accelerator, Memory
from pysim.errors import ConfigError, ShapeError
from pysim.result import CoreResult, GemmResult, MemoryResult
from pysim.result.gemm import OutputArray
from pysim.sim.mapping import Mapping, best_mapping
from pysim.sim.reorder import feature_order
from pysim.workload import BlockGrid, BoolArray, ConvGeometry

Engine: TypeAlias = Literal["event", "cycle"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def simulate_layer(
    grid: BlockGrid,
    mask: BoolArray,
    n: int,
    accelerator: Accelerator,
    *,
    conv: ConvGeometry | None = None,
) -> GemmResult:
    """Counts of W (m, k) times (k, n) from the block mask alone, by the event engine.

    Args:
        grid: The shape of W and its blocks.
        mask: (block rows, block columns), True where a block is kept.
        n: Output positions, at least 1.
        accelerator: The array, and the memory beside it if it has one.
        conv: The convolution that the product stands for, so that a pixel that several kernel positions need
            is fetched once; None for a plain product, whose X has K * N elements of its own. Used by the
            memory alone.

    Raises:
        ShapeError: The mask is not a bool array of the grid's shape, or the convolution does not match.
        ConfigError: n is below 1, a count does not fit in 64 bits, or a buffer is too small for the layer.
    """
    return _choose(grid, mask, n, accelerator, conv)[1]


def choose_mapping(
    grid: BlockGrid,
    mask: BoolArray,
    n: int,
    accelerator: Accelerator,
    *,
    conv: ConvGeometry | None = None,
) -> Mapping:
    """How an accelerator with ``reorder`` or ``mapper`` runs the layer; the plain mapping without both.

    Raises:
        As ``simulate_layer``.
    """
    if not accelerator.reorder and not accelerator.mapper:
        return Mapping()
    return _choose(grid, mask, n, accelerator, conv)[0]


def _choose(
    grid: BlockGrid, mask: BoolArray, n: int, accelerator: Accelerator, conv: ConvGeometry | None
) -> tuple[Mapping, GemmResult]:
    grid.check_mask(mask)
    n = positive_int(n, "n")

    def simulate(mapping: Mapping) -> GemmResult:
        return _simulate_event(grid, mask, n, accelerator, conv, mapping)

    return best_mapping(grid, mask, accelerator, simulate)


def _simulate_event(
    grid: BlockGrid,
    mask: BoolArray,
    n: int,
    accelerator: Accelerator,
    conv: ConvGeometry | None,
    mapping: Mapping,
) -> GemmResult:
    try:
        counts = _core.simulate_event(
            core_array(accelerator, grid, mapping),
            grid_tuple(grid),
            mapped_mask(mask, mapping),
            n,
            core_memory(accelerator.memory),
            core_conv(conv, grid, n),
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    return _result(counts, accelerator, None)


def simulate_gemm(
    w: npt.ArrayLike,
    x: npt.ArrayLike | int,
    *,
    block: tuple[int, int],
    accelerator: Accelerator,
    engine: Engine = "event",
    mask: npt.ArrayLike | None = None,
    positions: int = 1,
    conv: ConvGeometry | None = None,
) -> GemmResult:
    """Simulates Y (M, N) = W (M, K) X (K, N) with pruned blocks.

    Args:
        w: (M, K) weights; float32 or int8 for the cycle engine, any number type for the event engine.
        x: (K, N) inputs of the weights' type, or N alone for the event engine, at least 1.
        block: Block height in output features and width in input channels, each at least 1.
        accelerator: The array, and the memory beside it if it has one.
        engine: ``event`` counts fold by fold; ``cycle`` steps every register and also produces Y.
        mask: (block rows, block columns) bool, True where a block is kept; weights of other blocks count as
            zero. Default: a block is pruned if all its weights are zero.
        positions: Kernel positions; K = positions * channels, and no block straddles two of them.
        conv: As for ``simulate_layer``.

    Raises:
        ShapeError: An array has the wrong shape or type, or the convolution is not of this product.
        ConfigError: A setting is out of range, the layer is too large for the cycle engine, or a buffer is
            too small for the layer.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    weights = np.asarray(w)
    if weights.ndim != 2:
        raise ShapeError(f"weights: expected shape (M, K), got {weights.shape}")
    bh, bw = _block_sides(block)
    grid = BlockGrid(
        m=weights.shape[0], k=weights.shape[1], positions=positive_int(positions, "positions"), bh=bh, bw=bw
    )
    kept = grid.nonzero_blocks(weights) if mask is None else np.asarray(mask)
    grid.check_mask(kept)
    if engine == "event":
        return simulate_layer(grid, kept, _positions_of(x, grid.k), accelerator, conv=conv)
    if np.ndim(x) == 0:
        raise ShapeError(
            "inputs: expected an array of shape (K, N) for engine cycle, got a number",
            hint='Pass the inputs, or use engine="event".',
        )
    return _simulate_cycle(grid, kept, weights, np.asarray(x), accelerator, conv)


def _simulate_cycle(
    grid: BlockGrid,
    mask: BoolArray,
    w: npt.NDArray[np.generic],
    x: npt.NDArray[np.generic],
    accelerator: Accelerator,
    conv: ConvGeometry | None,
) -> GemmResult:
    _check_inputs(x, grid.k)
    if w.dtype != x.dtype or w.dtype not in (np.float32, np.int8):
        raise ShapeError(
            "operands: expected weights and inputs both float32 or both int8 for engine cycle, "
            f"got {w.dtype} and {x.dtype}",
            hint="Convert them with .astype(numpy.float32).",
        )
    mapping = choose_mapping(grid, mask, x.shape[1], accelerator, conv=conv)
    features = None if mapping.order is None else feature_order(grid, mapping.order)
    weights = w if features is None else w[features]
    output: OutputArray
    try:
        counts, output = _core.simulate_cycle(
            core_array(accelerator, grid, mapping),
            grid_tuple(grid),
            mapped_mask(mask, mapping),
            np.ascontiguousarray(weights),
            np.ascontiguousarray(x),
            core_memory(accelerator.memory),
            core_conv(conv, grid, x.shape[1]),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if features is not None:
        renamed = np.empty_like(output)
        renamed[features] = output
        output = renamed
    return _result(counts, accelerator, output)


def _result(counts: _core.Counts, accelerator: Accelerator, output: OutputArray | None) -> GemmResult:
    slots = accelerator.rows * accelerator.cols * accelerator.cores * counts.cycles
    return GemmResult(
        cycles=counts.cycles,
        folds=counts.folds,
        macs=counts.macs,
        skipped_macs=counts.skipped_macs,
        kept_macs=counts.kept_macs,
        padded_macs=counts.padded_macs,
        utilization=counts.macs / slots if slots else 0.0,
        memory=None if counts.memory is None else _memory_result(counts.memory),
        cores=tuple(
            CoreResult(**{field.name: getattr(core, field.name) for field in fields(CoreResult)})
            for core in counts.cores
        ),
        output=output,
    )


def _memory_result(counts: _core.MemoryCounts) -> MemoryResult:
    return MemoryResult(**{field.name: getattr(counts, field.name) for field in fields(MemoryResult)})


def core_memory(memory: Memory | None) -> _core.MemoryConfig | None:
    if memory is None:
        return None
    waits = memory.mode != "ideal"
    dram = memory.dram if memory.mode == "rowbuffer" else None
    return _core.MemoryConfig(
        input_capacity=memory.input_bytes,
        weight_capacity=memory.weight_bytes,
        output_capacity=memory.output_bytes,
        # In 2**-20 bytes per cycle, rounded down: the channel is never faster than it says.
        bandwidth=int(memory.bandwidth * 2**20) if waits and memory.bandwidth is not None else 0,
        latency=memory.latency if waits else 0,
        input_bits=memory.input_bits,
        weight_bits=memory.weight_bits,
        output_bits=memory.output_bits,
        accumulator_bits=memory.accumulator_bits,
        index_bits=memory.index_bits,
        dram=None if dram is None else astuple(dram),
    )


_ConvTuple: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int]


def core_conv(conv: ConvGeometry | None, grid: BlockGrid, n: int) -> _ConvTuple | None:
    if conv is None:
        return None
    kernel_positions = conv.kernel[0] * conv.kernel[1]
    positions = conv.batch * conv.out_height * conv.out_width
    if kernel_positions != grid.positions or positions != n:
        raise ShapeError(
            f"convolution: expected {grid.positions} kernel positions and {n} output positions, "
            f"got {kernel_positions} and {positions}"
        )
    return (
        conv.height,
        conv.width,
        conv.out_height,
        conv.out_width,
        *conv.kernel,
        *conv.stride,
        *conv.padding,
        *conv.dilation,
    )


def mapped_mask(mask: BoolArray, mapping: Mapping) -> BoolArray:
    return np.ascontiguousarray(mask if mapping.order is None else mask[mapping.order])


def core_array(accelerator: Accelerator, grid: BlockGrid, mapping: Mapping) -> _core.ArrayConfig:
    return _core.ArrayConfig(
        rows=accelerator.rows,
        cols=accelerator.cols,
        dataflow=accelerator.dataflow,
        skip=accelerator.skip,
        pipelining=accelerator.pipelining,
        mux=accelerator.mux,
        # More columns than the array has is the whole array; capped so that any integer crosses into C++.
        group_cols=min(accelerator.group_cols_for(grid.bh), accelerator.cols),
        cores=accelerator.cores,
        swapped=mapping.swapped,
        piece=mapping.piece,
    )


def grid_tuple(grid: BlockGrid) -> tuple[int, int, int, int, int]:
    grid.check_order("simulation")
    return grid.m, grid.k, grid.positions, grid.bh, grid.bw


def positive_int(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigError(f"{where}: expected an integer of at least 1, got {value!r}")
    return int(value)


def _block_sides(block: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(block, tuple | list) or len(block) != 2:
        raise ConfigError(f"block: expected (height, width), got {block!r}")
    return positive_int(block[0], "block height"), positive_int(block[1], "block width")


def _positions_of(x: npt.ArrayLike | int, k: int) -> int:
    if isinstance(x, int | np.integer):
        return positive_int(x, "n")
    array = np.asarray(x)
    _check_inputs(array, k)
    return int(array.shape[1])


def _check_inputs(x: npt.NDArray[np.generic], k: int) -> None:
    if x.ndim != 2 or x.shape[0] != k or x.shape[1] < 1:
        raise ShapeError(f"inputs: expected shape ({k}, N) with N of at least 1, got {x.shape}")
