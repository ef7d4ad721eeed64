"""``--explain``: for each layer, what the PEs' cycles went into, and where it lies under the roofline."""

from __future__ import annotations

from pysim.config import Accelerator
from pysim.report.table import block_name, format_table
from pysim.result import BlockRun, GemmResult, RunResult

_STALLS = ("stalled for inputs", "weights", "outputs")


def explain(result: RunResult) -> str:
    """A table for each block size, without a newline at its end."""
    return "\n\n".join(_explain_run(run, result.accelerator) for run in result.runs)


def cycle_shares(counts: GemmResult, hw: Accelerator) -> dict[str, float]:
    """Shares of PEs x cycles that add up to 1; empty if there are no cycles.

    Args:
        counts: Of a layer, by the event engine.
        hw: That they come from.

    Returns:
        ``useful`` MACs on kept weights, ``zero weights`` that the skip mode multiplies all the same,
        ``padding`` of partial folds and of feeders with a shorter list, ``idle cores`` that got no part of
        the layer or have finished theirs, stalls by cause, and the rest: ``fill, drain``, which is also
        waiting for a preload.
    """
    if not counts.cycles:
        return {}
    core_cycles = hw.cores * counts.cycles
    slots = hw.rows * hw.cols * core_cycles
    shares = {
        "useful": counts.kept_macs / slots,
        "zero weights": (counts.macs - counts.kept_macs) / slots,
        "padding": counts.padded_macs / slots,
    }
    stalls = [
        [core.stall_input_cycles, core.stall_weight_cycles, core.stall_output_cycles] for core in counts.cores
    ]
    sums = [sum(cause) for cause in zip(*stalls, strict=True)]
    shares |= {name: stall / core_cycles for name, stall in zip(_STALLS, sums, strict=True)}
    shares["idle cores"] = 1 - sum(core.cycles for core in counts.cores) / core_cycles
    return shares | {"fill, drain": 1 - sum(shares.values())}


def _explain_run(run: BlockRun, hw: Accelerator) -> str:
    pes = hw.rows * hw.cols * hw.cores
    causes = ["useful", "zero weights", "padding", "fill, drain", *_STALLS]
    if hw.cores > 1:
        causes.append("idle cores")
    header = ["layer", "cycles", *causes]
    header += ["MACs/B", "roof MACs/cycle", "reached", "mostly"]
    rows = []
    for layer in run.layers:
        shares = cycle_shares(layer.counts, hw)
        cells = [f"{100 * shares[name]:.1f} %" if shares else "-" for name in causes]
        rows.append(
            [layer.name, f"{layer.cycles:,}", *cells, *_roofline(layer.counts, hw, pes), _mostly(shares)]
        )
    return (
        f"block {block_name(run.block)}: where the cycles of {pes} PEs go, and the roofline of useful MACs\n"
        + format_table(header, rows)
    )


def _roofline(counts: GemmResult, hw: Accelerator, pes: int) -> list[str]:
    """Useful MACs per byte off chip, the most per cycle that PEs and channel allow, and what was reached."""
    if not counts.cycles:
        return ["-"] * 3
    reached = f"{counts.kept_macs / counts.cycles:.1f}"
    if counts.memory is None or hw.memory is None or not counts.memory.total_bytes:
        return ["-", f"{pes}", reached]
    intensity = counts.kept_macs / counts.memory.total_bytes
    rate = hw.memory.bandwidth
    roof = pes if rate is None else min(pes, intensity * rate)
    return [f"{intensity:.1f}", f"{roof:.1f}", reached]


def _mostly(shares: dict[str, float]) -> str:
    """The largest of streaming through the array, fill and drain, and the stalls."""
    if not shares:
        return "nothing to do"
    parts = {
        "streaming": shares["useful"] + shares["zero weights"] + shares["padding"],
        "fill, drain": shares["fill, drain"],
        "waiting for inputs": shares[_STALLS[0]],
        "waiting for weights": shares[_STALLS[1]],
        "waiting for outputs": shares[_STALLS[2]],
        "idle cores": shares["idle cores"],
    }
    return max(parts, key=lambda part: parts[part])
