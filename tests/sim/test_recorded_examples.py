"""Cycles and folds against recorded cases: the contract's examples, and runs of the tool SCALE-Sim."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from pysim import Accelerator
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid

VECTORS = Path(__file__).parent / "vectors"
EXAMPLES = json.loads((VECTORS / "machine_examples.json").read_text())["cases"]
SCALESIM = json.loads((VECTORS / "scalesim_3_0_0.json").read_text())["records"]


def unpacked(keep):
    rows, cols = keep["shape"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(keep["packed_bits_base64"]), np.uint8))
    return bits[: rows * cols].reshape(rows, cols).astype(bool)


@pytest.mark.parametrize("case", EXAMPLES, ids=lambda case: f"{case['M']}x{case['K']}x{case['N']}")
def test_cycles_and_folds_equal_the_recorded_example(case):
    bh, bw = case["block"]
    grid = BlockGrid(m=case["M"], k=case["K"], bh=bh, bw=bw)
    mask = unpacked(case["keep"])
    for expected in case["results"]:
        hw = Accelerator(
            rows=case["rows"],
            cols=case["cols"],
            dataflow=expected["dataflow"],
            skip=expected["skip"],
            pipelining=expected["pipelining"],
            mux=expected["mux"] or 2,
            group_cols=expected["group_cols"],
        )
        result = simulate_layer(grid, mask, case["N"], hw)
        assert (result.cycles, result.folds) == (expected["cycles"], expected["folds"]), hw


@pytest.mark.parametrize(
    "record", SCALESIM, ids=lambda r: f"{r['net']}-{r['layer']}-{r['dataflow']}-{r['rows']}x{r['cols']}"
)
def test_serial_cycles_equal_scalesim_plus_its_known_differences(record):
    """It reports the index of its last line, so one less; its output-stationary runs leave out the drain.

    It calls the positions M and the filters N.
    """
    gemm, rows = record["gemm"], record["rows"]
    hw = Accelerator(rows=rows, cols=record["cols"], dataflow=record["dataflow"], pipelining="serial")
    grid = BlockGrid(m=gemm["N"], k=gemm["K"], bh=gemm["N"], bw=gemm["K"])
    result = simulate_layer(grid, np.ones((1, 1), bool), gemm["M"], hw)
    drain = result.folds * rows if record["dataflow"] == "os" else 0
    assert result.cycles == record["total_cycles"] + 1 + drain
