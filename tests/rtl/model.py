"""The parameter sets in which the hardware is built and tested."""

from __future__ import annotations

from dataclasses import dataclass

from pysim.config import SKIPS, Accelerator, Dataflow, Pipelining, Skip

_DATAFLOW_NUMBER: dict[Dataflow, int] = {"ws": 0, "os": 1, "is": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One parameter set of hdl/bench.sv.

    Args:
        dataflow: The operand held still.
        rows: PE rows.
        cols: PE columns, at most 8.
        width: Bits of an operand.
        acc: Bits of a sum, at most 32.
        members: Inputs of each PE's multiplexer.
        group: Columns that share a feeder; None: all of them.
        listed: Whether the feeder has an index list.
    """

    dataflow: Dataflow
    rows: int
    cols: int
    width: int = 8
    acc: int = 32
    members: int = 1
    group: int | None = None
    listed: bool = True

    @property
    def name(self) -> str:
        """Of the Verilated class."""
        parts = [
            self.dataflow,
            f"{self.rows}x{self.cols}",
            f"w{self.width}",
            f"a{self.acc}",
            f"m{self.members}",
        ]
        return "V" + "_".join([*parts, f"g{self.feeder_cols}", "listed" if self.listed else "plain"])

    @property
    def feeder_cols(self) -> int:
        return self.cols if self.group is None else self.group

    @property
    def feeders(self) -> int:
        return -(-self.cols // self.feeder_cols)

    @property
    def parameters(self) -> dict[str, str]:
        """Of hdl/bench.sv, as SystemVerilog literals."""
        return {
            "DATAFLOW": str(_DATAFLOW_NUMBER[self.dataflow]),
            "ROWS": str(self.rows),
            "COLS": str(self.cols),
            "WIDTH": str(self.width),
            "ACC": str(self.acc),
            "MEMBERS": str(self.members),
            "GROUP": str(self.feeder_cols),
            "LISTED": f"1'b{int(self.listed)}",
        }

    @property
    def lead_cycles(self) -> int:
        """From ``start`` to cycle 0: filling the pipeline that fetches lists and operands."""
        return 4 if self.dataflow == "os" else 3

    def runs(self, skip: Skip) -> bool:
        """Whether this hardware can do it; an index list can also name everything."""
        if skip == "group":
            return self.group is not None
        if skip == "mux":
            return self.members > 1
        return self.listed or skip in ("none", "tile")

    def accelerator(self, skip: Skip, pipelining: Pipelining, mux: int = 2) -> Accelerator:
        """The same machine for the engines."""
        return Accelerator(
            rows=self.rows,
            cols=self.cols,
            dataflow=self.dataflow,
            skip=skip,
            pipelining=pipelining,
            mux=mux,
            group_cols=self.feeder_cols,
        )


def _models() -> tuple[Model, ...]:
    models = [
        Model(dataflow="is", rows=3, cols=4, listed=False),
        Model(dataflow="is", rows=1, cols=1),
        Model(dataflow="is", rows=5, cols=2, width=5, acc=11),
        Model(dataflow="is", rows=2, cols=7),
    ]
    for dataflow in ("ws", "os"):
        models += [
            Model(dataflow=dataflow, rows=3, cols=4, listed=False),
            Model(dataflow=dataflow, rows=1, cols=1),
            Model(dataflow=dataflow, rows=5, cols=2, width=5, acc=11),
            Model(dataflow=dataflow, rows=3, cols=7, group=3),
            Model(dataflow=dataflow, rows=1, cols=5, group=2),
            Model(dataflow=dataflow, rows=4, cols=3, members=2),
            Model(dataflow=dataflow, rows=2, cols=6, members=4),
        ]
    return tuple(models)


MODELS = _models()
MODES: tuple[tuple[Dataflow, Skip], ...] = tuple(
    (dataflow, skip)
    for dataflow in _DATAFLOW_NUMBER
    for skip in SKIPS
    if any(model.dataflow == dataflow and model.runs(skip) for model in MODELS)
)
