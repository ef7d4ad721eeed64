"""The table says what the result says; compared with a file that a reader can look at."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pysim.config import Accelerator, Memory, VectorUnit
from pysim.report import explain, render
from pysim.result import (
    Accuracy,
    BlockRun,
    Check,
    CoreResult,
    Energy,
    GemmResult,
    KernelTiming,
    LayerResult,
    MemoryResult,
    OneCallTiming,
    RunResult,
    VectorWork,
)
from pysim.workload import UnmappedOp

GOLDEN = Path(__file__).parent / "golden"


def timing(isa, dense_us, sparse_us):
    return KernelTiming(
        isa=isa,
        dense_us=dense_us,
        dense_form="nchw",
        sparse_us=sparse_us,
        speedup_quartiles=(0.9 * dense_us / sparse_us, 1.1 * dense_us / sparse_us),
        max_error=0.0 if isa == "torch" else 0.01,
    )


def counts(cycles, kept):
    """A fourth of the cycles for each kind of stall, if there are any; 1024 bytes each way."""
    memory = MemoryResult(
        compute_cycles=cycles // 4,
        stall_input_cycles=cycles // 4,
        stall_weight_cycles=cycles // 4,
        stall_output_cycles=cycles - 3 * (cycles // 4),
        input_bytes=1024,
        weight_bytes=kept,
        index_bytes=4,
        output_bytes=1024,
        spill_bytes=0,
        reload_bytes=0,
        input_reads=1,
        input_writes=1,
        weight_reads=1,
        weight_writes=1,
        output_reads=1,
        output_writes=1,
    )
    return GemmResult(
        cycles=cycles,
        folds=1,
        macs=min(1000, 64 * cycles),
        skipped_macs=0,
        kept_macs=min(kept, 64 * cycles) // 4,
        padded_macs=0,
        utilization=0.25 if cycles else 0.0,
        memory=memory,
        cores=(
            CoreResult(
                compute_cycles=memory.compute_cycles,
                stall_input_cycles=memory.stall_input_cycles,
                stall_weight_cycles=memory.stall_weight_cycles,
                stall_output_cycles=memory.stall_output_cycles,
            ),
        ),
    )


def layer(name, shape, blocks, cycles, kernel, *, pruned=True, groups=1):
    m, k, n = shape
    return LayerResult(
        name=name,
        m=m,
        k=k,
        n=n,
        groups=groups,
        pruned=pruned,
        blocks_total=blocks[1],
        blocks_kept=blocks[0],
        dense=counts(cycles["none"], kept=2000),
        counts=counts(cycles["gather"], kept=500),
        cycles_by_skip=cycles,
        kernel=kernel,
    )


def example(block=(4, 4), checks_pass=True):
    return BlockRun(
        block=block,
        sparsity_prunable=0.875,
        sparsity_model=0.8125,
        accuracy=Accuracy(dense=93.5, before_finetune=40.25, pruned=90.0),
        layers=(
            layer(
                "conv",
                (16, 9, 784),
                (12, 12),
                {"none": 1000, "tile": 1000, "gather": 1000, "mux2": 1000},
                timing("torch", 50.0, 50.0),
                pruned=False,
            ),
            layer(
                "block.conv1",
                (16, 144, 784),
                (18, 144),
                {"none": 8000, "tile": 8000, "gather": 4000, "mux2": 2000},
                timing("avx2", 120.0, 60.0),
            ),
            layer(
                "block.conv2",
                (4, 36, 784),
                (0, 18),
                {"none": 1000, "tile": 0, "gather": 0, "mux2": 0},
                timing("avx2", 30.0, 40.0),
                groups=2,
            ),
        ),
        energy=Energy(
            table="45nm",
            unit="pJ",
            components={"MAC int8": 1e6, "register read": 2e6, "input buffer read": 3e6, "DRAM read": 4e6},
            components_dense={"MAC int8": 4e6, "DRAM read": 16e6},
            gated_slots=1234,
            gated_slots_dense=567,
            notes=("leakage is left out",),
        ),
        one_call=OneCallTiming(
            eager_us=1000.0, eager_form="nchw", dense_us=500.0, sparse_us=100.0, speedup_quartiles=(9.5, 10.5)
        ),
        one_call_refusal="",
        other_load_cores=0.05,
        checks=(
            Check(name="masks", passed=True, detail="30 blocks kept"),
            Check(name="cycle engine", passed=checks_pass, detail="stepped"),
        ),
    )


def result(*runs):
    return RunResult(
        pysim_version="0.0.0",
        model="toy",
        dataset="synthetic",
        seed=0,
        sparsity=0.875,
        finetune_epochs=1,
        batch=1,
        threads=2,
        accelerator=Accelerator(
            name="toy-16",
            rows=16,
            cols=16,
            dataflow="ws",
            skip="gather",
            vector=VectorUnit(lanes=16),
            memory=Memory(input_bytes=8192, weight_bytes=8192, output_bytes=4096, bandwidth=8.0),
            clock_hz=1e9,
        ),
        unmapped=(
            UnmappedOp(module="", op="relu", operations=1600),
            UnmappedOp(module="a", op="add", operations=5),
            UnmappedOp(module="a", op="native_batch_norm", operations=1600, foldable=True),
        ),
        unmapped_share=0.0123,
        energy_missing=(),
        area_mm2={"multipliers": 0.0722, "input buffer": 0.5},
        vector=VectorWork(cycles_by_op={"relu": 100, "add": 1}),
        runs=runs,
    )


def check_golden(name, text):
    """Compares with the file; PYSIM_UPDATE_GOLDEN=1 rewrites it for a human to review."""
    path = GOLDEN / name
    if os.environ.get("PYSIM_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert path.read_text() == text + "\n"


def test_one_block_size_is_shown_layer_by_layer():
    check_golden("one_block.txt", render(result(example())))


def test_several_block_sizes_are_shown_a_row_each():
    unmeasured = replace(
        example((1, 16)), layers=tuple(replace(x, kernel=None) for x in example().layers), one_call=None
    )
    check_golden("two_blocks.txt", render(result(example(checks_pass=False), unmeasured)))


def test_json_has_the_documented_fields_and_the_totals_add_up():
    text = json.dumps(result(example()).to_json(), allow_nan=False)
    data = json.loads(text)
    assert data["schema"] == 1
    assert data["hardware"]["rows"] == 16
    (run,) = data["runs"]
    assert run["block"] == [4, 4]
    assert run["totals"]["cycles_dense"] == sum(x["cycles_dense"] for x in run["layers"]) == 10000
    assert run["totals"]["cycles"] == 5000
    assert run["totals"]["speedup"] == 2.0
    assert run["totals"]["kernel_speedup"] == 200 / 150
    assert run["totals"]["by_skip"] == {"tile": 10 / 9, "gather": 2.0, "mux2": 10000 / 3000}
    assert run["layers"][2]["speedup"] is None
    assert run["layers"][1]["kernel"]["speedup"] == 2.0
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert run["one_call"]["speedup"] == 10.0
    assert run["one_call"]["speedup_by_pruning"] == 5.0
    nested = (run["totals"], run["layers"][0], run["layers"][0]["kernel"], run["one_call"])
    for field in {*data, *run, *(name for part in nested for name in part)}:
        assert field in documented, f"{field} is not described in docs/json.md"


def test_without_a_vector_unit_there_is_no_time_of_the_whole_network():
    plain = replace(result(example()), vector=None)
    assert "whole network, the array" not in render(plain)
    assert plain.to_json()["runs"][0]["totals"]["network"] is None


def test_the_whole_network_is_the_array_and_then_the_vector_unit():
    # By hand: 10,000 and 5,000 cycles of the array, 101 of the vector unit, 1 GHz, one image.
    network = result(example()).to_json()["runs"][0]["totals"]["network"]
    assert network == {
        "cycles_dense": 10101,
        "cycles": 5101,
        "vector_share": 101 / 5101,
        "seconds": 5101 / 1e9,
        "frames_per_second": 1e9 / 5101,
        "speedup": 10101 / 5101,
    }


def test_energy_delay_and_power_are_energy_and_time():
    # By hand: 20 and 10 uJ in 10 and 5 us.
    data = result(example()).to_json()
    both = data["runs"][0]["energy_delay"]
    assert both["product_dense"] == pytest.approx(20e6 * 10e-6)
    assert both["product"] == pytest.approx(10e6 * 5e-6)
    assert both["watts_dense"] == pytest.approx(2.0)
    assert both["watts"] == pytest.approx(2.0)
    assert data["area_mm2"]["total"] == pytest.approx(0.5722)
    timeless = result(example())
    timeless = replace(timeless, accelerator=replace(timeless.accelerator, clock_hz=None))
    assert timeless.to_json()["runs"][0]["energy_delay"] is None
    assert "gated PE cycles" in render(timeless)


def test_the_explanation_shows_where_cycles_go():
    check_golden("explain.txt", explain(result(example())))


def test_without_energy_the_report_says_what_is_missing():
    plain = replace(result(replace(example(), energy=None)), energy_missing=("no technology is named",))
    assert "no energy: no technology is named" in render(plain)
    assert plain.to_json()["runs"][0]["energy"] is None


def test_a_network_that_cannot_be_one_call_is_named():
    refused = replace(example(), one_call=None, one_call_refusal="softmax is not known")
    text = render(result(refused))
    assert "the whole network is not timed as one call: softmax is not known" in text
    assert "in one call of pysim.compile" not in text


def test_a_busy_machine_is_said_beside_the_measured_figures():
    calm = result(example())
    assert "WARNING" not in render(calm)
    busy = replace(calm, runs=tuple(replace(run, other_load_cores=1.25) for run in calm.runs))
    assert "block 4x4 were timed, other programs kept 1.2 cores busy" in render(busy)
