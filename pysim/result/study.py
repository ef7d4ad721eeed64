"""What an experiment finds out, and its JSON form, to and fro. Frozen; no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pysim.errors import DataError
from pysim.result.expected import Comparison
from pysim.result.fields import read_block, read_list, read_number, read_object, read_schema
from pysim.result.prune import Sample, Trial

STUDY_SCHEMA = 1
Answer = Literal["supported", "not supported", "undecided at this budget"]
Block = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One number that a verdict rests on, with its interval.

    Args:
        name: What it is.
        unit: Of the numbers.
        value: From all seeds.
        low: Lower end of the bootstrap interval.
        high: Upper end.
        supports: Whether the whole interval lies where the claim wants it, wholly elsewhere, or neither
            (None).
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    supports: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to a study's claim.

    Args:
        answer: ``supported`` if all evidence supports it, ``not supported`` if any speaks against it, else
            undecided.
        evidence: What it rests on.
        why: One sentence.
    """

    answer: Answer
    evidence: tuple[Evidence, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """A study at one preset.

    Args:
        pysim_version: That made it.
        study: Name.
        claim: One sentence.
        preset: Name.
        settings: Everything that the preset says, as JSON values.
        model: Name.
        dataset: Name.
        planned: Trials that the preset asks for.
        trials: Those done.
        verdict: None until all are done.
        expected: Single weights beside published accuracies; None where there are none.
    """

    pysim_version: str
    study: str
    claim: str
    preset: str
    settings: dict[str, object]
    model: str
    dataset: str
    planned: int
    trials: tuple[Trial, ...]
    verdict: Verdict | None
    expected: Comparison | None = None

    def to_json(self) -> dict[str, object]:
        """The object that the results file holds and ``--json`` prints."""
        return {
            "schema": STUDY_SCHEMA,
            "pysim_version": self.pysim_version,
            "study": self.study,
            "claim": self.claim,
            "preset": self.preset,
            "settings": self.settings,
            "model": self.model,
            "dataset": self.dataset,
            "complete": len(self.trials) == self.planned,
            "trials": [
                {
                    "block": list(t.block),
                    "seed": t.seed,
                    "dense": t.dense,
                    "dense_threads": t.dense_threads,
                    "sparsity_prunable": t.sparsity_prunable,
                    "empty": list(t.empty),
                    "levels": [asdict(level) for level in t.levels],
                }
                for t in self.trials
            ],
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "expected": None if self.expected is None else asdict(self.expected),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One block size at one sparsity, over seeds.

    Args:
        block: Height and width.
        sparsity: Asked for, 0 to below 1.
        accuracy: Percent of the test images.
        simulated: Mean of the simulated speedups; None if there is none.
        measured: Mean of the measured ones; None if there is none.
    """

    block: tuple[int, int]
    sparsity: float
    accuracy: Sample
    simulated: float | None
    measured: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeOff:
    """Accuracy against speedup, from a results file.

    Args:
        title: Study, preset, model and data, one line.
        machine: What was simulated.
        dense: Accuracies of the networks that pruning started from.
        points: By block, smallest first, then by sparsity.
        complete: Whether all planned trials are in it.
    """

    title: str
    machine: str
    dense: Sample | None
    points: tuple[Point, ...]
    complete: bool

    @classmethod
    def from_json(cls, where: str, results: object) -> TradeOff:
        """From what ``StudyResult.to_json`` gives, read from a file that anyone may have written.

        Args:
            where: The file, for messages.
            results: As JSON has it.

        Raises:
            DataError: It is something else; the message names the field.
        """
        top = read_object(where, "", results)
        read_schema(where, top.get("schema"), STUDY_SCHEMA)
        settings = read_object(where, "settings", top.get("settings"))
        groups: dict[tuple[tuple[int, int], float], list[_Run]] = {}
        dense: dict[int, float] = {}
        for t, item in enumerate(read_list(where, "trials", top.get("trials"))):
            at = f"trials[{t}]"
            trial = read_object(where, at, item)
            block = read_block(where, f"{at}.block", trial.get("block"))
            if trial.get("dense") is not None:
                seed = int(read_number(where, f"{at}.seed", trial.get("seed"), 0, 2**32))
                dense[seed] = read_number(where, f"{at}.dense", trial.get("dense"), 0, 100)
            for i, entry in enumerate(read_list(where, f"{at}.levels", trial.get("levels"))):
                at_level = f"{at}.levels[{i}]"
                level = read_object(where, at_level, entry)
                sparsity = read_number(where, f"{at_level}.sparsity", level.get("sparsity"), 0, 1)
                groups.setdefault((block, sparsity), []).append(_run(where, at_level, level))
        if not groups:
            raise DataError(f"{where}: trials: expected at least one, got none")
        names = (str(top.get(field, "?"))[:80] for field in ("study", "preset", "model", "dataset"))
        study, preset, model, dataset = names
        return cls(
            title=f"{study}, preset {preset}: {model} on {dataset}",
            machine=f"{str(settings.get('hw', '?'))[:80]}, skip {str(settings.get('skip', '?'))[:20]}",
            dense=Sample.of(list(dense.values())) if dense else None,
            points=tuple(
                _point(block, sparsity, groups[block, sparsity])
                for block, sparsity in sorted(groups, key=lambda g: (g[0][0] * g[0][1], g))
            ),
            complete=top.get("complete") is True,
        )


def by_size(blocks: Iterable[Block]) -> dict[int, list[Block]]:
    """Blocks by the number of their weights."""
    groups: dict[int, list[Block]] = {}
    for height, width in blocks:
        groups.setdefault(height * width, []).append((height, width))
    return groups


def squarest(blocks: Iterable[Block]) -> Block:
    """Of blocks with equally many weights; of two as square the lower one."""
    return min(blocks, key=lambda block: (max(block), block))


def squarest_blocks(blocks: Iterable[Block]) -> set[Block]:
    """One for each number of weights."""
    return {squarest(same) for same in by_size(blocks).values()}


_Run = tuple[float, float | None, float | None]
"""Accuracy, simulated speedup, measured speedup."""


def _run(where: str, at: str, level: dict[str, object]) -> _Run:
    return (
        read_number(where, f"{at}.accuracy", level.get("accuracy"), 0, 100),
        _speedup(where, f"{at}.simulated_speedup", level.get("simulated_speedup")),
        _speedup(where, f"{at}.measured_speedup", level.get("measured_speedup")),
    )


def _point(block: tuple[int, int], sparsity: float, runs: Sequence[_Run]) -> Point:
    def mean(values: list[float]) -> float | None:
        return math.fsum(values) / len(values) if values else None

    return Point(
        block=block,
        sparsity=sparsity,
        accuracy=Sample.of([run[0] for run in runs]),
        simulated=mean([run[1] for run in runs if run[1] is not None]),
        measured=mean([run[2] for run in runs if run[2] is not None]),
    )


def _speedup(where: str, field: str, value: object) -> float | None:
    return None if value is None else read_number(where, field, value, 1e-6, 1e6)
