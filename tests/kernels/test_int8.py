"""8-bit products on every instruction set: sums equal int64's, results numpy's float32, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim import _core
from pysim.sparse import BsrMatrix, Int8BsrMatrix, Int8SpmmPlan, available_int8_isas, int8_isa_report
from pysim.workload import BlockGrid

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=50, deadline=None)
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_EMULATED = pytest.param(
    "emulated16",
    marks=pytest.mark.skipif("avx2" not in available_int8_isas(), reason="emulated16 needs AVX2"),
)


@pytest.fixture(params=[*available_int8_isas(), _EMULATED], scope="session")
def isa(request):
    return request.param


@st.composite
def grids(draw):
    positions = draw(st.sampled_from([1, 1, 1, 2, 9]))
    channels = draw(st.integers(1, 150 // positions))
    bh, bw = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    return BlockGrid(m=draw(st.integers(1, 70)), k=positions * channels, positions=positions, bh=bh, bw=bw)


def random_matrix(rng, grid, keep):
    """Weights of all magnitudes, extremes often."""
    mask = rng.random(grid.shape) < keep
    w = rng.integers(-128, 128, (grid.m, grid.k)).astype(np.int8)
    w[rng.random(w.shape) < 0.2] = rng.choice([-128, 127])
    return Int8BsrMatrix.from_dense(w * grid.expand(mask).astype(np.int8), grid, mask)


def random_input(rng, dtype, shape):
    low, high = LIMITS[dtype]
    x = rng.integers(low, high + 1, shape).astype(dtype)
    x[rng.random(shape) < 0.2] = rng.choice([low, high])
    return x


def spaced(rows, n, gap, shift, dtype, fill):
    """A (rows, n) view whose rows lie n + gap apart and start ``shift`` elements into ``fill``."""
    flat = np.full(shift + rows * (n + gap) + 1, fill, dtype)
    size = flat.itemsize
    view = np.lib.stride_tricks.as_strided(flat[shift:], (rows, n), (size * (n + gap), size), writeable=True)
    return flat, view


def sums(matrix, x, zero_point=0):
    return matrix.to_dense().astype(np.int64) @ (x.astype(np.int64) - zero_point)


def finish(total, output, scale, bias, zero_point, relu):
    """numpy's float32 arithmetic, one rounding for each step."""
    if output == "int32":
        return (np.maximum(total, 0) if relu else total).astype(np.int32)
    v = total.astype(np.float32) * scale[:, None].astype(np.float32)
    if bias is not None:
        v = v + bias[:, None].astype(np.float32)
    if relu:
        v = np.maximum(v, np.float32(0))
    if output == "float32":
        return v
    low, high = LIMITS[output]
    return np.clip(np.rint(v.astype(np.float64)) + zero_point, low, high).astype(output)


@FEW
@given(
    grid=grids(),
    keep=st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]),
    n=st.integers(0, 20) | st.integers(0, 210),
    dtype=st.sampled_from(["uint8", "int8"]),
    gaps=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    shifts=st.tuples(st.integers(0, 17), st.integers(0, 17)),
    threads=st.integers(1, 3),
    seed=SEEDS,
)
def test_sums_are_exact_and_nothing_else_is_written(isa, grid, keep, n, dtype, gaps, shifts, threads, seed):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, grid, keep)
    _, x = spaced(grid.k, n, gaps[0], shifts[0], dtype, 77)
    x[:] = random_input(rng, dtype, x.shape)
    memory, y = spaced(grid.m, n, gaps[1], shifts[1], np.int32, 2**31 - 1)
    plan = Int8SpmmPlan(matrix, input_dtype=dtype, isa=isa, threads=threads)
    assert plan.isa == isa
    assert plan(x, y) is y
    np.testing.assert_array_equal(y, sums(matrix, x))
    assert (memory == 2**31 - 1).sum() == memory.size - y.size


@FEW
@given(
    grid=grids(),
    n=st.integers(1, 40) | st.sampled_from([64, 97, 200]),
    dtype=st.sampled_from(["uint8", "int8"]),
    output=st.sampled_from(["int32", "float32", "uint8", "int8"]),
    bias=st.sampled_from(["none", "integers", "floats"]),
    relu=st.booleans(),
    threads=st.integers(1, 3),
    seed=SEEDS,
)
def test_results_are_numpys_bit_for_bit(isa, grid, n, dtype, output, bias, relu, threads, seed):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, grid, rng.random())
    x = random_input(rng, dtype, (grid.k, n))
    zero_point = int(rng.integers(LIMITS[dtype][0], LIMITS[dtype][1] + 1))
    total = sums(matrix, x, zero_point)
    added = None
    if bias == "integers":
        added = rng.integers(-(10**6), 10**6, grid.m).astype(np.int32)
        total = total + added[:, None]
    elif bias == "floats" and output != "int32":
        added = rng.normal(0, 40, grid.m).astype(np.float32)
    scale, out_zero = None, 0
    if output != "int32":
        # Results around the range of 8 bits: inside, at its ends and far outside; some scales below zero.
        spread = max(float(abs(total).max()), 1.0)
        scale = (rng.choice([20, 200, 2000, -150], grid.m) / spread).astype(np.float32)
    if output in LIMITS:
        out_zero = int(rng.integers(LIMITS[output][0], LIMITS[output][1] + 1))
    plan = Int8SpmmPlan(
        matrix,
        input_dtype=dtype,
        input_zero_point=zero_point,
        bias=added,
        scale=scale,
        output=output,
        output_zero_point=out_zero,
        relu=relu,
        isa=isa,
        threads=threads,
    )
    y = plan(x)
    real = added if bias == "floats" else None
    expected = finish(total, output, scale, real, out_zero, relu)
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (4, 1), (4, 4), (5, 3), (16, 16)])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 96, 97, 300])
def test_every_number_of_columns_writes_8_bits_to_itself_alone(isa, block, n):
    rng = np.random.default_rng(n)
    grid = BlockGrid(m=23, k=93, bh=block[0], bw=block[1])
    matrix = random_matrix(rng, grid, 0.4)
    x = random_input(rng, "uint8", (grid.k, n))
    memory, y = spaced(grid.m, n, 5, 3, np.int8, 99)
    scale = np.full(grid.m, 1e-3, np.float32)
    plan = Int8SpmmPlan(matrix, scale=scale, output="int8", isa=isa)
    plan(x, y)
    np.testing.assert_array_equal(y, finish(sums(matrix, x), "int8", scale, None, 0, False))
    y[:] = 99
    assert (memory == 99).all()


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("int8", -128), ("int8", 127)])
@pytest.mark.parametrize("n", [1, 3, 8, 40])
def test_extremes_add_up_without_saturating(isa, weight, dtype, value, n):
    """Products of bytes that are added in pairs of 16 bits would stop at 32767: 2 * 255 * 127 = 64770."""
    grid = BlockGrid(m=9, k=4096, bh=4, bw=4)
    matrix = Int8BsrMatrix.from_dense(np.full((9, 4096), weight, np.int8), grid)
    y = Int8SpmmPlan(matrix, input_dtype=dtype, isa=isa)(np.full((4096, n), value, dtype))
    assert (y == 4096 * weight * value).all()


@pytest.mark.parametrize("output", ["uint8", "int8"])
def test_halves_are_rounded_to_even_and_the_range_ends_hold(isa, output):
    low, high = LIMITS[output]
    x = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)  # sums 0 to 255, halves with a scale of 1/2
    grid = BlockGrid(m=4, k=4, bh=4, bw=4)
    matrix = Int8BsrMatrix.from_dense(np.eye(4, dtype=np.int8), grid)
    for scale in (0.5, -0.5, 1.5, 3e38, -3e38, 0.0):
        for zero_point in (low, 0 if low else 1, high):
            plan = Int8SpmmPlan(matrix, scale=scale, output=output, output_zero_point=zero_point, isa=isa)
            with np.errstate(over="ignore"):
                expected = finish(x.astype(np.int64), output, np.full(4, scale), None, zero_point, False)
            np.testing.assert_array_equal(plan(x), expected)


def test_two_and_a_half_becomes_two(isa):
    """By hand: 5 * 0.5 = 2.5 -> 2, 7 * 0.5 = 3.5 -> 4; + 10; ReLU keeps what is at least the zero point."""
    matrix = Int8BsrMatrix.from_dense([[1], [-1]], BlockGrid(m=2, k=1, bh=2, bw=1))
    x = np.array([[5, 7]], np.uint8)
    plain = Int8SpmmPlan(matrix, scale=0.5, output="uint8", output_zero_point=10, isa=isa)
    assert plain(x).tolist() == [[12, 14], [8, 6]]
    relu = Int8SpmmPlan(matrix, scale=0.5, output="uint8", output_zero_point=10, relu=True, isa=isa)
    assert relu(x).tolist() == [[12, 14], [10, 10]]


@settings(max_examples=20, deadline=None)
@given(
    block=st.sampled_from([(1, 1), (2, 2), (4, 1), (4, 4), (16, 16)]),
    n=st.sampled_from([1, 8, 33, 96, 200, 700]),
    keep=st.sampled_from([0.02, 0.3, 1.0]),
    seed=SEEDS,
)
def test_the_result_does_not_depend_on_threads(isa, block, n, keep, seed):
    """Sizes at which threads do take part, by columns, by slabs and by block rows."""
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=290, k=330, bh=block[0], bw=block[1])
    matrix = random_matrix(rng, grid, keep)
    x = random_input(rng, "int8", (grid.k, n))
    first = Int8SpmmPlan(matrix, input_dtype="int8", scale=1e-3, output="float32", isa=isa)(x).tobytes()
    for threads in (2, 3, 7):
        plan = Int8SpmmPlan(
            matrix, input_dtype="int8", scale=1e-3, output="float32", isa=isa, threads=threads
        )
        assert plan(x).tobytes() == first


def test_torch_tensors_come_back_as_tensors_and_agree_with_integer_matmul(isa):
    generator = torch.Generator().manual_seed(0)
    w = torch.randint(-128, 128, (40, 60), generator=generator, dtype=torch.int8)
    x = torch.randint(-128, 128, (60, 50), generator=generator, dtype=torch.int8)
    matrix = Int8BsrMatrix.from_dense(w.numpy(), BlockGrid(m=40, k=60, bh=4, bw=4))
    y = Int8SpmmPlan(matrix, input_dtype="int8", isa=isa)(x)
    assert torch.equal(y, torch.matmul(w.int(), x.int()))


def test_sums_and_32_bits():
    """The bound is that of the weights and zero point that are there, not of the worst there could be."""
    grid = BlockGrid(m=1, k=70_000, bh=1, bw=4)
    ones = Int8BsrMatrix.from_dense(np.ones((1, 70_000), np.int8), grid)
    x = np.full((70_000, 1), 255, np.uint8)
    assert Int8SpmmPlan(ones)(x).item() == 70_000 * 255
    just = 2**31 - 1 - 70_000 * 255
    assert Int8SpmmPlan(ones, bias=np.array([just]))(x).item() == 2**31 - 1
    with pytest.raises(Exception, match="expected sums that fit in 32 bits, got up to 2147483648 in row 0"):
        Int8SpmmPlan(ones, bias=np.array([just + 1]))
    large = Int8BsrMatrix.from_dense(np.full((1, 70_000), 127, np.int8), grid)
    with pytest.raises(Exception, match="sums that fit in 32 bits, got up to 2266950000 in row 0"):
        Int8SpmmPlan(large)
    middle = Int8SpmmPlan(large, input_zero_point=128)  # halves what a sum can become
    assert middle(x).item() == 70_000 * 127 * 127


def test_where_vnni_is_missing_avx512_means_avx2():
    """As on CPUs that have AVX-512F alone."""
    names = [status.name for status in int8_isa_report()]
    assert names == ["scalar", "avx2", "avx_vnni", "avx512_vnni"]
    if "avx2" not in available_int8_isas():
        pytest.skip("needs AVX2")
    resolve = _core.resolve_int8_isa
    assert resolve("", missing=["avx_vnni", "avx512_vnni"]) == "avx2"
    assert resolve("avx2") == "avx2"
    with pytest.raises(ValueError, match="isa: expected one of scalar, avx2, got avx512_vnni: left out"):
        resolve("avx512_vnni", missing=["avx_vnni", "avx512_vnni"])
    with pytest.raises(ValueError, match=r"isa: expected one of .*, got mmx"):
        resolve("mmx")
    if "avx512_vnni" in available_int8_isas():
        assert resolve("avx512") == "avx512_vnni"
        assert resolve("avx512", missing=["avx512_vnni"]) == "avx2"
        assert resolve("") == "avx512_vnni"


def test_an_8_bit_matrix_is_no_float_matrix_and_the_other_way_round():
    grid = BlockGrid(m=4, k=4, bh=2, bw=2)
    small = Int8BsrMatrix.from_dense(np.eye(4, dtype=np.int8), grid)
    assert not isinstance(small, BsrMatrix)
    assert small.to_dense().dtype == np.int8
    assert small.nnz_blocks == 2
