"""8-bit GPU products through the kernels' own source on the CPU: the bits of the CPU's plans.

The mma of bytes is emulated from the PTX manual's table; see test_gpu_emulation.py for what that cannot show.
"""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import Int8BsrMatrix, Int8ConvPlan, Int8SpmmPlan
from pysim.sparse.gpu import GpuPlan, Packed, _memory
from pysim.sparse.gpu_int8 import GpuInt8Plan
from pysim.workload import BlockGrid
from tests.kernels.test_gpu_emulation import CPU, device, drawn_mask
from tests.kernels.test_int8 import LIMITS, random_input

FEW = settings(max_examples=150, deadline=None)
INPUTS = st.sampled_from(["uint8", "int8"])
OUTPUTS = st.sampled_from(["int32", "float32", "uint8", "int8"])
MASKS = st.sampled_from(["none", "all", "even", "even", "skewed", "one row"])
SEEDS = st.integers(0, 2**32 - 1)


def weights(rng, grid, mask):
    """Of all magnitudes, extremes often."""
    w = rng.integers(-128, 128, (grid.m, grid.k))
    w[rng.random(w.shape) < 0.2] = rng.choice([-128, 127])
    return Int8BsrMatrix.from_dense(w * grid.expand(mask), grid, mask)


@st.composite
def epilogues(draw, dtype, m):
    """Arguments of a plan whose results lie inside the output's range, at its ends and outside."""
    rng = np.random.default_rng(draw(SEEDS))
    output = draw(OUTPUTS)
    kinds = ["none", "integers"] if output == "int32" else ["none", "integers", "floats"]
    bias = {
        "none": None,
        "integers": rng.integers(-(10**6), 10**6, m).astype(np.int32),
        "floats": rng.normal(0, 40, m).astype(np.float32),
    }[draw(st.sampled_from(kinds))]
    return {
        "input_dtype": dtype,
        "input_zero_point": int(rng.integers(LIMITS[dtype][0], LIMITS[dtype][1] + 1)),
        "bias": bias,
        "scale": None if output == "int32" else rng.choice([1e-3, -1e-3, 1e-4, 0.5], m).astype(np.float32),
        "output": output,
        "output_zero_point": int(rng.integers(*LIMITS[output])) if output in LIMITS else 0,
        "relu": draw(st.booleans()),
    }


@FEW
@given(data=st.data(), n=st.sampled_from([0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130]), dtype=INPUTS)
def test_product_has_the_bits_of_the_cpus_plan(data, n, dtype):
    draw = data.draw
    bh = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 64]))
    bw = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 16, 20, 64]))
    grid = BlockGrid(m=draw(st.integers(1, 150)), k=4 * draw(st.integers(1, 70)), bh=bh, bw=bw)
    rng = np.random.default_rng(draw(SEEDS))
    matrix = weights(rng, grid, drawn_mask(rng, grid.shape, draw(MASKS)))
    options = draw(epilogues(dtype, grid.m))
    limits = device(draw(st.sampled_from([12, 24, 99, 227])), draw(st.sampled_from([1, 4, 132])))
    # Rows side by side, or apart by whole quads or by whole vectors, with other bytes between them.
    gap = draw(st.sampled_from([0, 4, -grid.k % 16, 16 + -grid.k % 16]))
    shift = draw(st.sampled_from([0, 4, 16]))
    around = np.full((n, shift + grid.k + gap), 77, dtype)
    around[:, shift : shift + grid.k] = random_input(rng, dtype, (n, grid.k))
    x = torch.from_numpy(around)[:, shift : shift + grid.k]
    y = GpuInt8Plan([matrix], device=CPU, limits=limits, **options).multiply(x)
    expected = Int8SpmmPlan(matrix, isa="scalar", **options)(x.t().contiguous())
    assert y.dtype == expected.dtype
    assert y.numpy().tobytes() == expected.t().contiguous().numpy().tobytes()


@FEW
@given(data=st.data(), dtype=INPUTS)
def test_convolution_has_the_bits_of_the_cpus_plan(data, dtype):
    """Padding stands for the zero point, whatever that is."""
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([4, 8, 12, 16, 32]))
    out = draw(st.integers(1, 40))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 2), (5, 1)]))
    stride, padding, dilation = (
        draw(st.tuples(st.integers(low, 2), st.integers(low, 2))) for low in (1, 0, 1)
    )
    image = draw(st.tuples(st.integers(5, 9), st.integers(5, 9)))
    taps = kernel[0] * kernel[1]
    rng = np.random.default_rng(draw(SEEDS))
    block = {"bh": draw(st.sampled_from([1, 2, 4, 8, 16])), "bw": draw(st.sampled_from([1, 2, 4, 8, 12]))}
    grid = BlockGrid(m=out, k=taps * channels, positions=taps, **block)
    matrices = [
        weights(rng, grid, drawn_mask(rng, grid.shape, draw(st.sampled_from(["even", "all", "skewed"]))))
        for _ in range(groups)
    ]
    options = draw(epilogues(dtype, groups * out))
    window = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    x = torch.from_numpy(random_input(rng, dtype, (draw(st.integers(0, 3)), groups * channels, *image)))
    limits = device(draw(st.sampled_from([12, 99, 227])))
    plan = GpuInt8Plan(matrices, device=CPU, limits=limits, **options)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    reach = [d * (side - 1) + 1 for side, d in zip(kernel, dilation, strict=True)]
    if any(side + 2 * p < r for side, p, r in zip(image, padding, reach, strict=True)):
        with pytest.raises(ConfigError, match="at least"):
            plan.convolve(channels_last, **window)
        return
    y = plan.convolve(channels_last, **window)
    expected = Int8ConvPlan(matrices, isa="scalar", **window, **options)(x)
    assert y.dtype == expected.dtype
    assert y.contiguous().numpy().tobytes() == expected.numpy().tobytes()
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("int8", -128), ("int8", 127)])
@pytest.mark.parametrize("bh", [8, 16])
@pytest.mark.parametrize("n", [1, 40])
def test_extremes_add_up_and_partial_sums_wrap_back(weight, dtype, value, bh, n):
    """Unsigned, as the kernels see it, an input of 127 is 255: 70000 such products leave 32 bits on the way.

    One long row, which is divided: its parts leave 32 bits, or not, each on its own.
    """
    k = 70_016
    grid = BlockGrid(m=20 * bh, k=k, bh=bh, bw=64)
    mask = np.zeros(grid.shape, bool)
    mask[3] = True
    w = np.full((grid.m, k), weight) * grid.expand(mask)
    matrix = Int8BsrMatrix.from_dense(w, grid, mask)
    x = torch.full((n, k), value, dtype=getattr(torch, dtype))
    zero_point = 128 if dtype == "uint8" else 0
    plan = GpuInt8Plan([matrix], device=CPU, input_dtype=dtype, input_zero_point=zero_point)
    y = plan.multiply(x)
    assert plan.facts["splits"] == 1
    assert (y[:, 3 * bh : 4 * bh] == k * weight * (value - zero_point)).all()
    assert (y[:, : 3 * bh] == 0).all()
    assert (y[:, 4 * bh :] == 0).all()


def test_two_and_a_half_becomes_two():
    """By hand: 5 * 0.5 = 2.5 -> 2, 7 * 0.5 = 3.5 -> 4; + 10; ReLU keeps what is at least the zero point."""
    matrix = Int8BsrMatrix.from_dense([[1, 0, 0, 0], [-1, 0, 0, 0]], BlockGrid(m=2, k=4, bh=2, bw=4))
    x = torch.tensor([[5, 9, 9, 9], [7, 9, 9, 9]], dtype=torch.uint8)
    options = {"scale": 0.5, "output": "uint8", "output_zero_point": 10, "device": CPU}
    assert GpuInt8Plan([matrix], **options).multiply(x).tolist() == [[12, 8], [14, 6]]
    assert GpuInt8Plan([matrix], relu=True, **options).multiply(x).tolist() == [[12, 10], [14, 10]]


@given(
    column=st.integers(0, 31),
    row=st.integers(0, 15),
    n=st.sampled_from([1, 17]),
    bh=st.sampled_from([8, 16]),
)
@example(column=31, row=15, n=17, bh=16)
@settings(max_examples=100, deadline=None)
def test_every_weight_meets_its_own_input(column, row, n, bh):
    """One weight at a time, X all different: byte by byte the step's 32 elements are in their places."""
    w = np.zeros((16, 32), int)
    w[row, column] = -3
    matrix = Int8BsrMatrix.from_dense(w, BlockGrid(m=16, k=32, bh=bh, bw=32))
    x = (torch.arange(n)[:, None] * 7 + torch.arange(32) * 3).to(torch.uint8)
    y = GpuInt8Plan([matrix], device=CPU).multiply(x)
    expected = torch.zeros(n, 16, dtype=torch.int32)
    expected[:, row] = -3 * x[:, column].int()
    assert torch.equal(y, expected)


@pytest.mark.parametrize(("bh", "height"), [(1, 8), (8, 8), (16, 16), (64, 16)])
def test_blocks_keep_whole_quads_and_steps_are_full(bh, height):
    """64 elements in every slab are 16 quads, two steps; of width 1 and 2 the same, if all are kept."""
    for bw in (1, 2, 4, 16):
        grid = BlockGrid(m=128, k=64, bh=bh, bw=bw)
        matrix = Int8BsrMatrix.from_dense(np.ones((128, 64), int), grid)
        facts = GpuInt8Plan([matrix], device=CPU).facts
        assert facts["height"] == height
        assert facts["steps"] == 128 // height * 2
        assert facts["kept_elements"] == facts["steps"] * facts["depth"]


def test_narrow_blocks_keep_the_quads_around_them():
    """Columns 1, 2 and 9 of 16: the quads 0 and 2."""
    w = np.zeros((8, 16), int)
    w[:, [1, 2, 9]] = 1
    matrix = Int8BsrMatrix.from_dense(w, BlockGrid(m=8, k=16, bh=8, bw=1))
    assert GpuInt8Plan([matrix], device=CPU).facts["kept_elements"] == 2


def test_what_does_not_fit_is_refused_before_a_kernel_runs():
    grid = BlockGrid(m=8, k=32, bh=8, bw=8)
    matrix = Int8BsrMatrix.from_dense(np.ones((8, 32), int), grid)
    plan = GpuInt8Plan([matrix], device=CPU)
    x = torch.zeros(20, 32, dtype=torch.uint8)
    for wrong, message in (
        (x.char(), "expected a dense tensor of uint8, got torch.int8"),
        (x[:, :28], r"expected shape \(n, 32\), got \(20, 28\)"),
        (x.t().contiguous().t(), "side by side, in fours that begin at multiples of 4 bytes"),
        (torch.zeros(20, 33, dtype=torch.uint8)[:, :32], "multiples of 4 bytes, got strides"),
        (torch.zeros(20 * 32 + 1, dtype=torch.uint8)[1:].view(20, 32), "multiples of 4 bytes"),
    ):
        with pytest.raises(ShapeError, match=message):
            plan.multiply(wrong)
    assert plan.multiply(torch.zeros(1, 33, dtype=torch.uint8)[:, :32]).shape == (1, 8)  # a single row
    with pytest.raises(ConfigError, match="at least one matrix"):
        GpuInt8Plan([], device=CPU)
    with pytest.raises(ConfigError, match="expected Int8BsrMatrix, got str"):
        GpuInt8Plan(["matrix"], device=CPU)
    odd = Int8BsrMatrix.from_dense(np.ones((8, 30), int), BlockGrid(m=8, k=30, bh=8, bw=8))
    with pytest.raises(ConfigError, match="expected a multiple of 4 reduction elements, got 30"):
        GpuInt8Plan([odd], device=CPU)
    taps = BlockGrid(m=8, k=27, positions=9, bh=8, bw=3)
    with pytest.raises(ConfigError, match="expected a multiple of 4 channels in every group, got 3"):
        GpuInt8Plan([Int8BsrMatrix.from_dense(np.ones((8, 27), int), taps)], device=CPU)
    with pytest.raises(ConfigError, match="sums that fit in 32 bits"):
        GpuInt8Plan([matrix], device=CPU, bias=np.full(8, 2**31 - 1))
    with pytest.raises(ConfigError, match="scale: expected one for uint8 output"):
        GpuInt8Plan([matrix], device=CPU, output="uint8")
    with pytest.raises(ConfigError, match=r"bias: expected shape \(8,\), got \(7,\)"):
        GpuInt8Plan([matrix], device=CPU, bias=np.zeros(7, int))


def test_images_are_channels_last_or_refused():
    grid = BlockGrid(m=8, k=72, positions=9, bh=8, bw=8)
    plan = GpuInt8Plan([Int8BsrMatrix.from_dense(np.ones((8, 72), int), grid)], device=CPU)
    window = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    x = torch.ones(2, 8, 5, 5, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="reduction elements side by side") as caught:
        plan.convolve(x, **window)
    assert "memory_format=torch.channels_last" in caught.value.hint
    assert plan.convolve(x.contiguous(memory_format=torch.channels_last), **window)[0, 0, 0, 0] == 32
    with pytest.raises(ShapeError, match=r"expected \(N, 8, H, W\) and 9 kernel positions"):
        plan.convolve(x[:, :4], **window)


def test_the_core_checks_epilogues_and_their_memory():
    matrix = Int8BsrMatrix.from_dense(np.ones((8, 32), int), BlockGrid(m=8, k=32, bh=8, bw=8))
    plan = GpuInt8Plan([matrix], device=CPU, scale=1.0, output="float32")
    other = GpuInt8Plan(
        [Int8BsrMatrix.from_dense(np.ones((9, 32), int), BlockGrid(m=9, k=32, bh=8, bw=8))], device=CPU
    )
    x = torch.zeros(20, 32, dtype=torch.uint8)
    source = (8, 20, 1, 8, *(0,) * 14)

    def run(packed=plan._packed, y=None, epilogue=plan._epilogue, source=source):
        result = torch.empty(20, 8) if y is None else y
        plan._plan.run(packed, x, source, result, epilogue=epilogue)

    run()
    with pytest.raises(ShapeError, match="an epilogue in i8 and there only, got none"):
        run(epilogue=None)
    with pytest.raises(ShapeError, match="an epilogue of 8 rows, got 9"):
        run(epilogue=other._epilogue)
    with pytest.raises(ShapeError, match="96 bytes of bias, got 32"):
        run(packed=Packed(plan._packed.weights, torch.zeros(8, dtype=torch.int32)))
    with pytest.raises(ShapeError, match="memory for bias"):
        run(packed=Packed(plan._packed.weights, None))
    with pytest.raises(ShapeError, match="640 bytes of Y, got 160"):
        run(y=torch.empty(20, 8, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="side by side along the reduction, got a stride of 20"):
        run(source=(8, 20, 20, 1, *(0,) * 14))
    real = GpuPlan(matrix.grid, [(matrix.row_ptr, matrix.col_idx)], math="f32", device=CPU)
    ones = torch.ones(4, 8, 8)
    wide = torch.zeros(20, 32)
    float_source = (32, 20, 1, 32, *(0,) * 14)
    with pytest.raises(ShapeError, match="an epilogue in i8 and there only, got one"):
        real.run(real.pack(ones), wide, float_source, torch.empty(20, 8), epilogue=plan._epilogue)
    assert _memory(plan._packed.bias)[1] == 96
