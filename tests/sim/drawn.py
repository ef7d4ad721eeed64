"""Layers and machines with memory as the tests of this folder draw them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from pysim import Accelerator, simulate_gemm
from pysim.config import Memory
from pysim.errors import ConfigError
from pysim.sim import simulate_layer
from pysim.workload import BlockGrid, ConvGeometry

MODES = [
    (dataflow, skip)
    for dataflow in ("ws", "os", "is")
    for skip in Accelerator(rows=1, cols=1, dataflow=dataflow).allowed_skips()
]
each_mode = pytest.mark.parametrize(("dataflow", "skip"), MODES)
examples = settings(max_examples=40, deadline=None)
AMPLE = 2**30
BANDWIDTHS = (0.05, 0.3, 1.0, 1.5, 4.0, 16.0, None)


@st.composite
def convolutions(draw):
    """A geometry of one or two small images; stride, padding and dilation drawn."""
    kernel = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 1)]))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, 1), st.integers(0, 2)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    sides = []
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        sides.append(draw(st.integers(max(1, reach - 2 * padding[axis]), 7)))
    out = [(sides[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    return ConvGeometry(
        batch=draw(st.integers(1, 2)),
        in_channels=draw(st.integers(1, 9)),
        height=sides[0],
        width=sides[1],
        out_height=out[0],
        out_width=out[1],
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


@st.composite
def layers(draw):
    """(grid, mask, n, conv, seed): products, long ones among them, and convolutions."""
    conv = draw(st.none() | convolutions())
    if conv is None:
        positions = draw(st.sampled_from([1, 1, 4]))
        k = positions * draw(st.integers(1, 24 if positions == 1 else 7))
        n = draw(st.integers(1, 20) | st.sampled_from([257, 520]))
        m = draw(st.integers(1, 20) if n > 20 else st.integers(1, 20) | st.sampled_from([260, 515]))
    else:
        positions = conv.kernel[0] * conv.kernel[1]
        k, n = positions * conv.in_channels, conv.batch * conv.out_height * conv.out_width
        m = draw(st.integers(1, 12))
    grid = BlockGrid(m=m, k=k, positions=positions, bh=draw(st.integers(1, 6)), bw=draw(st.integers(1, 6)))
    seed = draw(st.integers(0, 2**32 - 1))
    kept = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    return grid, np.random.default_rng(seed).random(grid.shape) < kept, n, conv, seed


@st.composite
def memories(draw):
    """Buffers from too small to ample; any of the channel's speeds."""
    size = st.sampled_from([1, 7, 30, 100, 400, 1500, 6000, AMPLE]) | st.integers(20, 3000)
    width = st.sampled_from([1, 4, 8, 16])
    return Memory(
        input_bytes=draw(size),
        weight_bytes=draw(size),
        output_bytes=draw(size),
        bandwidth=draw(st.sampled_from(BANDWIDTHS)),
        latency=draw(st.sampled_from([0, 0, 1, 7, 40])),
        input_bits=draw(width),
        weight_bits=draw(width),
        output_bits=draw(width),
        accumulator_bits=draw(st.sampled_from([16, 32])),
        index_bits=draw(st.sampled_from([0, 16, 32])),
    )


@st.composite
def machines(draw, dataflow, skip):
    return Accelerator(
        rows=draw(st.integers(1, 6)),
        cols=draw(st.integers(1, 6)),
        dataflow=dataflow,
        skip=skip,
        pipelining=draw(st.sampled_from(["serial", "overlap", "overlap"])),
        mux=draw(st.integers(1, 3)),
        group_cols=draw(st.none() | st.integers(1, 7)),
        cores=draw(st.sampled_from([1, 1, 2, 3, 5])),
        memory=draw(memories()),
    )


def run(layer, hw, **changes):
    """The event engine's result with fields of the memory changed; None where a buffer is too small."""
    grid, mask, n, conv, _ = layer
    machine = dataclasses.replace(hw, memory=dataclasses.replace(hw.memory, **changes))
    try:
        return simulate_layer(grid, mask, n, machine, conv=conv)
    except ConfigError as error:
        assert "_bytes: expected at least" in str(error)  # noqa: PT017 (the other outcome is a result)
        return None


def assert_stepped_is(layer, hw, expected):
    """The cycle engine reports what the event engine does, and computes the product."""
    grid, mask, n, conv, seed = layer
    rng = np.random.default_rng(seed)
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    x = rng.integers(-8, 9, (grid.k, n)).astype(np.float32)
    block, positions = (grid.bh, grid.bw), grid.positions
    stepped = simulate_gemm(
        w, x, block=block, accelerator=hw, engine="cycle", mask=mask, positions=positions, conv=conv
    )
    assert stepped == expected
    np.testing.assert_array_equal(stepped.output, (w * grid.expand(mask)) @ x)
