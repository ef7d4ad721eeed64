"""Layers beyond what is counted: an error at once, never a wrong number, a crash or an endless run."""

import dataclasses

import numpy as np
import pytest

from pysim import Accelerator
from pysim.config import Dram, Memory
from pysim.errors import ConfigError
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

HW = Accelerator(rows=256, cols=256)
MEMORY = Memory(input_bytes=2**24, weight_bytes=2**24, output_bytes=2**24, bandwidth=64.0)
DRAM = Dram(banks=8, row_bytes=8192, t_cl=11, t_rcd=11, t_rp=11, t_rfc=128, t_refi=6240)


def run(m, k, n, block, hw):
    grid = BlockGrid(m=m, k=k, bh=block, bw=block)
    return simulate_layer(grid, np.ones(grid.shape, bool), n, hw)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("mode", ["none", "bandwidth", "rowbuffer", "mapper"])
@pytest.mark.parametrize(
    ("m", "k", "n", "block"),
    [
        (2**17, 2**17, 2**30, 2**10),  # More than 2^63 MACs.
        (2**31, 2**31, 2, 2**21),
        (1, 1, 2**62, 1),  # More than 2^63 MAC slots.
    ],
)
def test_counts_beyond_64_bits_are_refused(dataflow, mode, m, k, n, block):
    memory = None if mode == "none" else dataclasses.replace(MEMORY, dram=DRAM)
    if mode == "rowbuffer":
        memory = dataclasses.replace(memory, mode="rowbuffer")
    hw = dataclasses.replace(HW, dataflow=dataflow, memory=memory, mapper=mode == "mapper")
    with pytest.raises(ConfigError, match="expected a count that fits in 64 bits"):
        run(m, k, n, block, hw)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("mapper", [False, True])
@pytest.mark.parametrize(
    ("m", "k", "n", "block"),
    [(2**16, 2**16, 2**28, 2**10), (2**36, 1, 1, 2**30), (1, 2**36, 1, 2**30), (1, 1, 2**45, 1)],
)
def test_what_is_too_much_for_the_memory_model_is_refused_at_once(dataflow, mapper, m, k, n, block):
    hw = dataclasses.replace(HW, dataflow=dataflow, memory=MEMORY, mapper=mapper)
    refusal = r"memory: expected a layer of at most .* no memory\), got \d+|parts of the"
    with pytest.raises(ConfigError, match=refusal):
        run(m, k, n, block, hw)
