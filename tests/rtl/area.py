"""Cells that yosys makes of a PE and of the logic around the array, for each way to skip.

    python -m tests.rtl.area       # or: make rtl-area

A 16 x 16 array of int8 operands and int32 sums, mapped to simple gates without a technology library, so that
equal logic always counts the same; transistors are yosys's own estimate for those gates and for flip-flops
without enable or reset. Index lists and operand buffers are memories and not counted: the width of a list's
word is shown. No wires, no clock tree, no timing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pysim.report.table import format_table
from tests.rtl.build import SOURCES, missing_tools

SIDE = 16
INDEX_BITS = 12  # reductions and streams of up to 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What a module, or several, are made of.

    Args:
        gates: Of at most two inputs, and two-way multiplexers.
        flip_flops: Single bits.
        transistors: Of both.
    """

    gates: int = 0
    flip_flops: int = 0
    transistors: int = 0

    def __add__(self, other: Self) -> Cells:
        return Cells(
            gates=self.gates + other.gates,
            flip_flops=self.flip_flops + other.flip_flops,
            transistors=self.transistors + other.transistors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One way to skip, as hardware parameters."""

    dataflow: str
    skip: str
    listed: bool = True
    feeders: int = 1
    members: int = 1

    @property
    def list_word_bits(self) -> int:
        """Of the index list: one word a fold with ``ws``, one a step otherwise."""
        entries = self.feeders * self.members * (SIDE if self.dataflow == "ws" else 1)
        return entries * INDEX_BITS if self.listed else 0


DESIGNS = tuple(
    Design(dataflow=dataflow, **parameters)
    for dataflow in ("ws", "os", "is")
    for parameters in (
        {"skip": "none, tile", "listed": False},
        {"skip": "gather"},
        {"skip": "group of 4", "feeders": 4},
        {"skip": "mux of 2", "members": 2},
        {"skip": "mux of 4", "members": 4},
    )
    if dataflow != "is" or parameters["skip"] in ("none, tile", "gather")
)


def synthesize(top: str, **parameters: int | str) -> Cells:
    """Cells of a module of hdl/ before any technology's own optimization; memories are left out.

    Raises:
        subprocess.CalledProcessError: yosys refused it, or found a loop, a latch or several drivers.
    """
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            text = source.read_text()
            if source.stem == top:
                text = _with_defaults(text, parameters)
            (Path(folder) / source.name).write_text(text)
        files = " ".join(path.name for path in SOURCES if path.stem not in ("ram", "bench"))
        # One pass over the hierarchy: yosys 0.23 fails on a second one, and on its own way to set parameters.
        script = (
            f"read_verilog -sv -lib ram.sv; read_verilog -sv {files}; hierarchy -check -top {top}; "
            "synth -flatten -noabc -run coarse:check; select -assert-none t:$_DLATCH*_; "
            "dfflegalize -cell $_DFF_P_ 01; opt_clean; check -assert; delete t:ram; stat -tech cmos"
        )
        done = subprocess.run(["yosys", "-p", script], capture_output=True, text=True, cwd=folder)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr)
    done.check_returncode()
    report = done.stdout[done.stdout.rindex("Printing statistics") :]
    count = {name: int(number) for name, number in re.findall(r"\$_(\w+)_ +(\d+)", report)}
    flip_flops = count.pop("DFF_P", 0)
    transistors = re.search(r"transistors: +(\d+)\n", report)  # a + behind it would tell of cells left out
    assert transistors, report
    return Cells(gates=sum(count.values()), flip_flops=flip_flops, transistors=int(transistors[1]))


def _with_defaults(text: str, parameters: dict[str, int | str]) -> str:
    for name, value in parameters.items():
        text, found = re.subn(
            rf"(parameter (?:bit|int unsigned) {name} = )[^,\s]+", rf"\g<1>{value}", text, count=1
        )
        assert found, f"no parameter {name}"
    return text


def pe(design: Design) -> Cells:
    """One PE, without the checks that only simulation needs."""
    module = "pe_output" if design.dataflow == "os" else "pe_stationary"
    return synthesize(module, CHECK="1'b0", MEMBERS=design.members)


def edge(design: Design) -> Cells:
    """What brings the streamed operands to the array: feeder, address generation and skew."""
    names = {"ADDRESS": INDEX_BITS, "STEP": INDEX_BITS, "INDEX": INDEX_BITS}
    feeder = synthesize(
        "feed_rows" if design.dataflow == "ws" else "feed_steps",
        ROWS=SIDE,
        FEEDERS=design.feeders,
        MEMBERS=design.members,
        LISTED=f"1'b{int(design.listed)}",
        **names,
    )
    for g in range(design.feeders):
        extra = g * SIDE // design.feeders
        feeder += synthesize("edge_skew", LANES=SIDE, WIDTH=8 * design.members, EXTRA=extra)
    return feeder


def main() -> None:
    if missing_tools("yosys"):
        print("AREA NOT MEASURED: no yosys here (Debian: apt-get install yosys)", file=sys.stderr)
        return
    rows = []
    plain = 1
    for design in DESIGNS:
        element, around = pe(design), edge(design)
        total = SIDE * SIDE * element.transistors + around.transistors
        if not design.listed:
            plain = total
        rows.append(
            [
                design.dataflow,
                design.skip,
                f"{element.gates:,}",
                f"{element.flip_flops:,}",
                f"{around.gates:,}",
                f"{around.flip_flops:,}",
                f"{design.list_word_bits:,}",
                f"{total / 1e6:.2f} M",
                f"{100 * (total / plain - 1):+.1f} %",
            ]
        )
    header = ["dataflow", "skip", "PE gates", "PE bits", "edge gates", "edge bits", "list word bits"]
    print(format_table([*header, "transistors", "against none"], rows))


if __name__ == "__main__":
    main()
