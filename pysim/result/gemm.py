"""What the simulated machine reports about one matrix product."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

OutputArray = npt.NDArray[np.float32] | npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmResult:
    """Counts of Y (M, N) = W (M, K) X (K, N) on one array. docs/machine.md defines each.

    A MAC is one product w[m, k] * x[k, n]. ``macs + skipped_macs`` is always M * K * N.

    Args:
        cycles: Clock edges until the last result has left the array; 0 if nothing is kept.
        folds: Loads of the array.
        macs: MACs that PEs perform on a real weight and a real input. Zeros that a fold cannot leave out are
            performed, and counted: under ``gather`` a block column that one feature of the strip keeps is
            multiplied for every feature of the strip.
        skipped_macs: MACs that no PE performs.
        kept_macs: MACs of the kept weights alone, whatever the array skips; at most ``macs``.
        padded_macs: MAC slots of folds in which a PE has no real operand pair: partial folds and, under
            ``group``, feeders with a shorter list. ``macs + padded_macs`` is rows * cols * operands streamed.
        utilization: macs / (rows * cols * cycles), 0 to 1; 0 if there are no cycles.
        output: Y (M, N), float32 or int32, from the cycle engine; None from the event engine.
    """

    cycles: int
    folds: int
    macs: int
    skipped_macs: int
    kept_macs: int
    padded_macs: int
    utilization: float
    output: OutputArray | None = field(default=None, compare=False, repr=False)
