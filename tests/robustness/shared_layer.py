"""Both engines on the same small layer with every kind of machine; imports no torch, for spawned children."""

from dataclasses import replace

import numpy as np

from pysim import simulate_gemm
from pysim.config import Accelerator, Memory
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

RNG = np.random.default_rng(0)
GRID = BlockGrid(m=24, k=36, positions=9, bh=4, bw=2)
MASK = RNG.random(GRID.shape) < 0.4
W = RNG.integers(-8, 9, (24, 36)).astype(np.float32)
X = RNG.integers(-8, 9, (36, 30)).astype(np.float32)
MEMORY = Memory(input_bytes=512, weight_bytes=256, output_bytes=2048, bandwidth=3.0)
MACHINES = [
    Accelerator(rows=4, cols=3, dataflow=dataflow, skip="gather", memory=memory, reorder=reorder)
    for dataflow in ("ws", "os", "is")
    for memory in (None, MEMORY)
    for reorder in (False, True)
]


def both_engines(hw):
    """Counts of both engines and the output, of the same shared arrays."""
    event = simulate_layer(GRID, MASK, X.shape[1], hw)
    cycle = simulate_gemm(
        W, X, block=(4, 2), accelerator=hw, engine="cycle", mask=MASK, positions=GRID.positions
    )
    return event, replace(cycle, output=None), cycle.output.tobytes()
