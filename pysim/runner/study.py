"""``pysim experiment``: a study's configuration, its trials, its results file and its verdict."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pysim
from pysim.atomic import write_bytes_atomic
from pysim.config import Skip
from pysim.errors import ConfigError
from pysim.pruning import Layout, PruneConfig
from pysim.result import Expected, StudyResult, Trial, compare_expected, read_json
from pysim.runner.mask_file import masks_path, network_name, save_network_masks
from pysim.runner.methods import DENSE_LR, Init, Level
from pysim.runner.networks import DenseNetwork, PrunedNetwork, Source
from pysim.runner.prune import (
    PruneRunConfig,
    check_steps,
    dense_for,
    name_seeds,
    run_trials,
    seed_groups,
)
from pysim.runner.speedup import accelerator_for, simulated_speedup
from pysim.runner.verdict import VERDICTS, Criteria, Rule, decide
from pysim.training import Progress, Threads, check_bf16, no_progress
from pysim.workload import BlockMask

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One budget of a study. Field names are the keys of the TOML file.

    Those that are not listed mean what they do in ``PruneRunConfig`` and ``PruneConfig``.

    Args:
        sparsity: The one that the verdict rests on.
        more_sparsities: Shown and drawn, not judged; run after the judged one.
        more_seeds: How many of the seeds those are run with, from the first; None for all.
        hw: As ``--hw``: what is simulated.
        skip: As ``--skip``.

    Raises:
        ConfigError: A field is missing, unknown, of the wrong type or out of range.
    """

    model: str
    data: str
    blocks: tuple[tuple[int, int], ...]
    seeds: tuple[int, ...]
    sparsity: float
    method: str
    more_sparsities: tuple[float, ...] = ()
    more_seeds: int | None = None
    hw: str = "gemmini-16"
    skip: Skip = "gather"
    init: Init | None = None
    score: str = "l1"
    scope: str = "layer"
    layout: Layout = "kh,kw,cin"
    mask: str = "keep"
    prune_all: bool = False
    epochs: int = 1
    dense_epochs: int = 4
    dense_lr: float = DENSE_LR
    rewind_step: int = 0
    level_rate: float = 0.2
    pad_to: int | None = None
    bf16: bool = False
    sparse_training: bool = False
    criteria: Criteria = field(default_factory=Criteria)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A claim and how to test it.

    Args:
        name: One of ``VERDICTS``.
        claim: One sentence.
        folder: Where the configuration is.
        presets: By name.
    """

    name: str
    claim: str
    folder: Path
    presets: dict[str, Preset]

    def preset(self, name: str) -> Preset:
        """Raises ConfigError if there is none of that name."""
        if name not in self.presets:
            raise ConfigError(f"preset: expected one of {', '.join(self.presets)}, got {name!r}")
        return self.presets[name]

    def results(self, preset: str) -> Path:
        """The results file, unless another is named."""
        return self.folder / "results" / f"{preset}.json"

    def expected(self, preset: str) -> Expected | None:
        """Published accuracies for a preset, if there are any. Raises DataError if the file is none."""
        path = self.folder / "expected" / f"{preset}.json"
        if not path.is_file():
            return None
        return Expected.from_json(str(path), read_json(path, _MAX_BYTES, "file of expected accuracies"))


def find_study(name: str) -> Path:
    """The folder of a study: a path, or a name below ``experiments`` here or in pysim's source tree.

    Raises:
        ConfigError: There is none.
    """
    roots = [Path(), Path("experiments"), Path(pysim.__file__).parent.parent / "experiments"]
    for root in roots:
        if (root / name / "config.toml").is_file():
            return root / name
    raise ConfigError(
        f"experiment {name!r}: expected a folder with config.toml, found none here or in experiments",
        hint=f"Run it in pysim's source tree; its studies are {', '.join(VERDICTS)}.",
    )


def load_study(folder: Path) -> Study:
    """Reads ``config.toml``.

    Raises:
        ConfigError: It cannot be read, or says something that is unknown or out of range.
    """
    path = folder / "config.toml"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: expected at most {_MAX_BYTES} bytes")
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    _known(path, "", raw, {"study", "claim", "common", "preset"}, {"study", "claim", "preset"})
    name, claim, presets, common = raw["study"], raw["claim"], raw["preset"], raw.get("common", {})
    if not isinstance(claim, str) or not isinstance(name, str) or name not in VERDICTS:
        raise ConfigError(f"{path}: expected a claim and a study of {', '.join(VERDICTS)}, got {name!r}")
    if not isinstance(presets, dict) or not all(isinstance(p, dict) for p in (common, *presets.values())):
        raise ConfigError(f"{path}: expected tables [common] and [preset.NAME]")
    made = {
        key: _preset(path, key, _merged(common, values), VERDICTS[name]) for key, values in presets.items()
    }
    return Study(name=name, claim=claim, folder=folder, presets=made)


def _merged(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    criteria = {**_table_of(common), **_table_of(own)}
    return {**common, **own, "criteria": criteria}


def _table_of(values: dict[str, Any]) -> dict[str, Any]:
    criteria = values.get("criteria", {})
    return criteria if isinstance(criteria, dict) else {"criteria": criteria}


def _known(path: Path, where: str, values: dict[str, Any], known: set[str], needed: set[str]) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: {where}{key}: expected one of {', '.join(sorted(known))}")
    for key in sorted(needed - set(values)):
        raise ConfigError(f"{path}: {where}{key}: is missing")


_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "int | None": int,
    "Init | None": str,
    "Skip": str,
    "Layout": str,
}


def _typed(path: Path, where: str, cls: type, values: dict[str, Any]) -> dict[str, Any]:
    kinds = {f.name: str(f.type) for f in fields(cls)}
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    _known(path, where, values, set(kinds), needed)
    for key, value in values.items():
        kind = _TYPES.get(kinds[key])
        wrong_bool = isinstance(value, bool) and kind is not bool
        if kind is not None and (wrong_bool or not isinstance(value, kind)):
            raise ConfigError(f"{path}: {where}{key}: expected {kinds[key]}, got {value!r}")
    return values


def _preset(path: Path, name: str, values: dict[str, Any], rule: Rule) -> Preset:
    where = f"preset.{name}."
    values = _typed(path, where, Preset, values)
    criteria = _typed(path, where + "criteria.", Criteria, values["criteria"])
    blocks, seeds, more = values["blocks"], values["seeds"], values.get("more_sparsities", [])
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ConfigError(f"{path}: {where}seeds: expected a list of integers, got {seeds!r}")
    if not isinstance(blocks, list) or not blocks:
        raise ConfigError(f"{path}: {where}blocks: expected a list such as [1, 2, '1x16'], got {blocks!r}")
    if not isinstance(more, list) or not all(type(sparsity) is float for sparsity in more):
        raise ConfigError(f"{path}: {where}more_sparsities: expected a list such as [0.5], got {more!r}")
    preset = Preset(
        **{
            **values,
            "more_sparsities": tuple(more),
            "blocks": tuple(_block(path, where, block) for block in blocks),
            "seeds": tuple(seeds),
            "criteria": Criteria(**criteria),
        }
    )
    for sparsity in _sparsities(preset):  # refuses early
        _run_config(preset, sparsity, None, use_cache=True).plan(preset.blocks[0], preset.seeds[0])
    try:
        rule.check_blocks(preset.blocks)
    except ConfigError as error:
        raise ConfigError(f"{path}: {where}{error}") from error
    if preset.more_seeds is not None and not 1 <= preset.more_seeds <= len(seeds):
        raise ConfigError(
            f"{path}: {where}more_seeds: expected from 1 to {len(seeds)}, got {preset.more_seeds}"
        )
    accelerator_for(preset.hw, preset.skip)
    return preset


def _sparsities(preset: Preset) -> tuple[float, ...]:
    both = (preset.sparsity, *preset.more_sparsities)
    if len(set(both)) < len(both):
        raise ConfigError(f"more_sparsities: expected each once and not {preset.sparsity}, got {both[1:]}")
    return both


def _seeds(preset: Preset, sparsity: float) -> tuple[int, ...]:
    """Those that a sparsity is run with."""
    return preset.seeds[: None if sparsity == preset.sparsity else preset.more_seeds]


def _block(path: Path, where: str, value: object) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", str(value))
    if match is None or isinstance(value, bool):
        raise ConfigError(f"{path}: {where}blocks: expected a size such as 4 or '1x16', got {value!r}")
    return int(match[1]), int(match[2] or match[1])


def _run_config(preset: Preset, sparsity: float, data: str | None, *, use_cache: bool) -> PruneRunConfig:
    return PruneRunConfig(
        model=preset.model,
        blocks=preset.blocks,
        prune=PruneConfig(
            block=preset.blocks[0],
            sparsity=sparsity,
            prune_all=preset.prune_all,
            score=preset.score,
            scope=preset.scope,
            layout=preset.layout,
            mask=preset.mask,
        ),
        seeds=preset.seeds,
        method=preset.method,
        init=preset.init,
        epochs=preset.epochs,
        dense_epochs=preset.dense_epochs,
        dense_lr=preset.dense_lr,
        rewind_step=preset.rewind_step,
        level_rate=preset.level_rate,
        data=data or preset.data,
        pad_to=preset.pad_to,
        bf16=preset.bf16,
        sparse_training=preset.sparse_training,
        use_cache=use_cache,
    )


def run_study(
    study: Study,
    preset_name: str,
    *,
    data: str | None = None,
    device: str = "cpu",
    seeds_together: bool = False,
    threads: Threads = None,
    out: Path | None = None,
    use_cache: bool = True,
    progress: Progress = no_progress,
) -> StudyResult:
    """Runs every trial of a preset, sparsity by sparsity and seed by seed, and judges them.

    The masks of the first seed are written beside the results, for ``measure_study``.

    Args:
        study: What.
        preset_name: A preset of it.
        data: Instead of the preset's.
        device: ``cpu`` or ``cuda``: what trains and tests.
        seeds_together: Train the networks of all seeds side by side.
        threads: With how many CPU threads networks are trained.
        out: The results file, written anew after every trial; None for ``results/PRESET.json`` of the study.
        use_cache: Whether finished or interrupted work may be taken from the cache.
        progress: Told how far each stage is.

    Raises:
        PysimError: The preset is unknown, or something in it cannot be done.
    """
    preset = study.preset(preset_name)
    expected = study.expected(preset_name)
    out = out or study.results(preset_name)
    configs = {
        s: replace(
            _run_config(preset, s, data, use_cache=use_cache),
            device=device,
            seeds_together=seeds_together,
            threads=threads,
        )
        for s in _sparsities(preset)
    }
    work = [
        (sparsity, group, block)
        for sparsity in configs
        for group in seed_groups(_seeds(preset, sparsity), seeds_together)
        for block in preset.blocks
    ]
    plans = {(s, seed, b): configs[s].plan(b, seed) for s, group, b in work for seed in group}
    source = Source(data or preset.data, preset.pad_to, device, threads)
    if preset.bf16:
        check_bf16(source.device)
    check_steps(plans.values(), source)
    accelerator = accelerator_for(preset.hw, preset.skip)
    settings: dict[str, object] = asdict(preset) | {
        "data": source.spec,
        "device": device,
        "seeds_together": seeds_together,
        "threads": threads,
    }
    every = VERDICTS[study.name].every_sparsity
    judged = {key for key in plans if every or key[0] == preset.sparsity}
    dense: dict[int, DenseNetwork] = {}
    trials: list[Trial] = []
    masks: dict[str, Mapping[str, BlockMask]] = {}
    image = source.first_image()

    def simulate(network: PrunedNetwork, level: Level) -> float | None:
        if level.prune.seed == preset.seeds[0]:
            masks[network_name(level.prune.block, level.prune.sparsity)] = network.masks
        if preset.layout == "oihw":  # such blocks can be trained under, not simulated
            return None
        return simulated_speedup(network.model, network.masks, level.prune.block, image, accelerator)

    for sparsity, seeds, block in work:
        config = configs[sparsity]

        now = f"trial {len(trials) + 1} of {len(plans)}, {name_seeds(seeds)}, "

        def labelled(what: str, done: int, total: int, now: str = now) -> None:
            progress(now + what, done, total)

        own = {seed: plans[sparsity, seed, block] for seed in seeds}
        if seeds[0] not in dense:
            # Side by side with all that are needed anywhere, so that each is the same everywhere.
            group = preset.seeds if seeds_together else seeds
            dense = dense_for(config, group, own[seeds[0]], source, labelled)
        trials += run_trials(config, block, own, dense, source, labelled, simulate=simulate)
        verdict = None
        if judged <= {(t.sparsity, t.seed, t.block) for t in trials}:
            chosen = [t for t in trials if (t.sparsity, t.seed, t.block) in judged]
            verdict = decide(study.name, chosen, preset.criteria)
        result = StudyResult(
            pysim_version=pysim.__version__,
            study=study.name,
            claim=study.claim,
            preset=preset_name,
            settings=settings,
            model=config.model,
            dataset=source.dataset.name,
            planned=len(plans),
            trials=tuple(trials),
            verdict=verdict,
            expected=None
            if expected is None
            else compare_expected(
                expected,
                trials,
                model=config.model,
                dataset=source.dataset.name,
                method=preset.method,
                init=preset.init,
            ),
        )
        save_network_masks(masks_path(out), study.name, preset_name, masks)
        write_results(out, result.to_json())
    return result


def write_results(out: Path, results: dict[str, object]) -> None:
    """Writes a results file atomically."""
    text = json.dumps(results, indent=1, allow_nan=False)
    write_bytes_atomic(out, f"{text}\n".encode())
