"""8-bit convolutions equal torch's in float64, on every instruction set."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, Int8BsrMatrix, Int8ConvPlan, available_int8_isas
from pysim.workload import BlockGrid
from tests.kernels.test_int8 import LIMITS, finish, random_input

_EMULATED = pytest.param(
    "emulated16",
    marks=pytest.mark.skipif("avx2" not in available_int8_isas(), reason="emulated16 needs AVX2"),
)
SMALL = st.integers(1, 3)


@pytest.fixture(params=[*available_int8_isas(), _EMULATED], scope="session")
def isa(request):
    return request.param


def make_matrices(rng, groups, out, channels, kernel, block, keep):
    grid = BlockGrid(
        m=out,
        k=kernel[0] * kernel[1] * channels,
        positions=kernel[0] * kernel[1],
        bh=block[0],
        bw=block[1],
    )
    matrices = []
    for _ in range(groups):
        mask = rng.random(grid.shape) < keep
        w = rng.integers(-128, 128, (grid.m, grid.k)) * grid.expand(mask)
        matrices.append(Int8BsrMatrix.from_dense(w.astype(np.int8), grid, mask))
    return matrices


def exact(matrices, x, zero_point, kernel, stride, padding, dilation):
    """In float64 on integers: exact. Padding is zero after the zero point is taken off."""
    weights = [
        m.to_dense().reshape(m.grid.m, *kernel, m.grid.channels).transpose(0, 3, 1, 2) for m in matrices
    ]
    weight = torch.from_numpy(np.concatenate(weights)).double()
    image = torch.from_numpy(x.astype(np.float64) - zero_point)
    return conv2d(image, weight, None, stride, padding, dilation, len(matrices)).numpy().astype(np.int64)


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(0, 3),
    groups=SMALL,
    out=st.integers(1, 11),
    channels=st.integers(1, 9),
    image=st.tuples(st.integers(1, 13), st.integers(1, 40)),
    kernel=st.tuples(SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(SMALL, SMALL),
    block=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    dtype=st.sampled_from(["uint8", "int8"]),
    output=st.sampled_from(["int32", "uint8"]),
    threads=SMALL,
    seed=st.integers(0, 2**32 - 1),
)
def test_convolution_is_exact(
    isa,
    batch,
    groups,
    out,
    channels,
    image,
    kernel,
    stride,
    padding,
    dilation,
    block,
    dtype,
    output,
    threads,
    seed,
):
    rng = np.random.default_rng(seed)
    matrices = make_matrices(rng, groups, out, channels, kernel, block, rng.random())
    x = random_input(rng, dtype, (batch, groups * channels, *image))
    zero_point = int(rng.integers(LIMITS[dtype][0], LIMITS[dtype][1] + 1))
    bias = rng.integers(-1000, 1000, groups * out)
    scale = None if output == "int32" else rng.choice([1e-3, -1e-3, 1e-2], groups * out).astype(np.float32)
    plan = Int8ConvPlan(
        matrices,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        input_dtype=dtype,
        input_zero_point=zero_point,
        bias=bias,
        scale=scale,
        output=output,
        output_zero_point=7 if output == "uint8" else 0,
        isa=isa,
        threads=threads,
    )
    reach = [d * (size - 1) + 1 for d, size in zip(dilation, kernel, strict=True)]
    if any(side + 2 * p < r for side, p, r in zip(image, padding, reach, strict=True)):
        with pytest.raises(ConfigError, match="expected a padded side of at least"):
            plan(x)
        return
    total = exact(matrices, x, zero_point, kernel, stride, padding, dilation) + bias[:, None, None]
    y = plan(x)
    rows = total.transpose(1, 0, 2, 3).reshape(groups * out, -1)
    expected = finish(rows, output, scale, None, 7, False).reshape(total.transpose(1, 0, 2, 3).shape)
    np.testing.assert_array_equal(y, expected.transpose(1, 0, 2, 3))


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_a_layer_large_enough_for_threads_is_the_same_on_any_number(isa, kernel):
    rng = np.random.default_rng(0)
    matrices = make_matrices(rng, 1, 64, 32, kernel, (4, 4), 0.4)
    padding = (kernel[0] // 2, kernel[1] // 2)
    x = random_input(rng, "uint8", (5, 32, 20, 20))
    expected = exact(matrices, x, 3, kernel, 1, padding, 1)
    for threads in (1, 2, 3, 7):
        plan = Int8ConvPlan(
            matrices, kernel_size=kernel, padding=padding, input_zero_point=3, isa=isa, threads=threads
        )
        np.testing.assert_array_equal(plan(x), expected)
        np.testing.assert_array_equal(plan(x[:1]), expected[:1])
        tensor = plan(torch.from_numpy(x))
        assert torch.equal(tensor, torch.from_numpy(expected).int())


def test_many_image_sizes_keep_giving_the_right_result():
    rng = np.random.default_rng(1)
    matrices = make_matrices(rng, 1, 4, 4, (3, 3), (2, 2), 0.7)
    plan = Int8ConvPlan(matrices, kernel_size=(3, 3), padding=(1, 1))
    for side in [*range(3, 23), 3, 4]:
        x = random_input(rng, "uint8", (1, 4, side, side))
        np.testing.assert_array_equal(plan(x), exact(matrices, x, 0, (3, 3), 1, 1, 1))


GRID = BlockGrid(m=6, k=8, bh=2, bw=2)
MATRIX = Int8BsrMatrix.from_dense(np.ones((6, 8), np.int8), GRID)
IMAGE = np.ones((2, 8, 5, 5), np.uint8)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (np.ones((2, 7, 5, 5), np.uint8), None, r"expected \(N, 8, H, W\), got \(2, 7, 5, 5\)"),
        (np.ones((8, 5, 5), np.uint8), None, r"expected \(N, 8, H, W\), got \(8, 5, 5\)"),
        (IMAGE.astype(np.int8), None, "input: expected uint8, got int8"),
        (IMAGE.transpose(0, 1, 3, 2)[:, :, ::2], None, "input: expected a C-contiguous array"),
        (IMAGE, np.ones((2, 6, 5, 4), np.int32), r"output: expected \(2, 6, 5, 5\), got \(2, 6, 5, 4\)"),
        (IMAGE, np.ones((2, 6, 5, 5), np.int64), "output: expected int32, got int64"),
        (IMAGE, np.ones((2, 6, 5, 10), np.int32)[..., ::2], "output: expected a C-contiguous array"),
    ],
)
def test_images_that_do_not_fit_are_refused(x, out, message):
    with pytest.raises(ShapeError, match=message):
        Int8ConvPlan([MATRIX], kernel_size=(1, 1))(x, out)


def test_an_output_that_overlaps_the_input_is_refused():
    memory = np.zeros(2 * 8 * 25, np.uint8)
    plan = Int8ConvPlan([MATRIX], kernel_size=(1, 1), scale=1.0, output="uint8")
    with pytest.raises(ShapeError, match="int8 convolution output: expected memory apart from the input"):
        plan(memory[: 8 * 25].reshape(1, 8, 5, 5), memory[100 : 100 + 6 * 25].reshape(1, 6, 5, 5))


@pytest.mark.parametrize(
    ("matrices", "options", "message"),
    [
        ([], {"kernel_size": (1, 1)}, "expected at least one group, got none"),
        (
            [BsrMatrix.from_dense(np.ones((6, 8)), GRID)],
            {"kernel_size": (1, 1)},
            "expected Int8BsrMatrix, got BsrMatrix",
        ),
        ([MATRIX], {"kernel_size": (2, 1)}, "expected matrices of 2 kernel positions, got 1"),
        ([MATRIX], {"kernel_size": 1}, "kernel_size: expected two integers, got 1"),
        ([MATRIX], {"kernel_size": (1, 1), "stride": (0, 1)}, "expected a stride of 1 to"),
        ([MATRIX], {"kernel_size": (1, 1), "bias": [1]}, r"bias: expected shape \(6,\), got \(1,\)"),
        ([MATRIX], {"kernel_size": (1, 1), "threads": 0}, "int8 convolution: expected 1 to 256 threads"),
        ([MATRIX], {"kernel_size": (1, 1), "padding": (2**20, 2**20)}, "fewer than 2\\^31 elements"),
        ([MATRIX], {"kernel_size": (1, 1), "isa": "mmx"}, "isa: expected one of"),
    ],
)
def test_settings_out_of_range_are_refused(matrices, options, message):
    with pytest.raises(ConfigError, match=message):
        Int8ConvPlan(matrices, **options)(IMAGE)
