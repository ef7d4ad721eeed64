"""The hardware in hdl/ does in every cycle what docs/machine.md and both engines say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rtl.build import lint, missing_tools, program
from tests.rtl.cases import cases
from tests.rtl.model import MODELS, MODES
from tests.rtl.simulator import Simulator, check, record
from tests.rtl.work import Case, plan

pytestmark = pytest.mark.skipif(
    bool(missing_tools("verilator", "g++")),
    reason="RTL NOT TESTED: no verilator or no g++ here (Debian: apt-get install verilator g++)",
)
each_mode = pytest.mark.parametrize(("dataflow", "skip"), MODES)


@pytest.fixture(scope="session")
def simulator():
    with Simulator(MODELS, program(MODELS)) as running:
        yield running


def models_of(dataflow, skip):
    return [model for model in MODELS if model.dataflow == dataflow and model.runs(skip)]


def agree(simulator, dataflow, skip, examples):
    drawn = []

    @settings(max_examples=examples, deadline=None)
    @given(case=cases(models_of(dataflow, skip), skip))
    def every_case(case):
        drawn[:] = [case]
        check(simulator, case)

    try:
        every_case()
    except AssertionError as error:
        error.add_note(f"waveform of the failing case: {record(drawn[0])}")
        raise


@each_mode
def test_hardware_and_both_engines_agree_on_every_cycle_and_value(dataflow, skip, simulator):
    agree(simulator, dataflow, skip, examples=300)


@pytest.mark.slow
def test_a_disagreement_is_reported_with_the_waveform_of_its_shrunk_case(simulator, monkeypatch):
    def disagrees(simulator, case):
        assert case.x.shape[1] < 3, "made up"

    monkeypatch.setitem(globals(), "check", disagrees)
    with pytest.raises(AssertionError, match="made up") as caught:
        agree(simulator, "ws", "none", examples=50)
    (note,) = [note for note in caught.value.__notes__ if note.startswith("waveform")]
    path = Path(note.partition(": ")[2])
    assert path.suffix == ".vcd"
    assert "$enddefinitions" in path.read_text()


@pytest.mark.slow
@each_mode
def test_hardware_and_both_engines_agree_on_many_more_cases(dataflow, skip, simulator):
    agree(simulator, dataflow, skip, examples=2000)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_lint_has_nothing_to_say(model):
    assert lint(model) == ""


def dense(model, skip, pipelining, m, k, n, eager=False):
    """A layer without pruning and with small weights that all differ."""
    return Case(
        model=model,
        skip=skip,
        pipelining=pipelining,
        block=(1, 1),
        mask=np.ones((m, k), bool),
        w=np.arange(1, m * k + 1).reshape(m, k) % 16,
        x=np.arange(k * n).reshape(k, n) % 16,
        eager=eager,
    )


def of(dataflow, rows, cols):
    return next(m for m in MODELS if (m.dataflow, m.rows, m.cols) == (dataflow, rows, cols))


def test_two_folds_of_three_on_three_rows_leave_as_worked_by_hand(simulator):
    """ws, 3 x 4, overlap, K = 6 (two folds), N = 5: p = 0, 5 and s = 3, 8; the last result leaves column 3 in
    cycle 8 + 4 + 2 + 3 = 17, so the total is 18."""
    run = check(simulator, dense(of("ws", 3, 4), "none", "overlap", m=4, k=6, n=5))
    assert (run.preloads, run.streams) == ([0, 5], [3, 8])
    column_0 = run.results[run.results[:, 1] == 0]
    assert column_0[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert run.results[:, 0].max() + 1 == 18


def test_a_short_fold_waits_for_the_hold_registers_as_worked_by_hand(simulator):
    """os, 3 x 4, K = 1, N = 5 (two folds): the second one's operand may enter in cycle 0 + 1 + (3 - 1) = 3.
    Column 0 gives the first fold's rows 2, 1, 0 in cycles 3, 4, 5, and the second's right after."""
    run = check(simulator, dense(of("os", 3, 4), "none", "overlap", m=4, k=1, n=5))
    assert run.streams == [0, 3]
    column_0 = run.results[run.results[:, 1] == 0]
    assert column_0[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert column_0[[0, 1, 2, 4, 5], 2].tolist() == [2, 1, 0, 4, 3]  # w = 1, x = 0 .. 4; one row is padding


@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_an_eager_preload_starts_with_the_stream_before_it_and_changes_no_result(dataflow, simulator):
    late, eager = (
        check(simulator, dense(of(dataflow, 3, 4), "none", "overlap", m=9, k=6, n=9, eager=eager))
        for eager in (False, True)
    )
    assert eager.preloads[1] == late.streams[0] < late.preloads[1]
    assert eager.streams == late.streams
    np.testing.assert_array_equal(eager.results, late.results)


def test_an_eager_output_stationary_fold_starts_earlier_and_changes_no_result(simulator):
    late, eager = (
        check(simulator, dense(of("os", 5, 2), "none", "overlap", m=2, k=3, n=15, eager=eager))
        for eager in (False, True)
    )
    assert (late.streams, eager.streams) == ([0, 5, 10], [0, 3, 8])
    np.testing.assert_array_equal(eager.results, late.results)


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_case_leaves_nothing_behind_for_the_next(data, simulator):
    """The same case gives the same run after any other one."""
    model = data.draw(st.sampled_from(MODELS))
    case, other = data.draw(cases([model], "none")), data.draw(cases([model], "none"))
    runs = []
    for each in (case, other, case):
        runs.append(simulator.run(each, plan(each)))
    assert (runs[0].preloads, runs[0].streams) == (runs[2].preloads, runs[2].streams)
    outputs = [[(c, col) for c, col, _ in run.results.tolist()] for run in (runs[0], runs[2])]
    assert outputs[0] == outputs[1]
