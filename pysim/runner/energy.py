"""From counts to energy: what each counted step of the simulated machine does to registers and buffers."""

from __future__ import annotations

from collections.abc import Sequence

from pysim.config import Accelerator
from pysim.energy import ActionCounts, BufferTraffic, area, energy, missing_figures
from pysim.errors import ConfigError
from pysim.result import Energy, GemmResult, MemoryResult, add_results


def energy_of(
    dense: Sequence[GemmResult], pruned: Sequence[GemmResult], accelerator: Accelerator
) -> Energy | None:
    """Energy of the unpruned and of the pruned layers; None if a figure that it takes is not known."""
    if accelerator.technology is None or missing_figures(accelerator):
        return None
    before, after = (
        energy(actions(add_results(counts, 1), accelerator), accelerator.technology, accelerator.dram_type)
        for counts in (dense, pruned)
    )
    return Energy(
        table=after.table,
        unit=after.unit,
        components=dict(after.components),
        components_dense=dict(before.components),
        gated_slots=after.gated_slots,
        gated_slots_dense=before.gated_slots,
        notes=after.notes,
    )


def area_of(accelerator: Accelerator) -> dict[str, float] | None:
    """Area in mm2 by component; None if the energy is not of the same 45 nm, or an area is not published."""
    if accelerator.technology != "45nm":
        return None
    try:
        return dict(area(accelerator).components)
    except ConfigError:
        return None


def actions(counts: GemmResult, accelerator: Accelerator) -> ActionCounts:
    """What costs energy in ``counts``; docs/hardware.md says why each.

    Args:
        counts: Of one product, or of several one after the other, with memory figures.
        accelerator: That they come from; it has a memory and a MAC type.
    """
    assert accelerator.memory is not None
    assert accelerator.mac_type is not None
    assert counts.memory is not None
    read, written = _register_bits(counts, accelerator)
    return ActionCounts(
        macs={accelerator.mac_type: counts.kept_macs},
        gated_slots=counts.padded_macs + counts.macs - counts.kept_macs,
        register_bits_read=read,
        register_bits_written=written,
        buffers=_buffers(counts.memory, accelerator),
        dram_read_bytes=counts.memory.read_bytes,
        dram_written_bytes=counts.memory.written_bytes,
    )


def _register_bits(counts: GemmResult, accelerator: Accelerator) -> tuple[int, int]:
    """Bits read and written in the PEs: the registers of docs/machine.md, one by one.

    In every slot of a fold the operand and the sum pass through, whether or not the PE multiplies. What a
    fold shifts in or out moves through R (R + 1) / 2 registers of each column; every write follows one read.
    """
    memory = accelerator.memory
    assert memory is not None
    slots = counts.macs + counts.padded_macs
    pes = accelerator.rows * accelerator.cols
    shifts = pes * (accelerator.rows + 1) // 2
    if accelerator.dataflow == "os":
        moved = slots * (memory.input_bits + memory.weight_bits + memory.accumulator_bits)  # x, w, acc
        moved += counts.folds * memory.accumulator_bits * (pes + shifts)  # hold, chain
        return moved, moved
    held, streamed = memory.weight_bits, memory.input_bits
    if accelerator.dataflow == "is":
        held, streamed = streamed, held
    moved = slots * (streamed + memory.accumulator_bits)  # x, psum
    moved += counts.folds * held * (shifts + 2 * pes)  # transit, shadow, active
    return moved + slots * held, moved  # active is read by every multiplication


def _buffers(memory: MemoryResult, accelerator: Accelerator) -> tuple[BufferTraffic, ...]:
    sizes = accelerator.memory
    assert sizes is not None

    def traffic(name: str, capacity: int, bits: int, reads: int, writes: int) -> BufferTraffic:
        return BufferTraffic(
            name=name,
            capacity_bytes=capacity,
            read_bytes=-(-reads * bits // 8),
            written_bytes=-(-writes * bits // 8),
        )

    return (
        traffic("input", sizes.input_bytes, sizes.input_bits, memory.input_reads, memory.input_writes),
        traffic("weight", sizes.weight_bytes, sizes.weight_bits, memory.weight_reads, memory.weight_writes),
        traffic(
            "output", sizes.output_bytes, sizes.accumulator_bits, memory.output_reads, memory.output_writes
        ),
    )
