"""Folds start as early as the registers allow: one cycle earlier, and the cycle engine refuses."""

import numpy as np
import pytest

from pysim import Accelerator, simulate_gemm
from pysim._core import ArrayConfig, _testing

# (rows, cols, m, k, n): folds deeper than the array is tall, shallower, as deep; rows or columns of one PE.
SHAPES = [
    (3, 2, 7, 10, 8),
    (4, 3, 2, 9, 2),
    (4, 3, 5, 3, 10),
    (3, 3, 9, 9, 3),
    (1, 4, 9, 5, 3),
    (4, 1, 3, 9, 7),
    (1, 1, 2, 3, 2),
    (5, 2, 6, 11, 1),
]
MODES = [
    (dataflow, skip)
    for dataflow in ("ws", "os", "is")
    for skip in Accelerator(rows=1, cols=1, dataflow=dataflow).allowed_skips()
]


class Problem:
    """A layer with blocks of 2 x 2, an array, and the folds' (preload, stream, depth)."""

    def __init__(self, dataflow, skip, shape, pipelining="overlap"):
        rows, cols, m, k, n = shape
        rng = np.random.default_rng(11)
        self.grid = (m, k, 1, 2, 2)
        self.mask = rng.random((-(-m // 2), -(-k // 2))) < 0.7
        self.mask[0, 0] = True
        self.w = rng.integers(1, 9, (m, k)).astype(np.float32)
        self.x = rng.integers(1, 9, (k, n)).astype(np.float32)
        kept = np.repeat(np.repeat(self.mask, 2, axis=0)[:m], 2, axis=1)[:, :k]
        self.expected = (self.w * kept) @ self.x
        self.array = ArrayConfig(
            rows=rows, cols=cols, dataflow=dataflow, skip=skip, pipelining=pipelining, mux=2, group_cols=2
        )
        self.folds = _testing.schedule_folds(self.array, self.grid, self.mask, n)

    def starts(self):
        return [(preload, stream) for preload, stream, _ in self.folds]

    def run(self, starts):
        return _testing.simulate_cycle_from(self.array, self.grid, self.mask, self.w, self.x, starts)

    def breaks(self, starts):
        """Whether the engine refuses these starts or computes something else."""
        try:
            _, output = self.run(starts)
        except RuntimeError:
            return True
        return not np.array_equal(output, self.expected)


each_problem = pytest.mark.parametrize(
    "problem",
    [
        pytest.param((dataflow, skip, shape), id=f"{dataflow}-{skip}-{'x'.join(map(str, shape))}")
        for dataflow, skip in MODES
        for shape in SHAPES
    ],
)


@each_problem
def test_starting_any_fold_one_cycle_earlier_breaks_a_rule(problem):
    problem = Problem(*problem)
    starts = problem.starts()
    assert not problem.breaks(starts)
    for fold in range(1, len(starts)):
        alone = [(p - (f == fold), s - (f == fold)) for f, (p, s) in enumerate(starts)]
        with pytest.raises(RuntimeError, match="cycle engine"):
            problem.run(alone)
        onwards = [(p - (f >= fold), s - (f >= fold)) for f, (p, s) in enumerate(starts)]
        with pytest.raises(RuntimeError, match="cycle engine"):
            problem.run(onwards)


@pytest.mark.parametrize("dataflow", ["ws", "is"])
@pytest.mark.parametrize("shape", SHAPES)
def test_streaming_one_cycle_before_the_preload_is_complete_breaks_a_rule(dataflow, shape):
    problem = Problem(dataflow, "none", shape)
    starts = problem.starts()
    for fold in range(len(starts)):
        early = [(p, s - (f == fold)) for f, (p, s) in enumerate(starts)]
        with pytest.raises(RuntimeError, match="cycle engine"):
            problem.run(early)


@each_problem
def test_starting_folds_later_costs_the_delay_and_breaks_nothing(problem):
    problem = Problem(*problem)
    counts, _ = problem.run(problem.starts())
    late = [(p + 3, s + 3) for p, s in problem.starts()]
    delayed, output = problem.run(late)
    assert delayed.cycles == counts.cycles + 3
    np.testing.assert_array_equal(output, problem.expected)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_serial_folds_leave_room_to_start_earlier(dataflow):
    """Serial is an accounting rule, not a limit of the registers."""
    problem = Problem(dataflow, "none", SHAPES[0], pipelining="serial")
    early = [(p - (f > 0), s - (f > 0)) for f, (p, s) in enumerate(problem.starts())]
    assert not problem.breaks(early)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_folds_that_all_start_at_once_are_refused(dataflow):
    problem = Problem(dataflow, "none", SHAPES[0])
    with pytest.raises(RuntimeError, match="cycle engine"):
        problem.run([problem.starts()[0]] * len(problem.folds))


def test_starts_of_another_number_of_folds_are_refused():
    problem = Problem("ws", "none", SHAPES[0])
    with pytest.raises(ValueError, match="fold starts: expected"):
        problem.run(problem.starts()[1:])


@pytest.mark.parametrize(("dataflow", "depth"), [("ws", "n"), ("os", "k"), ("is", "m")])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_serial_fold_costs_preload_or_drain_plus_its_stream(dataflow, depth, shape):
    rows, cols, m, k, n = shape
    hw = Accelerator(rows=rows, cols=cols, dataflow=dataflow, pipelining="serial")
    result = simulate_gemm(np.ones((m, k)), n, block=(1, 1), accelerator=hw)
    assert result.cycles == result.folds * (2 * rows + cols + {"n": n, "k": k, "m": m}[depth] - 2)


def stepped(w, x, **array):
    return simulate_gemm(w, x, block=(1, 1), accelerator=Accelerator(**array), engine="cycle")


def test_one_pe_ws_takes_a_preload_cycle_and_one_cycle_per_position():
    """Preload in cycle 0, products of positions 0, 1, 2 in cycles 1, 2, 3: four edges."""
    result = stepped(
        np.full((1, 1), 2, np.float32), np.array([[3, 4, 5]], np.float32), rows=1, cols=1, dataflow="ws"
    )
    assert (result.cycles, result.macs, result.utilization) == (4, 3, 0.75)
    assert result.output.tolist() == [[6, 8, 10]]


def test_one_pe_os_takes_one_cycle_per_element_and_one_to_drain():
    result = stepped(
        np.array([[1, 2, 3]], np.float32),
        np.array([[4], [5], [6]], np.float32),
        rows=1,
        cols=1,
        dataflow="os",
    )
    assert (result.cycles, result.macs) == (4, 3)
    assert result.output.tolist() == [[32]]


def test_two_by_two_ws_overlaps_the_second_preload_with_the_first_stream():
    """Folds stream from cycles 2 and 5; the last of 3 results leaves in cycle 5 + 2 + 1 + 1."""
    w = np.arange(8, dtype=np.float32).reshape(2, 4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    result = stepped(w, x, rows=2, cols=2, dataflow="ws")
    assert (result.folds, result.cycles) == (2, 10)
    assert stepped(w, x, rows=2, cols=2, dataflow="ws", pipelining="serial").cycles == 2 * (4 + 2 + 3 - 2)
    np.testing.assert_array_equal(result.output, w @ x)


def test_two_by_two_os_waits_for_the_chain_when_folds_are_short():
    """Three folds of depth 1 on 2 rows start 2 cycles apart; the last result leaves 1 + 4 + 2 - 2 later."""
    w = np.array([[1], [2]], np.float32)
    x = np.arange(6, dtype=np.float32).reshape(1, 6)
    result = stepped(w, x, rows=2, cols=2, dataflow="os")
    assert (result.folds, result.cycles) == (3, 2 * 2 + 1 + 2 * 2 + 2 - 2)
    np.testing.assert_array_equal(result.output, w @ x)


def test_gather_performs_the_zeros_of_a_strip_that_one_feature_keeps():
    """Feature 0 keeps element 0, feature 1 keeps nothing: both PEs of the row multiply."""
    w = np.array([[5, 0], [0, 0]], np.float32)
    x = np.ones((2, 3), np.float32)
    result = stepped(w, x, rows=2, cols=2, dataflow="ws", skip="gather")
    assert (result.macs, result.kept_macs, result.skipped_macs, result.padded_macs) == (6, 3, 6, 6)
    own = stepped(w, x, rows=2, cols=2, dataflow="ws", skip="group")
    assert (own.macs, own.kept_macs, own.skipped_macs, own.padded_macs) == (3, 3, 9, 9)


def test_mux_combines_columns_that_no_block_row_keeps_twice():
    """Features keep elements 0 and 1, one each: one slot, one row, half of gather's MACs."""
    w = np.array([[5, 0], [0, 7]], np.float32)
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    gather = stepped(w, x, rows=1, cols=2, dataflow="ws", skip="gather")
    mux = stepped(w, x, rows=1, cols=2, dataflow="ws", skip="mux")
    assert (gather.folds, gather.macs) == (2, 12)
    assert (mux.folds, mux.macs, mux.kept_macs) == (1, 6, 6)
    np.testing.assert_array_equal(mux.output, w @ x)
