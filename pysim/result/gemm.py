"""What the simulated machine reports about one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

OutputArray = npt.NDArray[np.float32] | npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResult:
    """Stalls and traffic of one matrix product. docs/machine.md defines each.

    ``compute_cycles`` and the three kinds of stall cycles add up to the product's cycles.

    Args:
        compute_cycles: Cycles in which the array steps.
        stall_input_cycles: Cycles in which it waits for inputs.
        stall_weight_cycles: For weights or their indices.
        stall_output_cycles: For room in the output buffer, for partial sums that come back, or, at the end,
            for the last outputs to be written.
        input_bytes: Read from off chip.
        weight_bytes: Read: weights of kept blocks.
        index_bytes: Read: block indices and row pointers.
        output_bytes: Written: finished outputs.
        spill_bytes: Written: partial sums.
        reload_bytes: Read: partial sums.
        dram_bursts: Requests of one burst each; 0 unless the memory follows DRAM rows, as are the next two.
        row_misses: Rows opened in a bank that had none open.
        row_conflicts: Rows opened in a bank that had another one open, and had to close it first.
        input_reads: Words read from the input buffer by the array.
        input_writes: Words written to the input buffer from off chip.
        weight_reads: Words read from the weight buffer by the array; indices are not counted.
        weight_writes: Words written to the weight buffer from off chip; indices are not counted.
        output_reads: Sums read from the output buffer, by the array to be added to and to be written out.
        output_writes: Sums written to the output buffer, by the array and when they come back.
    """

    compute_cycles: int
    stall_input_cycles: int
    stall_weight_cycles: int
    stall_output_cycles: int
    input_bytes: int
    weight_bytes: int
    index_bytes: int
    output_bytes: int
    spill_bytes: int
    reload_bytes: int
    input_reads: int
    input_writes: int
    weight_reads: int
    weight_writes: int
    output_reads: int
    output_writes: int
    dram_bursts: int = 0
    row_misses: int = 0
    row_conflicts: int = 0

    @property
    def stall_cycles(self) -> int:
        return self.stall_input_cycles + self.stall_weight_cycles + self.stall_output_cycles

    @property
    def read_bytes(self) -> int:
        """Bytes from off chip."""
        return self.input_bytes + self.weight_bytes + self.index_bytes + self.reload_bytes

    @property
    def written_bytes(self) -> int:
        """Bytes to off chip."""
        return self.output_bytes + self.spill_bytes

    @property
    def total_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreResult:
    """What the cycles of one core were, until its last result had left; then it is idle.

    Args:
        compute_cycles: In which its array steps.
        stall_input_cycles: In which it waits for inputs.
        stall_weight_cycles: For weights or their indices.
        stall_output_cycles: For results; of the core that ends last also until all outputs are written.
    """

    compute_cycles: int
    stall_input_cycles: int
    stall_weight_cycles: int
    stall_output_cycles: int

    @property
    def cycles(self) -> int:
        """After which it has nothing left to do."""
        return (
            self.compute_cycles
            + self.stall_input_cycles
            + self.stall_weight_cycles
            + self.stall_output_cycles
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmResult:
    """Counts of Y (M, N) = W (M, K) X (K, N) on one array. docs/machine.md defines each.

    A MAC is one product w[m, k] * x[k, n]. ``macs + skipped_macs`` is always M * K * N.

    Args:
        cycles: Clock edges until the last result has left the array; 0 if nothing is kept. With memory, until
            it has also been written off chip.
        folds: Loads of the array.
        macs: MACs that PEs perform on a real weight and a real input. Zeros that a fold cannot leave out are
            performed, and counted: under ``gather`` a block column that one feature of the strip keeps is
            multiplied for every feature of the strip.
        skipped_macs: MACs that no PE performs.
        kept_macs: MACs of the kept weights alone, whatever the array skips; at most ``macs``.
        padded_macs: MAC slots of folds in which a PE has no real operand pair: partial folds and, under
            ``group``, feeders with a shorter list. ``macs + padded_macs`` is rows * cols * operands streamed.
        utilization: macs / (rows * cols * cycles), 0 to 1; 0 if there are no cycles.
        memory: Stalls and traffic; None if the accelerator has no memory.
        cores: The cores in use, the first ones.
        output: Y (M, N), float32 or int32, from the cycle engine; None from the event engine.
    """

    cycles: int
    folds: int
    macs: int
    skipped_macs: int
    kept_macs: int
    padded_macs: int
    utilization: float
    memory: MemoryResult | None = None
    cores: tuple[CoreResult, ...] = ()
    output: OutputArray | None = field(default=None, compare=False, repr=False)


def add_results(results: Sequence[GemmResult], pes: int) -> GemmResult:
    """Products that run one after the other on the same ``pes`` PEs, without their outputs.

    Either all or none of them have memory figures.
    """

    def total(name: str) -> int:
        return sum(getattr(result, name) for result in results)

    memories = [result.memory for result in results if result.memory is not None]
    memory = None
    if memories:
        names = [item.name for item in fields(MemoryResult)]
        memory = MemoryResult(**{name: sum(getattr(m, name) for m in memories) for name in names})
    cores = zip_longest(*(result.cores for result in results))
    slots = pes * total("cycles")
    return GemmResult(
        cycles=total("cycles"),
        folds=total("folds"),
        macs=total("macs"),
        skipped_macs=total("skipped_macs"),
        kept_macs=total("kept_macs"),
        padded_macs=total("padded_macs"),
        utilization=total("macs") / slots if slots else 0.0,
        memory=memory,
        cores=tuple(_add_cores([core for core in same if core is not None]) for same in cores),
    )


def _add_cores(cores: Sequence[CoreResult]) -> CoreResult:
    names = [item.name for item in fields(CoreResult)]
    return CoreResult(**{name: sum(getattr(core, name) for core in cores) for name in names})
