"""What an experiment finds out, and its JSON form. Frozen; no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from pysim.result.prune import Trial

STUDY_SCHEMA = 1
Answer = Literal["supported", "not supported", "undecided at this budget"]


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
                    "sparsity_prunable": t.sparsity_prunable,
                    "levels": [asdict(level) for level in t.levels],
                }
                for t in self.trials
            ],
            "verdict": None if self.verdict is None else asdict(self.verdict),
        }
