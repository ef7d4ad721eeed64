"""``pysim experiment --measure``: times a study's networks from their masks; nothing is trained.

The times stand beside the simulated speedups in the same results file. A network during whose timing other
programs used the machine gets none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pysim.errors import DataError
from pysim.pruning import apply_block_masks, check_masks
from pysim.result import Block, TradeOff, read_json
from pysim.runner.mask_file import load_network_masks, masks_path, network_name
from pysim.runner.networks import Source, fresh_model
from pysim.runner.speedup import measured_speedup
from pysim.runner.study import Preset, Study, write_results
from pysim.training import Progress, no_progress

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of a study's networks.

    Args:
        results: What the results file holds now.
        disturbed: Networks, as block and sparsity, that have no time because the machine was busy.
    """

    results: dict[str, object]
    disturbed: tuple[tuple[Block, float], ...]


def measure_study(
    study: Study,
    preset_name: str,
    *,
    out: Path | None = None,
    threads: int,
    again: bool = False,
    progress: Progress = no_progress,
) -> Measured:
    """Times the networks of the first seed that have no time yet.

    Args:
        study: Whose preset has been run.
        preset_name: That preset.
        out: The results file, written anew after every network; None for the preset's own.
        threads: Of the timed kernels.
        again: Time all of them anew.
        progress: Told how many networks are done.

    Raises:
        ConfigError: The preset is unknown.
        DataError: Results or masks are absent, damaged, or not of this preset.
    """
    preset = study.preset(preset_name)
    out = out or study.results(preset_name)
    results = _read(out, study, preset_name, preset)
    networks = load_network_masks(masks_path(out), study.name, preset_name)
    levels = [
        ((trial["block"][0], trial["block"][1]), level)
        for trial in results["trials"]
        if trial["seed"] == preset.seeds[0]
        for level in trial["levels"]
    ]
    todo = [(b, level) for b, level in levels if again or level.get("measured_speedup") is None]
    source = Source(preset.data, preset.pad_to)
    image = source.first_image()
    disturbed = []
    for done, (block, level) in enumerate(todo):
        progress(f"timing block {block[0]}x{block[1]}", done, len(todo))
        name = network_name(block, level["sparsity"])
        if name not in networks:
            raise DataError(
                f"{masks_path(out)}: expected masks of {name!r}, got none", hint=_hint(preset_name)
            )
        model = fresh_model(preset.model, source.dataset, preset.seeds[0])
        masks = networks[name]
        check_masks(model, masks)
        apply_block_masks(model, masks)
        found = measured_speedup(model, masks, image, threads)
        if found is None:
            disturbed.append((block, level["sparsity"]))
        level["measured_speedup"] = found
        results["measured_threads"] = threads
        write_results(out, results)
    return Measured(results=results, disturbed=tuple(disturbed))


def _hint(preset: str) -> str:
    return f"Run it first, without --measure: pysim experiment ... --preset {preset}"


def _read(out: Path, study: Study, preset_name: str, preset: Preset) -> dict[str, Any]:
    """The results file, checked as far as it is used here."""
    if not out.is_file():
        raise DataError(
            f"{out}: expected the results of preset {preset_name}, got no such file", hint=_hint(preset_name)
        )
    results: Any = read_json(out, _MAX_BYTES, "results file")
    TradeOff.from_json(str(out), results)
    for field, expected in (("study", study.name), ("preset", preset_name), ("model", preset.model)):
        if results.get(field) != expected:
            raise DataError(f"{out}: {field}: expected {expected!r}, got {results.get(field)!r}")
    if not all(type(trial.get("seed")) is int for trial in results["trials"]):
        raise DataError(f"{out}: trials: expected a seed in each")
    return dict(results)
