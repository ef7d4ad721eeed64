from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

# The simulated machine (csrc/bindings/sim.cpp).

_Grid: TypeAlias = tuple[int, int, int, int, int]  # m, k, positions, block height, block width

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
    ) -> None: ...

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

def simulate_event(array: ArrayConfig, grid: _Grid, mask: npt.NDArray[np.bool_], n: int) -> Counts: ...
@overload
def simulate_cycle(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    w: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
) -> tuple[Counts, npt.NDArray[np.float32]]: ...
@overload
def simulate_cycle(
    array: ArrayConfig,
    grid: _Grid,
    mask: npt.NDArray[np.bool_],
    w: npt.NDArray[np.int8],
    x: npt.NDArray[np.int8],
) -> tuple[Counts, npt.NDArray[np.int32]]: ...
