"""``pysim run`` as text: a row per layer for one block size, a row per block size for several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pysim.config import Accelerator
from pysim.result import BlockRun, EnergyDelay, KernelTiming, LayerResult, RunResult

_NOTHING = "-"
# A kernel that finds a core taken one time in ten still has its first quartile undisturbed.
_LOAD_THAT_DISTURBS = 0.1


def render(result: RunResult) -> str:
    """The whole report, without a newline at its end."""
    parts = [_heading(result)]
    if len(result.runs) == 1:
        parts.append(_layers(result.runs[0]))
    parts += [
        _summary(result),
        _skip_modes(result),
        _network(result),
        _memory(result),
        _energy(result),
        _one_call(result),
        _remarks(result),
        _checks(result),
    ]
    return "\n\n".join(part for part in parts if part)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned by two spaces: the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * width for width in widths]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join(line(cells) for cells in (header, rule, *rows))


def _ratio(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}x"


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def block_name(block: tuple[int, int]) -> str:
    """``4x4``."""
    return f"{block[0]}x{block[1]}"


def _heading(result: RunResult) -> str:
    hw = result.accelerator
    cores = f"{hw.cores} cores of " if hw.cores > 1 else ""
    reorder = "block rows reordered where that saves cycles, " if hw.reorder else ""
    mapper = "order and size of folds by the mapper, " if hw.mapper else ""
    return (
        f"{result.model} on {result.dataset}, {_count(result.batch, 'image')}, seed {result.seed}, "
        f"{_percent(result.sparsity)} of each prunable layer's blocks pruned, "
        f"{_count(result.finetune_epochs, 'epoch')} of fine-tuning\n"
        f"simulated: {hw.name}, {cores}{hw.rows} x {hw.cols} PEs, dataflow {hw.dataflow}, skip {hw.skip}, "
        f"{hw.pipelining}, {reorder}{mapper}{_memory_text(hw)}"
    )


def _memory_text(hw: Accelerator) -> str:
    memory = hw.memory
    if memory is None:
        return "no memory: operands always arrive in time"
    sizes = " + ".join(
        f"{size / 1024:g}" for size in (memory.input_bytes, memory.weight_bytes, memory.output_bytes)
    )
    rate = "unlimited" if memory.bandwidth is None else f"{memory.bandwidth:.4g} B/cycle"
    each = " in each" if hw.cores > 1 else ""
    mode = {"ideal": ", never waited for", "rowbuffer": ", DRAM rows followed"}.get(memory.mode, "")
    return f"{sizes} KiB for inputs, weights, outputs{each}, {rate} off chip{mode}"


def _layers(run: BlockRun) -> str:
    header = ["layer", "M", "K", "N", "blocks kept", "cycles dense", "cycles", "speedup", "array use"]
    header += ["dense us", "sparse us", "speedup", "kernel"]
    rows = [_layer_row(layer) for layer in run.layers]
    timings = [layer.kernel for layer in run.layers if layer.kernel is not None]
    measured = len(timings) == len(run.layers)
    rows.append(
        [
            "total",
            "",
            "",
            "",
            f"{sum(x.blocks_kept for x in run.layers)}/{sum(x.blocks_total for x in run.layers)}",
            f"{run.cycles_dense:,}",
            f"{run.cycles:,}",
            _ratio(run.speedup),
            "",
            f"{sum(t.dense_us for t in timings):.0f}" if measured else _NOTHING,
            f"{sum(t.sparse_us for t in timings):.0f}" if measured else _NOTHING,
            _ratio(run.kernel_speedup),
            "",
        ]
    )
    return f"block {block_name(run.block)}\n" + format_table(header, rows)


def _layer_row(layer: LayerResult) -> list[str]:
    name = layer.name if layer.groups == 1 else f"{layer.name} ({layer.groups} groups)"
    return [
        name,
        str(layer.m),
        str(layer.k),
        str(layer.n),
        f"{layer.blocks_kept}/{layer.blocks_total}",
        f"{layer.cycles_dense:,}",
        f"{layer.cycles:,}",
        _ratio(layer.speedup),
        _percent(layer.utilization),
        *_kernel_cells(layer.kernel),
    ]


def _kernel_cells(kernel: KernelTiming | None) -> list[str]:
    if kernel is None:
        return [_NOTHING] * 4
    if kernel.isa == "torch":
        return [f"{kernel.dense_us:.1f}", _NOTHING, _NOTHING, "dense"]
    return [f"{kernel.dense_us:.1f}", f"{kernel.sparse_us:.1f}", _ratio(kernel.speedup), kernel.isa]


def _summary(result: RunResult) -> str:
    header = [
        "block",
        "accuracy dense",
        "pruned, not tuned",
        "pruned",
        "sparsity prunable",
        "model",
        "simulated speedup",
        "measured speedup",
    ]
    rows = [
        [
            block_name(run.block),
            f"{run.accuracy.dense:.2f} %",
            f"{run.accuracy.before_finetune:.2f} %",
            f"{run.accuracy.pruned:.2f} %",
            _percent(run.sparsity_prunable, 2),
            _percent(run.sparsity_model, 2),
            _ratio(run.speedup),
            _ratio(run.kernel_speedup),
        ]
        for run in result.runs
    ]
    return format_table(header, rows)


def _skip_modes(result: RunResult) -> str:
    """The same masks on every skip hardware: what the choice of ``--skip`` alone is worth."""
    modes = list(result.runs[0].cycles_by_skip)
    rows = [
        [
            block_name(run.block),
            *(_ratio(run.cycles_dense / c if c else None) for c in run.cycles_by_skip.values()),
        ]
        for run in result.runs
    ]
    return "simulated speedup by skip hardware\n" + format_table(["block", *modes], rows)


def _network(result: RunResult) -> str:
    """The whole network's time where there is a vector unit for what the array does not do."""
    unit = result.accelerator.vector
    times = [(run.block, result.network_time(run)) for run in result.runs]
    rows = [
        [
            block_name(block),
            f"{time.cycles_dense:,}",
            f"{time.cycles:,}",
            _ratio(time.speedup),
            _percent(time.vector_share),
            _NOTHING if time.seconds is None else f"{1e6 * time.seconds:.1f}",
            _NOTHING if time.frames_per_second is None else f"{time.frames_per_second:,.0f}",
        ]
        for block, time in times
        if time is not None
    ]
    if unit is None or result.vector is None or not rows:
        return ""
    header = ["block", "cycles dense", "cycles", "speedup", "vector unit", "us", "images/s"]
    per_element = f"{_count(unit.cycles_per_element, 'cycle')} an element"
    return (
        f"whole network, the array and then a vector unit of {_count(unit.lanes, 'lane')} at {per_element} "
        f"({', '.join(sorted(result.vector.cycles_by_op)) or 'nothing to do'})\n" + format_table(header, rows)
    )


def _memory(result: RunResult) -> str:
    """Where cycles go and what travels off chip, pruned against unpruned."""
    rows = []
    for run in result.runs:
        memories = [(layer.dense.memory, layer.counts.memory) for layer in run.layers]
        dense = [before for before, _ in memories if before is not None]
        pruned = [after for _, after in memories if after is not None]
        if len(pruned) < len(memories):
            return ""
        stalls = (
            sum(m.stall_input_cycles for m in pruned),
            sum(m.stall_weight_cycles for m in pruned),
            sum(m.stall_output_cycles for m in pruned),
        )
        rows.append(
            [
                block_name(run.block),
                f"{sum(m.compute_cycles for m in pruned):,}",
                *(f"{stall:,}" for stall in stalls),
                _percent(sum(stalls) / run.cycles) if run.cycles else _NOTHING,
                f"{sum(m.total_bytes for m in dense) / 1024:,.0f}",
                f"{sum(m.total_bytes for m in pruned) / 1024:,.0f}",
                f"{sum(m.weight_bytes + m.index_bytes for m in pruned) / 1024:,.0f}",
            ]
        )
    header = ["block", "array cycles", "stalled for inputs", "weights", "outputs", "stalled"]
    header += ["KiB off chip dense", "KiB", "of it weights and indices"]
    return "memory\n" + format_table(header, rows)


def _energy(result: RunResult) -> str:
    energies = [(run, run.energy) for run in result.runs if run.energy is not None]
    if not energies:
        return f"no energy: {'; '.join(result.energy_missing)}" if result.energy_missing else ""
    first = energies[0][1]
    clock = result.accelerator.clock_hz
    kinds = {"MACs": "MAC ", "registers": "register ", "buffers": " buffer ", "off chip": "DRAM "}
    rows = [
        [
            block_name(run.block),
            _amount(energy.total_dense),
            _amount(energy.total),
            _ratio(energy.total_dense / energy.total) if energy.total else _NOTHING,
            *(_percent(_share(energy.components, part)) for part in kinds.values()),
            *_power_cells(run.energy_delay(clock)),
            f"{energy.gated_slots:,}",
        ]
        for run, energy in energies
    ]
    unit = "uJ" if first.unit == "pJ" else f"million {first.unit}"
    header = ["block", f"dense {unit}", unit, "less", *kinds, "mW", "energy-delay less", "gated PE cycles"]
    return (
        f"energy of the layers, table {first.table}; without leakage, control and the vector unit\n"
        + "\n".join([format_table(header, rows), *first.notes, *_area(result)])
    )


def _power_cells(both: EnergyDelay | None) -> list[str]:
    if both is None:
        return [_NOTHING] * 2
    return [
        _NOTHING if both.watts is None else _figure(1e3 * both.watts),
        _ratio(both.product_dense / both.product) if both.product else _NOTHING,
    ]


def _area(result: RunResult) -> list[str]:
    if result.area_mm2 is None:
        return []
    parts = ", ".join(f"{name} {area:.3g}" for name, area in result.area_mm2.items())
    total = math.fsum(result.area_mm2.values())
    return [f"area at 45 nm, without wires, control and the vector unit: {total:.3g} mm2 ({parts})"]


def _amount(value: float) -> str:
    """pJ are shown as uJ, MAC equivalents by the million: the same factor."""
    return _figure(value / 1e6)


def _figure(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _share(components: Mapping[str, float], part: str) -> float:
    total = math.fsum(components.values())
    return math.fsum(value for name, value in components.items() if part in name) / total if total else 0.0


def _one_call(result: RunResult) -> str:
    """The whole network on this machine, and what of its gain is pruning's."""
    measured = [(run.block, run.one_call) for run in result.runs if run.one_call is not None]
    refusals = sorted({run.one_call_refusal for run in result.runs if run.one_call_refusal})
    lines = [f"the whole network is not timed as one call: {refusal}" for refusal in refusals]
    if measured:
        header = ["block", "PyTorch us", "dense us", "pruned us", "over PyTorch", "quartiles", "over dense"]
        rows = [
            [
                block_name(block),
                f"{timing.eager_us:.0f}",
                f"{timing.dense_us:.0f}",
                f"{timing.sparse_us:.0f}",
                _ratio(timing.speedup),
                f"{timing.speedup_quartiles[0]:.2f} .. {timing.speedup_quartiles[1]:.2f}",
                _ratio(timing.speedup_by_pruning),
            ]
            for block, timing in measured
        ]
        title = "measured: the whole network in PyTorch, and in one call of pysim.compile, dense and pruned"
        lines = [title, format_table(header, rows), *lines]
    return "\n".join(lines)


def _place(result: RunResult) -> str:
    return "the GPU" if result.device == "cuda" else _count(result.threads, "thread")


def _remarks(result: RunResult) -> str:
    lines = [_unmapped(result)]
    if any(_sparse_timings(run) for run in result.runs):
        lines.append(
            f"measured: first quartiles on {_place(result)}, layer by layer, against "
            "torch's faster dense form; a layer that stays dense counts with its dense time"
        )
    lines += [_kernel_remark(run) for run in result.runs if _sparse_timings(run)]
    lines += [_load_warning(run) for run in result.runs]
    return "\n".join(line for line in lines if line)


def _unmapped(result: RunResult) -> str:
    ops = sorted({op.op for op in result.unmapped if not op.foldable})
    folded = sorted({op.op for op in result.unmapped if op.foldable})
    parts = [f"not matrix products: {', '.join(ops)}"] if ops else []
    parts += [f"folded into weights: {', '.join(folded)}"] if folded else []
    if not parts:
        return ""
    return f"{'; '.join(parts)}; {_percent(result.unmapped_share, 2)} of all operations"


def _sparse_timings(run: BlockRun) -> list[KernelTiming]:
    return [x.kernel for x in run.layers if x.kernel is not None and x.kernel.isa != "torch"]


def _kernel_remark(run: BlockRun) -> str:
    sparse = _sparse_timings(run)
    slower = sum(timing.speedup < 1 for timing in sparse)
    low = min(timing.speedup_quartiles[0] for timing in sparse)
    high = max(timing.speedup_quartiles[1] for timing in sparse)
    return (
        f"measured, block {block_name(run.block)}: dense is faster in {slower} of "
        f"{_count(len(sparse), 'pruned layer')}; quartiles of the layers' speedups from {low:.2f}x "
        f"to {high:.2f}x"
    )


def _load_warning(run: BlockRun) -> str:
    if run.other_load_cores is None or run.other_load_cores < _LOAD_THAT_DISTURBS:
        return ""
    return (
        f"WARNING: while the kernels of block {block_name(run.block)} were timed, other programs kept "
        f"{run.other_load_cores:.1f} cores busy; the measured times and speedups are not those of an idle "
        "machine"
    )


def _checks(result: RunResult) -> str:
    several = len(result.runs) > 1
    lines = []
    for run in result.runs:
        prefix = f"block {block_name(run.block)}, " if several else ""
        for check in run.checks:
            mark = "ok" if check.passed else "FAILED"
            lines.append(f"check {mark}: {prefix}{check.name}: {check.detail}")
    return "\n".join(lines)
