"""The comparison with the engines notices faults: each is put into a copy of hdl/, and must be found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pysim.config import Skip
from tests.rtl.build import SOURCES, missing_tools, program
from tests.rtl.cases import cases
from tests.rtl.model import MODELS, Model
from tests.rtl.simulator import Simulator, check, record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_tools("verilator", "g++")),
        reason="RTL NOT TESTED: no verilator or no g++ here (Debian: apt-get install verilator g++)",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A change of one text in one file of hdl/, and a mode whose cases must show it.

    Args:
        name: What is wrong.
        file: Its name without .sv.
        old: Occurs exactly once in the file.
        new: What it becomes.
        mode: Dataflow, rows, cols and skip.
    """

    name: str
    file: str
    old: str
    new: str
    mode: tuple[str, int, int, Skip]


FAULTS = (
    Fault(
        name="one lane of the edge skew is a cycle short",
        file="edge_skew",
        old="DEPTH = EXTRA + l;",
        new="DEPTH = EXTRA + (l == 2 ? 1 : l);",
        mode=("ws", 3, 4, "none"),
    ),
    Fault(
        name="every feeder's skew ignores where it feeds",
        file="array_stationary",
        old=".EXTRA(g * GROUP)",
        new=".EXTRA(g)",
        mode=("ws", 3, 7, "group"),
    ),
    Fault(
        name="a feeder's operands do not enter at its first column",
        file="array_output",
        old="if (c % GROUP == 0) begin : g_fed",
        new="if (c == 0) begin : g_fed",
        mode=("os", 3, 7, "group"),
    ),
    Fault(
        name="the transit register is dropped",
        file="pe_stationary",
        old="    transit <= transit_in;\n    transit_select",
        new="  end\n  assign transit = transit_in;\n  always_ff @(posedge clk) begin\n    transit_select",
        mode=("ws", 3, 4, "none"),
    ),
    Fault(
        name="the active register is not written, so that only a first operand meets its weight",
        file="pe_stationary",
        old="    active <= weight;\n",
        new="    if (load) active <= weight;\n",
        mode=("is", 5, 2, "gather"),
    ),
    Fault(
        name="all columns complete their preload with column 0",
        file="array_stationary",
        old=".load(load[c]),",
        new=".load(load[0]),",
        mode=("ws", 3, 4, "none"),
    ),
    Fault(
        name="the multiplexer follows the select of the fold before for a cycle",
        file="pe_stationary",
        old="assign select = take_over ? shadow_select : active_select;",
        new="assign select = active_select;",
        mode=("ws", 4, 3, "mux"),
    ),
    Fault(
        name="the multiplexer of four has a wrong input",
        file="member_mux",
        old="if (select == SELECT'(i)) chosen",
        new="if (i != 3 && select == SELECT'(i)) chosen",
        mode=("os", 2, 6, "mux"),
    ),
    Fault(
        name="a select skips a row",
        file="array_output",
        old="assign w_select_in = g_row[r-1].g_col[c].w_select;",
        new="assign w_select_in = selects_skewed[c*SELECT+:SELECT];",
        mode=("os", 4, 3, "mux"),
    ),
    Fault(
        name="a preload starts before its shadow registers are free",
        file="start_stationary",
        old="assign shadow_free = !owned || streams;",
        new="assign shadow_free = !owned || loaded;",
        mode=("is", 2, 7, "gather"),
    ),
    Fault(
        name="a preload starts a cycle early",
        file="start_stationary",
        old="step_left <= (STEP + 1)'(ROWS)",
        new="step_left <= (STEP + 1)'(ROWS + 1)",
        mode=("ws", 5, 2, "gather"),
    ),
    Fault(
        name="a stream starts before its preload is complete",
        file="start_stationary",
        old="(!step_first || loaded)",
        new="(!step_first || owned)",
        mode=("ws", 5, 2, "gather"),
    ),
    Fault(
        name="serial waits a cycle too long",
        file="start_stationary",
        old="assign array_empty = !busy || fold_left;",
        new="assign array_empty = !busy;",
        mode=("is", 3, 4, "none"),
    ),
    Fault(
        name="serial does not wait for the drain",
        file="start_output",
        old="may_start = !busy || fold_left;",
        new="may_start = !busy || draining;",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="a fold starts a cycle before hold is free",
        file="start_output",
        old="(STEP + 1)'(hold_wait) < step_left",
        new="(STEP + 1)'(hold_wait) <= step_left",
        mode=("os", 5, 2, "gather"),
    ),
    Fault(
        name="hold is never cleared",
        file="pe_output",
        old="      else if (drain) full <= 1'b0;\n",
        new="",
        mode=("os", 5, 2, "gather"),
    ),
    Fault(
        name="a fold's first product is added to the sum before",
        file="pe_output",
        old="(first_in ? '0 : acc)",
        new="acc",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="chain does not move",
        file="pe_output",
        old="chain <= drain ? hold : chain_in;",
        new="if (drain) chain <= hold;",
        mode=("os", 3, 4, "none"),
    ),
    Fault(
        name="a column gives a result too many",
        file="array_output",
        old="left <= COUNT'(ROWS - 1);",
        new="left <= COUNT'(ROWS);",
        mode=("os", 5, 2, "gather"),
    ),
    Fault(
        name="products are unsigned",
        file="pe_stationary",
        old="$signed(operand) * $signed(weight)",
        new="operand * weight",
        mode=("ws", 1, 1, "gather"),
    ),
    Fault(
        name="a fold's steps all read its first list entry",
        file="feed_steps",
        old=".address(beat_list + ADDRESS'(beat_step)),",
        new=".address(beat_list),",
        mode=("is", 2, 7, "gather"),
    ),
    Fault(
        name="the index list is read a fold late",
        file="feed_rows",
        old=".read(load_index && beat_first),",
        new=".read(load_index && beat_last),",
        mode=("ws", 5, 2, "gather"),
    ),
    Fault(
        name="the pipeline stalls every other cycle",
        file="beat_stage",
        old="assign in_ready = !out_valid || out_ready;",
        new="assign in_ready = !out_valid;",
        mode=("os", 1, 1, "gather"),
    ),
)


def model_of(dataflow: str, rows: int, cols: int) -> Model:
    return next(
        model for model in MODELS if (model.dataflow, model.rows, model.cols) == (dataflow, rows, cols)
    )


def put_in(fault: Fault, folder: Path) -> list[Path]:
    """A copy of hdl/ with the fault."""
    copies = []
    for source in SOURCES:
        text = source.read_text()
        if source.stem == fault.file:
            assert text.count(fault.old) == 1, f"{source.name}: the text to change is not there once"
            text = text.replace(fault.old, fault.new)
        copy = folder / source.name
        copy.write_text(text)
        copies.append(copy)
    return copies


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault, tmp_path):
    *shape, skip = fault.mode
    model = model_of(*shape)
    path = program([model], put_in(fault, tmp_path))
    tried = []

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases([model], skip))
    def every_case(case):
        tried.append(case)
        check(simulator, case)

    with Simulator([model], path) as simulator, pytest.raises(AssertionError):
        every_case()
    print(f"found after {len(tried)} cases")


def test_a_failing_case_leaves_a_waveform_of_the_faulty_hardware(tmp_path):
    fault = FAULTS[0]
    *shape, skip = fault.mode
    model, sources = model_of(*shape), put_in(fault, tmp_path)
    failing = []

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(case=cases([model], skip))
    def every_case(case):
        try:
            check(simulator, case)
        except AssertionError:
            failing[:] = [case]
            raise

    with Simulator([model], program([model], sources)) as simulator, pytest.raises(AssertionError):
        every_case()
    path = record(failing[0], sources, tmp_path / "waves")
    names, changes = path.read_text().split("$enddefinitions $end")
    for signal in ("psum", "shadow", "active", "clk"):
        assert f" {signal}" in names, f"no signal {signal} in the waveform"
    assert max(int(line[1:]) for line in changes.splitlines() if line.startswith("#")) > 20
    assert path.parent == tmp_path / "waves"


def test_the_same_cases_pass_without_a_fault(tmp_path):
    """What the faults are found with finds nothing else."""
    shapes = {fault.mode for fault in FAULTS}
    models = sorted({model_of(*shape) for *shape, _ in shapes}, key=lambda model: model.name)
    with Simulator(models, program(models)) as simulator:
        for *shape, skip in sorted(shapes):

            @settings(max_examples=200, deadline=None, database=None, derandomize=True)
            @given(case=cases([model_of(*shape)], skip))
            def every_case(case):
                check(simulator, case)

            every_case()
