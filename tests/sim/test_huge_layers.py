"""Layers beyond 2^31 in any figure: right numbers, or an error at once; never a crash or an endless run."""

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
@pytest.mark.parametrize(
    ("m", "k", "n"), [(2**16, 2**16, 2**28), (2**12, 2**12, 2**8 * 3), (3 * 2**20, 2**13, 1), (1, 1, 2**40)]
)
def test_counts_beyond_32_bits_are_exact(dataflow, m, k, n):
    """Cycles by the formulas of the page, in Python's integers."""
    result = run(m, k, n, 2**10, dataclasses.replace(HW, dataflow=dataflow))
    rows, cols, t = {"ws": (k, m, n), "os": (n, m, k), "is": (k, n, m)}[dataflow]
    folds = -(-rows // 256) * -(-cols // 256)
    assert result.folds == folds
    assert (result.macs, result.skipped_macs) == (m * k * n, 0)
    assert result.macs + result.padded_macs == folds * t * 256 * 256
    fill = 256 + 256 + 256 - 2
    if dataflow == "os":
        assert result.cycles == folds * t + (folds - 1) * max(0, 256 - t) + fill
    else:
        assert result.cycles == (folds - 1) * max(t, 256) + t + fill
    assert 0 < result.utilization <= 1


def test_a_byte_count_beyond_32_bits_is_exact():
    """2^13 x 2^13 weights, 2^16 positions of 64 bits: inputs and outputs of 2^32 bytes each; all fits."""
    ample = dataclasses.replace(
        MEMORY, input_bytes=2**40, weight_bytes=2**40, output_bytes=2**40, input_bits=64, output_bits=64
    )
    found = run(2**13, 2**13, 2**16, 2**10, dataclasses.replace(HW, memory=ample)).memory
    assert found.input_bytes == found.output_bytes == 8 * 2**13 * 2**16 > 2**31


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
