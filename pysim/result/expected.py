"""Accuracies that others published for a study, and what was measured beside them. Frozen; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pysim.errors import DataError
from pysim.result.fields import read_list, read_number, read_object, read_schema, read_text
from pysim.result.prune import Sample, Trial

EXPECTED_SCHEMA = 1
# A published sparsity further away than this is not the same setting.
NEAR = 0.05
_MOST_POINTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRow:
    """One method's accuracies.

    Args:
        method: A name in ``METHODS``.
        init: The control of its last retraining, or None.
        what: How it was done there, one line.
        points: Sparsity (0 to below 1) and accuracy in percent, by rising sparsity; at least one.
    """

    method: str
    init: str | None
    what: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Published accuracies of single weights (block 1x1).

    Args:
        source: Who published them.
        model: Name.
        dataset: Name.
        dense: The network before pruning.
        rows: By method.
    """

    source: str
    model: str
    dataset: str
    dense: Sample
    rows: tuple[ExpectedRow, ...]

    @classmethod
    def from_json(cls, where: str, value: object) -> Expected:
        """From a file that anyone may have written.

        Args:
            where: The file, for messages.
            value: As JSON has it.

        Raises:
            DataError: It is something else; the message names the field.
        """
        top = read_object(where, "", value)
        read_schema(where, top.get("schema"), EXPECTED_SCHEMA)
        dense = read_object(where, "dense", top.get("dense"))
        rows = read_list(where, "rows", top.get("rows"))
        return cls(
            source=read_text(where, "source", top.get("source")),
            model=read_text(where, "model", top.get("model")),
            dataset=read_text(where, "dataset", top.get("dataset")),
            dense=Sample(
                mean=read_number(where, "dense.mean", dense.get("mean"), 0, 100),
                sd=read_number(where, "dense.sd", dense.get("sd"), 0, 100),
                n=int(read_number(where, "dense.n", dense.get("n"), 1, 10**6)),
            ),
            rows=tuple(_row(where, f"rows[{i}]", row) for i, row in enumerate(rows)),
        )


def _row(where: str, at: str, value: object) -> ExpectedRow:
    row = read_object(where, at, value)
    init = row.get("init")
    raw = read_list(where, f"{at}.points", row.get("points"))
    if not 1 <= len(raw) <= _MOST_POINTS:
        raise DataError(f"{where}: {at}.points: expected from 1 to {_MOST_POINTS}, got {len(raw)}")
    points = []
    for i, pair in enumerate(raw):
        field = f"{at}.points[{i}]"
        both = read_list(where, field, pair)
        if len(both) != 2:
            raise DataError(f"{where}: {field}: expected sparsity and accuracy, got {len(both)} values")
        points.append((read_number(where, field, both[0], 0, 1), read_number(where, field, both[1], 0, 100)))
    if sorted({sparsity for sparsity, _ in points}) != [sparsity for sparsity, _ in points]:
        raise DataError(f"{where}: {at}.points: expected rising sparsities")
    return ExpectedRow(
        method=read_text(where, f"{at}.method", row.get("method")),
        init=None if init is None else read_text(where, f"{at}.init", init),
        what=read_text(where, f"{at}.what", row.get("what")),
        points=tuple(points),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What was measured at one sparsity, beside what was published nearest to it.

    Args:
        sparsity: Measured at.
        measured: Accuracy, percent.
        expected_sparsity: Published for.
        expected: Accuracy, percent.
    """

    sparsity: float
    measured: Sample
    expected_sparsity: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A study's single weights beside published ones. It decides nothing.

    Args:
        source: Who published them.
        what: How it was done there.
        dense: Published, of the network before pruning.
        measured_dense: Here; None if nothing was trained.
        points: By sparsity.
        without: Sparsities here that have none published within ``NEAR``.
    """

    source: str
    what: str
    dense: Sample
    measured_dense: Sample | None
    points: tuple[Beside, ...]
    without: tuple[float, ...]


def compare_expected(
    expected: Expected, trials: Sequence[Trial], *, model: str, dataset: str, method: str, init: str | None
) -> Comparison | None:
    """The trials of block 1x1 beside the row of their method; None if nothing of the kind was published."""
    rows = [row for row in expected.rows if (row.method, row.init) == (method, init)]
    own = [trial for trial in trials if trial.block == (1, 1)]
    if (model, dataset) != (expected.model, expected.dataset) or not rows or not own:
        return None
    dense = {trial.seed: trial.dense for trial in own if trial.dense is not None}
    measured: dict[float, list[float]] = {}
    for trial in own:
        for level in trial.levels:
            measured.setdefault(level.sparsity, []).append(level.accuracy)
    points, without = [], []
    for sparsity, accuracies in sorted(measured.items()):
        near, accuracy = min(rows[0].points, key=lambda point: (abs(point[0] - sparsity), point))
        # To nine digits: 0.89 and 0.84 are 0.05 apart.
        if round(abs(near - sparsity), 9) > NEAR:
            without.append(sparsity)
            continue
        points.append(
            Beside(
                sparsity=sparsity,
                measured=Sample.of(accuracies),
                expected_sparsity=near,
                expected=accuracy,
            )
        )
    return Comparison(
        source=expected.source,
        what=rows[0].what,
        dense=expected.dense,
        measured_dense=Sample.of(list(dense.values())) if dense else None,
        points=tuple(points),
        without=tuple(without),
    )
