"""What ``pysim run`` finds out, and its JSON form. Frozen; no torch.

docs/json.md describes the JSON for those who read it; ``SCHEMA`` rises when a field changes its meaning or
goes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from pysim.config import Accelerator
from pysim.result.gemm import GemmResult
from pysim.workload import UnmappedOp

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTiming:
    """One layer timed on this machine, dense through torch and sparse through pysim, call by call in turn.

    Args:
        isa: The kernel's instruction set; ``torch`` for a layer that stays dense.
        dense_us: Microseconds of the faster dense form, the first quartile of the rounds.
        dense_form: Which form that was.
        sparse_us: The same of the block-sparse kernel; equal to ``dense_us`` if the layer stays dense.
        speedup_quartiles: First and third quartile of dense over sparse, round by round.
        max_error: Largest abs(kernel - torch), as a share of the bound that rounding allows; 0 if dense.
    """

    isa: str
    dense_us: float
    dense_form: str
    sparse_us: float
    speedup_quartiles: tuple[float, float]
    max_error: float

    @property
    def speedup(self) -> float:
        return self.dense_us / self.sparse_us


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCallTiming:
    """The whole network timed here: PyTorch operator by operator, and one call of ``pysim.compile``.

    Args:
        eager_us: Microseconds of the pruned model in PyTorch, in the faster memory format; first quartile.
        eager_form: Which format that was.
        dense_us: One native call of the same network with nothing pruned.
        sparse_us: One native call of the pruned network.
        speedup_quartiles: First and third quartile of eager over sparse, round by round.
    """

    eager_us: float
    eager_form: str
    dense_us: float
    sparse_us: float
    speedup_quartiles: tuple[float, float]

    @property
    def speedup(self) -> float:
        """Over PyTorch: by pruning, by fused operators and by the single call together."""
        return self.eager_us / self.sparse_us

    @property
    def speedup_by_pruning(self) -> float:
        """Over the same call of the dense network: by pruning alone."""
        return self.dense_us / self.sparse_us


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """One layer: its shape, its mask, its cycles and its measured time.

    Args:
        name: As in ``Workload``.
        m: Output features of one group.
        k: Reduction length of one group.
        n: Output positions.
        groups: Products of that shape.
        pruned: Whether pruning was allowed to touch it.
        blocks_total: Blocks of all groups.
        blocks_kept: Of those, kept.
        dense: Counts of the unpruned layer on the same machine with ``skip="none"``.
        counts: Counts of the pruned layer with the chosen skip mode.
        cycles_by_skip: Cycles of the pruned layer with every skip mode that the dataflow allows.
        kernel: Measured times; None if not measured.
    """

    name: str
    m: int
    k: int
    n: int
    groups: int
    pruned: bool
    blocks_total: int
    blocks_kept: int
    dense: GemmResult
    counts: GemmResult
    cycles_by_skip: dict[str, int]
    kernel: KernelTiming | None

    @property
    def cycles_dense(self) -> int:
        return self.dense.cycles

    @property
    def cycles(self) -> int:
        return self.counts.cycles

    @property
    def utilization(self) -> float:
        return self.counts.utilization

    @property
    def speedup(self) -> float | None:
        """None where the layer needs no cycle at all."""
        return self.cycles_dense / self.cycles if self.cycles else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Percent of the test images classified rightly.

    Args:
        dense: Before pruning.
        before_finetune: Pruned, batch norm re-estimated, not yet fine-tuned.
        pruned: After fine-tuning.
    """

    dense: float
    before_finetune: float
    pruned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that the run verified about itself."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of the layers of one run; the vector unit is not in it.

    Args:
        table: Name of the energy table.
        unit: Of every figure here: ``pJ``, or ``MAC equivalents``.
        components: Energy of the pruned layers by component.
        components_dense: Of the unpruned layers, the same components.
        gated_slots: PE cycles of the pruned layers without a MAC, clock gated: pruned or padded operands.
        gated_slots_dense: Of the unpruned layers.
        notes: What the table assumes and leaves out.
    """

    table: str
    unit: str
    components: dict[str, float]
    components_dense: dict[str, float]
    gated_slots: int
    gated_slots_dense: int
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        return math.fsum(self.components.values())

    @property
    def total_dense(self) -> float:
        return math.fsum(self.components_dense.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDelay:
    """What energy and time of the layers make together; the vector unit is in neither.

    Args:
        seconds_dense: Of the unpruned layers.
        seconds: Of the pruned layers.
        product_dense: Energy-delay product of the unpruned layers, in the energy's unit times seconds.
        product: Of the pruned layers.
        watts_dense: Average power of the unpruned layers; None where the unit is not joules.
        watts: Of the pruned layers.
    """

    seconds_dense: float
    seconds: float
    product_dense: float
    product: float
    watts_dense: float | None
    watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRun:
    """Everything about one block size.

    Args:
        block: Height and width.
        sparsity_prunable: Share of the prunable weights that is zero by mask, 0 to 1.
        sparsity_model: The same zeros as a share of the weights of all layers.
        accuracy: See there.
        layers: In order of execution.
        energy: Of the layers; None where the accelerator or its energy table lacks a figure.
        one_call: The whole network's measured time; None if not measured, or if ``pysim.compile`` cannot take
            the network.
        one_call_refusal: Why it cannot; empty if it can or nothing was measured.
        other_load_cores: Cores that other programs kept busy while the kernels were timed; None if they were
            not timed, or the system does not say.
        checks: See there.
        train_threads: CPU threads that fine-tuned the network; None if it comes from a file.
    """

    block: tuple[int, int]
    sparsity_prunable: float
    sparsity_model: float
    accuracy: Accuracy
    layers: tuple[LayerResult, ...]
    energy: Energy | None
    one_call: OneCallTiming | None
    one_call_refusal: str
    other_load_cores: float | None
    checks: tuple[Check, ...]
    train_threads: int | None = None

    @property
    def cycles_dense(self) -> int:
        return sum(layer.cycles_dense for layer in self.layers)

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers)

    @property
    def speedup(self) -> float | None:
        return self.cycles_dense / self.cycles if self.cycles else None

    def energy_delay(self, clock_hz: float | None) -> EnergyDelay | None:
        """None without energy or clock, or where nothing takes time."""
        if self.energy is None or clock_hz is None or not self.cycles or not self.cycles_dense:
            return None
        before, after = self.cycles_dense / clock_hz, self.cycles / clock_hz
        joules = 1e-12 if self.energy.unit == "pJ" else None
        return EnergyDelay(
            seconds_dense=before,
            seconds=after,
            product_dense=self.energy.total_dense * before,
            product=self.energy.total * after,
            watts_dense=None if joules is None else joules * self.energy.total_dense / before,
            watts=None if joules is None else joules * self.energy.total / after,
        )

    @property
    def cycles_by_skip(self) -> dict[str, int]:
        """Total cycles of the pruned network for every skip mode, ``none`` first."""
        modes = self.layers[0].cycles_by_skip
        return {mode: sum(layer.cycles_by_skip[mode] for layer in self.layers) for mode in modes}

    @property
    def kernel_speedup(self) -> float | None:
        """Sum of dense over sum of sparse times, dense layers included in both; None if not measured."""
        timings = [layer.kernel for layer in self.layers if layer.kernel is not None]
        if len(timings) < len(self.layers):
            return None
        return sum(t.dense_us for t in timings) / sum(t.sparse_us for t in timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorWork:
    """What the vector unit does for one pass of the network, whatever the block size.

    Args:
        cycles_by_op: Cycles of each operator, such as ``relu``; batch norm folded into weights takes none.
    """

    cycles_by_op: dict[str, int]

    @property
    def cycles(self) -> int:
        return sum(self.cycles_by_op.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTime:
    """Array and vector unit one after the other, never at the same time.

    Args:
        cycles_dense: With ``skip="none"``.
        cycles: With the chosen skip mode.
        vector_share: The vector unit's share of ``cycles``, 0 to 1.
        seconds: Of ``cycles`` at the accelerator's clock; None without a clock.
        frames_per_second: Images of the batch over ``seconds``; None without a clock.
    """

    cycles_dense: int
    cycles: int
    vector_share: float
    seconds: float | None
    frames_per_second: float | None

    @property
    def speedup(self) -> float:
        return self.cycles_dense / self.cycles


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A whole run: one ``BlockRun`` for every block size, all from the same dense network.

    Args:
        pysim_version: That made it.
        model: Name.
        dataset: Name.
        seed: Of training.
        sparsity: Asked for, of the prunable blocks.
        finetune_epochs: After pruning.
        batch: Images in the simulated and timed input.
        threads: Of the measured kernels, dense and sparse.
        device: Where they were measured: ``cpu`` or ``cuda``.
        accelerator: The simulated machine.
        unmapped: Work that the array does not do.
        unmapped_share: Its share of all operations, 0 to 1.
        vector: That work on the accelerator's vector unit; None if it has none.
        energy_missing: Why there is no energy; empty if there is.
        area_mm2: Of the accelerator at 45 nm by component; None where its energy is of another table or an
            area is not published.
        runs: In the order asked for.
    """

    pysim_version: str
    model: str
    dataset: str
    seed: int
    sparsity: float
    finetune_epochs: int
    batch: int
    threads: int
    accelerator: Accelerator
    unmapped: tuple[UnmappedOp, ...]
    unmapped_share: float
    vector: VectorWork | None
    energy_missing: tuple[str, ...]
    area_mm2: dict[str, float] | None
    runs: tuple[BlockRun, ...]
    device: str = "cpu"

    def network_time(self, run: BlockRun) -> NetworkTime | None:
        """The whole network's time in ``run``; None without a vector unit, or if nothing takes time."""
        if self.vector is None or not run.cycles + self.vector.cycles:
            return None
        cycles = run.cycles + self.vector.cycles
        clock = self.accelerator.clock_hz
        return NetworkTime(
            cycles_dense=run.cycles_dense + self.vector.cycles,
            cycles=cycles,
            vector_share=self.vector.cycles / cycles,
            seconds=None if clock is None else cycles / clock,
            frames_per_second=None if clock is None else self.batch * clock / cycles,
        )

    def to_json(self) -> dict[str, object]:
        """The object that ``--json`` prints."""
        return {
            "schema": SCHEMA,
            "pysim_version": self.pysim_version,
            "model": self.model,
            "dataset": self.dataset,
            "seed": self.seed,
            "sparsity": self.sparsity,
            "finetune_epochs": self.finetune_epochs,
            "batch": self.batch,
            "threads": self.threads,
            "device": self.device,
            "hardware": asdict(self.accelerator),
            "unmapped": {
                "share_of_operations": self.unmapped_share,
                "ops": [asdict(op) for op in self.unmapped],
            },
            "vector": None if self.vector is None else asdict(self.vector) | {"cycles": self.vector.cycles},
            "energy_missing": list(self.energy_missing),
            "area_mm2": None
            if self.area_mm2 is None
            else self.area_mm2 | {"total": math.fsum(self.area_mm2.values())},
            "runs": [
                _block_run_json(run, self.network_time(run), run.energy_delay(self.accelerator.clock_hz))
                for run in self.runs
            ],
        }


def _block_run_json(
    run: BlockRun, network: NetworkTime | None, energy_delay: EnergyDelay | None
) -> dict[str, object]:
    return {
        "block": list(run.block),
        "sparsity": {"prunable": run.sparsity_prunable, "model": run.sparsity_model},
        "accuracy": asdict(run.accuracy),
        "train_threads": run.train_threads,
        "layers": [_layer_json(layer) for layer in run.layers],
        "totals": {
            "cycles_dense": run.cycles_dense,
            "cycles": run.cycles,
            "speedup": run.speedup,
            "kernel_speedup": run.kernel_speedup,
            "by_skip": {
                mode: run.cycles_dense / cycles if cycles else None
                for mode, cycles in run.cycles_by_skip.items()
                if mode != "none"
            },
            "network": None if network is None else asdict(network) | {"speedup": network.speedup},
        },
        "energy": None if run.energy is None else _energy_json(run.energy),
        "one_call": None if run.one_call is None else _one_call_json(run.one_call),
        "one_call_refusal": run.one_call_refusal,
        "other_load_cores": run.other_load_cores,
        "energy_delay": None if energy_delay is None else asdict(energy_delay),
        "checks": [asdict(check) for check in run.checks],
    }


def _one_call_json(timing: OneCallTiming) -> dict[str, object]:
    ratios = {"speedup": timing.speedup, "speedup_by_pruning": timing.speedup_by_pruning}
    return asdict(timing) | ratios


def _energy_json(energy: Energy) -> dict[str, object]:
    return asdict(energy) | {"total": energy.total, "total_dense": energy.total_dense}


def _layer_json(layer: LayerResult) -> dict[str, object]:
    kernel = layer.kernel
    return {
        "name": layer.name,
        "m": layer.m,
        "k": layer.k,
        "n": layer.n,
        "groups": layer.groups,
        "pruned": layer.pruned,
        "blocks_total": layer.blocks_total,
        "blocks_kept": layer.blocks_kept,
        "cycles_dense": layer.cycles_dense,
        "cycles": layer.cycles,
        "speedup": layer.speedup,
        "utilization": layer.utilization,
        "counts": _counts_json(layer.counts),
        "counts_dense": _counts_json(layer.dense),
        "kernel": None if kernel is None else {**asdict(kernel), "speedup": kernel.speedup},
    }


def _counts_json(counts: GemmResult) -> dict[str, object]:
    memory = counts.memory
    return {
        "folds": counts.folds,
        "macs": counts.macs,
        "kept_macs": counts.kept_macs,
        "padded_macs": counts.padded_macs,
        "core_cycles": [core.cycles for core in counts.cores],
        "memory": None if memory is None else asdict(memory),
    }
