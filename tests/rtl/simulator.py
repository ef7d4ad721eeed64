"""Runs cases on the built hardware, and compares what it did with the engines and with docs/machine.md."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from pysim import _core, simulate_gemm
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid
from tests.rtl.build import CACHE, SOURCES, program
from tests.rtl.model import Model
from tests.rtl.work import Case, Fold, Work, plan

_SETTLE_CYCLES = 40  # after the last result; none of the models takes as long from a step to its result


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the hardware did, in cycles of docs/machine.md.

    Args:
        finished: Whether as many folds left as there are.
        faulty: First cycle in which a register was overwritten too early or read too late; None: never.
        preloads: Cycles in which preloads started; empty for ``os``.
        streams: Cycles in which streams started.
        results: (results, 3): cycle, column and value of each result.
    """

    finished: bool
    faulty: int | None
    preloads: list[int]
    streams: list[int]
    results: npt.NDArray[np.int32]


class Simulator:
    """A running harness; a context manager."""

    def __init__(self, models: Sequence[Model], path: Path, waveform: Path | None = None) -> None:
        self._models = list(models)
        command = [str(path), *([] if waveform is None else [str(waveform)])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, case: Case, work: Work) -> Run:
        """Loads a case into its model and runs it until its folds have left, or surely should have."""
        model = case.model
        serial = sum(2 * model.rows + model.cols + fold.depth for fold in work.folds)
        header = [
            self._models.index(model),
            case.pipelining == "serial",
            case.eager,
            len(work.folds),
            serial + _SETTLE_CYCLES + 100,
            _SETTLE_CYCLES,
            len(work.writes),
        ]
        self._process.stdin.write(np.array(header, np.int32).tobytes() + work.writes.tobytes())
        self._process.stdin.flush()
        finished, faulty, preloads, streams, results = self._read(5).tolist()
        lead = model.lead_cycles
        return Run(
            finished=bool(finished),
            faulty=None if faulty < 0 else faulty - lead,
            preloads=(self._read(preloads) - lead).tolist(),
            streams=(self._read(streams) - lead).tolist(),
            results=self._read(3 * results).reshape(-1, 3) - np.array([lead, 0, 0], np.int32),
        )

    def _read(self, count: int) -> npt.NDArray[np.int32]:
        data = self._process.stdout.read(4 * count)
        assert len(data) == 4 * count, f"rtl harness: expected {4 * count} bytes, got {len(data)}"
        return np.frombuffer(data, np.int32)


def check(simulator: Simulator, case: Case) -> Run:
    """Runs a case and raises AssertionError unless the hardware does what engines and contract say."""
    work = plan(case)
    run = simulator.run(case, work)
    rows, cols = case.w.shape
    grid = BlockGrid(m=rows, k=cols, positions=case.positions, bh=case.block[0], bw=case.block[1])
    hw = case.model.accelerator(case.skip, case.pipelining, case.mux)
    event = simulate_layer(grid, case.mask, case.x.shape[1], hw)
    cycle = simulate_gemm(
        case.w.astype(np.int8),
        case.x.astype(np.int8),
        block=case.block,
        accelerator=hw,
        engine="cycle",
        mask=case.mask,
        positions=case.positions,
    )
    starts = _core._testing.schedule_folds(
        _core.ArrayConfig(
            rows=hw.rows,
            cols=hw.cols,
            dataflow=hw.dataflow,
            skip=hw.skip,
            pipelining=hw.pipelining,
            mux=hw.mux,
            group_cols=min(case.model.feeder_cols, hw.cols),
        ),
        (rows, cols, case.positions, *case.block),
        case.mask,
        case.x.shape[1],
    )
    depths, streams = [depth for _, _, depth in starts], [stream for _, stream, _ in starts]
    last = int(run.results[:, 0].max(initial=-1))
    assert run.faulty is None, f"a register lost its value in cycle {run.faulty}"
    assert run.finished, "not all folds left, or more than there are"
    _same("depths of the folds", contract=[fold.depth for fold in work.folds], engines=depths)
    _same("folds", contract=len(work.folds), event=event.folds, cycle=cycle.folds)
    _same("cycles", hardware=last + 1, event=event.cycles, cycle=cycle.cycles)
    if not case.eager:
        _same("stream starts", hardware=run.streams, engines=streams)
        if case.model.dataflow != "os":
            _same("preload starts", hardware=run.preloads, engines=[preload for preload, _, _ in starts])
    for c in range(hw.cols):
        left = run.results[run.results[:, 1] == c][:, 0].tolist()
        leaving = leaving_cycles(case.model, work.folds, streams, c)
        _same(f"cycles in which results leave column {c}", hardware=left, contract=leaving)

    wrap = 1 << case.model.acc
    output = summed(work.folds, run.results, case.w.shape[0], case.x.shape[1])
    for expected in (cycle.output, case.masked() @ case.x):
        np.testing.assert_array_equal(output % wrap, expected.astype(np.int64) % wrap)
    return run


def _same(what: str, **values: object) -> None:
    """Raises AssertionError with all values unless they are equal."""
    first = next(iter(values.values()))
    if not all(value == first for value in values.values()):
        said = "; ".join(f"{name} {value}" for name, value in values.items())
        raise AssertionError(f"{what} differ: {said}")


def leaving_cycles(model: Model, folds: list[Fold], streams: list[int], col: int) -> list[int]:
    """Cycle in which each result of a column leaves, from the formulas of docs/machine.md."""
    cycles: list[int] = []
    for fold, s in zip(folds, streams, strict=True):
        if model.dataflow == "os":
            drain = s + fold.depth + model.rows - 1 + col
            cycles += range(drain, drain + model.rows)
        else:
            first = s + model.rows - 1 + col
            cycles += range(first, first + fold.depth)
    return cycles


def summed(folds: list[Fold], results: npt.NDArray[np.int32], m: int, n: int) -> npt.NDArray[np.int64]:
    """(M, N) outputs: results of one output from several folds are added, which is done outside the array."""
    output = np.zeros((m, n), np.int64)
    cols = len(folds[0].outputs) if folds else 0
    for c in range(cols):
        places = [place for fold in folds for place in fold.outputs[c]]
        values = results[results[:, 1] == c][:, 2]
        for place, value in zip(places, values, strict=True):
            if place is not None:
                output[place] += value
    return output


def record(case: Case, sources: Sequence[Path] = SOURCES, folder: Path = CACHE / "failures") -> Path:
    """Runs a case once more with a waveform, and tells where it is."""
    path = folder / f"{case.model.name}_{case.skip}_{case.pipelining}.vcd"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Simulator([case.model], program([case.model], sources, trace=True), path) as simulator:
        simulator.run(case, plan(case))
    return path
