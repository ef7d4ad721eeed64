"""yosys makes gates of the hardware: no latches, no loops, no doubly driven nets; skipping is not free."""

import subprocess
from dataclasses import replace

import pytest

from pysim.config import PRESETS
from pysim.energy import register_bits_per_pe
from tests.rtl.area import Design, pe, synthesize
from tests.rtl.build import missing_tools

pytestmark = pytest.mark.skipif(
    bool(missing_tools("yosys")), reason="RTL NOT SYNTHESIZED: no yosys here (Debian: apt-get install yosys)"
)
SMALL = {"ROWS": 2, "COLS": 3, "WIDTH": 4, "ACC": 10, "ADDRESS": 6, "CHECK": "1'b0"}


@pytest.mark.parametrize("by_row", [0, 1])
@pytest.mark.parametrize("more", [{}, {"GROUP": 2}, {"MEMBERS": 2}, {"LISTED": "1'b0"}], ids=str)
def test_a_stationary_core_can_be_synthesized(by_row, more):
    cells = synthesize("core_stationary", BY_ROW=f"1'b{by_row}", **SMALL, **more)
    assert cells.flip_flops > 2 * 3 * (4 * 4 + 10)  # transit, shadow, active, x and psum of every PE


@pytest.mark.parametrize("more", [{}, {"GROUP": 2}, {"MEMBERS": 2}, {"LISTED": "1'b0"}], ids=str)
def test_an_output_stationary_core_can_be_synthesized(more):
    cells = synthesize("core_output", **SMALL, **more)
    assert cells.flip_flops > 3 * 10 * 2 * 2  # acc, hold of every PE and most of chain, x and w


def test_a_pe_without_checks_has_the_registers_of_the_page():
    stationary, output = (pe(Design(dataflow=dataflow, skip="gather")) for dataflow in ("ws", "os"))
    # transit, shadow, active, x; psum; the token's three bits; the select that is passed on, even if unused
    assert stationary.flip_flops == 4 * 8 + 32 + 3 + 1
    # x, w; acc, hold, chain; a token with each operand; the select
    assert output.flip_flops == 2 * 8 + 3 * 32 + 2 * 3 + 1


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_pe_has_the_register_bits_of_the_area_figures_and_its_control_bits(dataflow):
    control = 2 * 3 + 1 if dataflow == "os" else 3 + 1  # tokens and select
    counted = register_bits_per_pe(replace(PRESETS["gemmini-16"], dataflow=dataflow))
    assert pe(Design(dataflow=dataflow, skip="gather")).flip_flops == counted + control


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_wider_multiplexer_costs_more_gates(dataflow):
    sizes = [pe(Design(dataflow=dataflow, skip="mux", members=members)).gates for members in (1, 2, 4)]
    assert sizes == sorted(set(sizes))


def test_a_module_that_does_not_exist_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        synthesize("no_such_module")
