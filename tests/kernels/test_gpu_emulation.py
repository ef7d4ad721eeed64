"""Whole GPU products through the kernels' own source on the CPU: packing, panels, fragments, launches.

ldmatrix and mma are emulated from the PTX manual's tables. What this cannot show: races, and that the
compiler and the GPU agree with the emulation.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrMatrix, CudaDevice, gpu
from pysim.sparse.gpu import GpuPlan
from pysim.workload import BlockGrid

CPU = torch.device("cpu")
MATHS = ["f32", "tf32", "f16", "bf16"]
FEW = settings(max_examples=100, deadline=None)
DTYPES = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def device(shared_kib, processors=4):
    return CudaDevice(name="drawn", capability=(9, 0), processors=processors, shared_bytes=shared_kib * 1024)


def drawn_mask(rng, shape, kind):
    match kind:
        case "none":
            return np.zeros(shape, bool)
        case "all":
            return np.ones(shape, bool)
        case "even":
            return rng.random(shape) < 0.3
        case "skewed":
            return rng.random(shape) < rng.integers(0, 3, (shape[0], 1)) / 2
        case "one row":
            return np.arange(shape[0])[:, None] == np.full(shape, rng.integers(shape[0]))
    raise AssertionError(kind)


def whole_numbers(rng, shape, dtype):
    """From -4 to 4: products and sums of a few hundred of them are exact in float32."""
    return torch.from_numpy(rng.integers(-4, 5, shape).astype(np.float32)).to(dtype)


# Padded: rows of a multiple of 16 bytes, as the widest copies need, whose last copy is a partial one.
LAYOUTS = ["tokens", "columns", "spaced tokens", "spaced columns", "padded tokens", "padded columns"]


def laid_out(x, layout):
    """A view (n, k) with the values of x, NaN around it."""
    rows = x if "tokens" in layout else x.t()
    shift, gap = {"spaced": (1, 3), "padded": (0, -rows.shape[1] % 8)}.get(layout.split()[0], (0, 0))
    around = torch.full((rows.shape[0], shift + rows.shape[1] + gap), torch.nan, dtype=x.dtype)
    view = around[:, shift : shift + rows.shape[1]]
    view.copy_(rows)
    return view if "tokens" in layout else view.t()


def plan_of(matrices, math, limits, columns=256, cluster=1):
    groups = [(matrix.row_ptr, matrix.col_idx) for matrix in matrices]
    return GpuPlan(
        matrices[0].grid, groups, math=math, device=CPU, columns=columns, cluster=cluster, limits=limits
    )


def values_of(matrices, dtype):
    return torch.from_numpy(np.concatenate([matrix.values for matrix in matrices])).to(dtype)


@st.composite
def problems(draw):
    bh = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 64]))
    bw = draw(st.sampled_from([1, 2, 3, 4, 8, 16, 20, 64]))
    m, k = draw(st.integers(1, 150)), draw(st.integers(1, 260))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = BlockGrid(m=m, k=k, bh=bh, bw=bw)
    mask = drawn_mask(
        rng, grid.shape, draw(st.sampled_from(["none", "all", "even", "even", "skewed", "one row"]))
    )
    w = rng.integers(-4, 5, (m, k)).astype(np.float32) * grid.expand(mask)
    return BsrMatrix.from_dense(w, grid, mask), w, rng


@pytest.mark.parametrize("math", MATHS)
@FEW
@given(
    problem=problems(),
    n=st.sampled_from([0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130]),
    layout=st.sampled_from(LAYOUTS),
    bias=st.booleans(),
    relu=st.booleans(),
    shared=st.sampled_from([12, 24, 99, 163, 227]),
    processors=st.sampled_from([1, 4, 132]),
)
def test_product_is_exact_on_integers(math, problem, n, layout, bias, relu, shared, processors):
    matrix, w, rng = problem
    dtype = DTYPES[math]
    x = laid_out(whole_numbers(rng, (n, matrix.grid.k), dtype), layout)
    b = whole_numbers(rng, matrix.grid.m, torch.float32) if bias else None
    plan = plan_of([matrix], math, device(shared, processors))
    packed = plan.pack(values_of([matrix], dtype), b)
    expected = x.double() @ torch.from_numpy(w).double().t() + (0 if b is None else b)
    if relu:
        expected = expected.clamp(min=0)
    torch.testing.assert_close(plan.multiply(packed, x, relu=relu), expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("math", MATHS)
@FEW
@given(data=st.data())
def test_convolution_is_exact_on_integers(math, data):
    draw = data.draw
    dtype = DTYPES[math]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 3, 4, 8, 16]))
    out = draw(st.integers(1, 40))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 2), (5, 1)]))
    stride, padding, dilation = (
        draw(st.tuples(st.integers(low, 2), st.integers(low, 2))) for low in (1, 0, 1)
    )
    size = draw(st.tuples(st.integers(5, 9), st.integers(5, 9)))
    taps = kernel[0] * kernel[1]
    bh, bw = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from([1, 4, 8]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = BlockGrid(m=out, k=taps * channels, positions=taps, bh=bh, bw=bw)
    masks = [
        drawn_mask(rng, grid.shape, draw(st.sampled_from(["even", "all", "skewed"]))) for _ in range(groups)
    ]
    dense = [rng.integers(-4, 5, (out, grid.k)).astype(np.float32) * grid.expand(mask) for mask in masks]
    matrices = [BsrMatrix.from_dense(w, grid, mask) for w, mask in zip(dense, masks, strict=True)]
    x = whole_numbers(rng, (draw(st.integers(0, 3)), groups * channels, *size), dtype)
    if draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    plan = plan_of(matrices, math, device(draw(st.sampled_from([12, 99, 227]))))
    packed = plan.pack(values_of(matrices, dtype))
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    if any(s + 2 * p < r for s, p, r in zip(size, padding, reach, strict=True)):
        with pytest.raises(ConfigError, match="at least"):
            plan.convolve(packed, x, kernel_size=kernel, **window)
        return
    y = plan.convolve(packed, x, kernel_size=kernel, **window)
    weight = torch.from_numpy(np.concatenate(dense)).reshape(-1, *kernel, channels).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(
        x.double(), weight.double(), None, stride, padding, dilation, groups
    )
    torch.testing.assert_close(y.contiguous(), expected.to(dtype), rtol=0, atol=0)
    assert y.is_contiguous(memory_format=torch.channels_last)


def block_matrix(mask, bh, bw, seed=0):
    grid = BlockGrid(m=mask.shape[0] * bh, k=mask.shape[1] * bw, bh=bh, bw=bw)
    rng = np.random.default_rng(seed)
    w = rng.integers(1, 5, (grid.m, grid.k)).astype(np.float32) * grid.expand(mask)
    return BsrMatrix.from_dense(w, grid, mask)


@pytest.mark.parametrize(
    ("math", "bh", "height"),
    [("f32", bh, min(bh, 8)) for bh in (1, 2, 4, 8, 16, 32, 64)]
    + [("f16", bh, min(max(bh, 8), 32)) for bh in (1, 2, 4, 8, 16, 32, 64)]
    + [("tf32", bh, 16 if bh >= 16 else 8) for bh in (1, 8, 16, 64)],
)
def test_only_kept_elements_are_stored_and_steps_are_full(math, bh, height):
    """One full block row of 64 elements in every slab: nothing is padded, whatever the blocks' width."""
    for bw in (1, 4, 64):
        matrix = block_matrix(np.ones((128 // bh, 64 // bw), bool), bh, bw)
        facts = plan_of([matrix], math, device(227)).facts
        slabs = 128 // height
        assert facts["height"] == height
        assert facts["kept_elements"] == facts["steps"] * facts["depth"] == slabs * 64


@pytest.mark.parametrize("cluster", [1, 4])
def test_chunks_do_not_cut_through_blocks_of_16(cluster):
    """101 block columns in several chunks of an odd number of octets: every step is still full."""
    mask = np.random.default_rng(0).random((40, 101)) < 0.4
    facts = plan_of([block_matrix(mask, 16, 16)], "f16", device(24), cluster=cluster).facts
    assert facts["stages"] == 2
    assert facts["steps"] * facts["depth"] == facts["kept_elements"] == 16 * mask.sum()


def test_width_of_blocks_costs_nothing_once_they_are_gathered():
    """16 kept columns of width 1, far apart, fill one step as 16 that lie together do."""
    apart = np.zeros((1, 256), bool)
    apart[0, ::16] = True
    together = np.zeros((1, 16), bool)
    together[0, 3] = True
    for mask, bw in ((apart, 1), (together, 16)):
        assert plan_of([block_matrix(mask, 16, bw)], "f16", device(227)).facts["steps"] == 1


def test_rows_above_twice_the_mean_are_divided_and_others_are_not():
    mask = np.zeros((16, 64), bool)
    mask[:, :8] = True
    assert plan_of([block_matrix(mask, 16, 16)], "f16", device(227)).facts["splits"] == 0
    mask[5] = True  # 64 blocks; the mean is 11.5
    assert plan_of([block_matrix(mask, 16, 16)], "f16", device(227)).facts["splits"] == 1


@pytest.mark.parametrize(
    ("blocks", "rows", "processors", "share", "ctas"),
    [
        (64, 1, 132, 8, 1),  # alone on the GPU: as many warps as a CTA has, 8 steps each
        (16, 3, 132, 4, 2),  # 4 steps for each of 4 warps, two slabs in a CTA
        (64, 8, 1, 2, 2),  # 512 steps on 16 warps, 32 each: two for a slab, four slabs in a CTA
        (4, 64, 132, 1, 8),  # too short to be shared
        (0, 5, 132, 1, 1),
    ],
)
def test_warps_share_slabs_of_few_columns_until_the_gpu_is_full(blocks, rows, processors, share, ctas):
    mask = np.zeros((rows, 64), bool)
    mask[:, :blocks] = True
    facts = plan_of([block_matrix(mask, 16, 16)], "f16", device(227, processors)).facts
    assert (facts["decode_share"], facts["decode_ctas"]) == (share, ctas)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("bh", [4, 16, 32])
@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_few_columns_are_exact_where_slabs_in_a_cta_differ_in_length(math, bh, n):
    """One long, others of a few steps, one or none: some warps have no step, some CTAs no barrier."""
    rng = np.random.default_rng(n)
    lengths = [96, 90, 40, 37, 21, 20, 9, 8, 5, 3, 1, 1, 0, 0, 0, 96, 4]
    mask = np.arange(96) < rng.permutation(lengths)[:, None]
    for row in mask:
        rng.shuffle(row)
    matrix = block_matrix(mask, bh, 12)
    dtype = DTYPES[math]
    plan = plan_of([matrix], math, device(227, processors=132))
    assert plan.facts["decode_share"] == 8
    assert plan._plan.workspace_bytes(n) == 0
    x = whole_numbers(rng, (n, matrix.grid.k), dtype)
    y = plan.multiply(plan.pack(values_of([matrix], dtype)), x)
    assert plan.last_kernel == "few columns"
    expected = x.double() @ torch.from_numpy(matrix.to_dense()).double().t()
    torch.testing.assert_close(y, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("n", [5, 40])
def test_a_nan_reaches_only_sums_with_a_kept_block_there(math, n):
    """Rows of one block row share their slab; padded slots of a step read a row of zeros."""
    mask = np.eye(4, dtype=bool)
    matrix = block_matrix(mask, 16, 12)
    dtype = DTYPES[math]
    plan = plan_of([matrix], math, device(99))
    x = torch.ones((n, 48), dtype=dtype)
    x[:, 12:24] = torch.nan
    y = plan.multiply(plan.pack(values_of([matrix], dtype)), x)
    assert y[:, 16:32].isnan().all()
    assert not y[:, :16].isnan().any()
    assert not y[:, 32:].isnan().any()


@pytest.mark.parametrize("n", [1, 16, 300])
def test_real_numbers_stay_within_the_rounding_bound(n):
    """gamma(k) of exact products and float32 sums; tf32 rounds each factor to 11 bits first."""
    rng = np.random.default_rng(1)
    grid = BlockGrid(m=96, k=512, bh=8, bw=8)
    mask = rng.random(grid.shape) < 0.3
    w = rng.standard_normal((96, 512), dtype=np.float32) * grid.expand(mask)
    matrix = BsrMatrix.from_dense(w, grid, mask)
    x = torch.from_numpy(rng.standard_normal((n, 512), dtype=np.float32))
    exact = x.double() @ torch.from_numpy(w).double().t()
    magnitude = x.abs().double() @ torch.from_numpy(w).abs().double().t()
    gamma = 513 * 2.0**-24 / (1 - 513 * 2.0**-24)
    for math, factor in (("f32", 0.0), ("tf32", 2.0**-11)):
        plan = plan_of([matrix], math, device(99))
        y = plan.multiply(plan.pack(values_of([matrix], torch.float32)), x)
        allowed = ((1 + factor) ** 2 * (1 + gamma) - 1) * magnitude
        assert ((y.double() - exact).abs() <= allowed).all()
        if math == "tf32":
            assert ((y.double() - exact).abs() > gamma * magnitude).any()  # it does round


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_results_are_rounded_to_nearest_as_torch_rounds(dtype):
    """One product per output: the sum is exact in float32, so only the last rounding acts, ties included."""
    grid = BlockGrid(m=1, k=1, bh=1, bw=1)
    matrix = BsrMatrix.from_dense(np.ones((1, 1), np.float32), grid)
    name = "f16" if dtype == torch.float16 else "bf16"
    plan = plan_of([matrix], name, device(99))
    bits = torch.arange(-(2**15), 2**15, 7, dtype=torch.int16).view(dtype)
    x = bits[bits.isfinite()][:, None].contiguous()
    for weight in (1.0, 1.0 + 2.0**-7, 3.0, 2.0**-9, 2.0**10):
        values = torch.full((1, 1, 1), weight, dtype=dtype)
        y = plan.multiply(plan.pack(values), x)
        torch.testing.assert_close(y, (x.float() * values.float().item()).to(dtype), rtol=0, atol=0)


def test_one_plan_serves_any_width_and_any_values():
    matrix = block_matrix(np.tri(6, 6, dtype=bool), 16, 16)
    plan = plan_of([matrix], "f16", device(24), columns=64)
    rng = np.random.default_rng(0)
    for n in (1, 64, 200):
        values = whole_numbers(rng, matrix.values.shape, torch.float16)
        x = whole_numbers(rng, (n, 96), torch.float16)
        w = BsrMatrix(
            grid=matrix.grid,
            row_ptr=matrix.row_ptr,
            col_idx=matrix.col_idx,
            values=values.float().numpy(),
        ).to_dense()
        y = plan.multiply(plan.pack(values), x)
        torch.testing.assert_close(y, (x.float() @ torch.from_numpy(w).t()).half(), rtol=0, atol=0)


def test_what_does_not_fit_is_refused_before_a_kernel_runs():
    matrix = block_matrix(np.ones((2, 2), bool), 16, 16)
    plan = plan_of([matrix], "f16", device(99))
    packed = plan.pack(values_of([matrix], torch.float16))
    with pytest.raises(ShapeError, match=r"expected torch.float16, got torch.float32"):
        plan.multiply(packed, torch.zeros(4, 32))
    with pytest.raises(ShapeError, match=r"expected shape \(n, 32\)"):
        plan.multiply(packed, torch.zeros(4, 31, dtype=torch.float16))
    with pytest.raises(ShapeError, match="expected 1024 values, got 512"):
        plan.pack(torch.zeros(2, 16, 16, dtype=torch.float16))
    with pytest.raises(ConfigError, match="bytes of shared memory"):
        plan_of([matrix], "f16", device(1))
    with pytest.raises(ConfigError, match="f32, tf32, f16, bf16 or i8, got f8"):
        plan_of([matrix], "f8", device(99))


def raw_arguments(plan, packed, x, y):
    """What _run passes on, with something to break in it."""
    return {
        "device": -1,
        "stream": 0,
        "image": gpu._memory(plan._image),
        "weights": gpu._memory(packed.weights),
        "x": gpu._memory(x),
        "source": (plan.k, len(x), x.stride(1), x.stride(0), *(0,) * 14),
        "y": gpu._memory(y),
        "y_strides": (1, plan.m),
        "bias": None,
        "workspace": None,
        "relu": False,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(x=(a["x"][0], a["x"][1] - 2)), "bytes of X"),
        (lambda a: a.update(y=(a["y"][0], 10)), "bytes of Y"),
        (lambda a: a.update(y=(0, 4096)), "memory for Y"),
        (lambda a: a.update(y=(a["y"][0] + 1, 4096)), "Y aligned to 2"),
        (lambda a: a.update(weights=(a["weights"][0] + 8, 10**6)), "weights aligned to 16"),
        (lambda a: a.update(image=(a["image"][0] + 16, 10**6)), "tables aligned to 256"),
        (lambda a: a.update(image=(a["image"][0], 100)), "bytes of tables"),
        (lambda a: a.update(y=a["x"]), "overlap"),
        (lambda a: a.update(y_strides=(1, 1)), "do not overlap"),
        (lambda a: a.update(source=(31, *a["source"][1:])), "32 rows of X"),
        (lambda a: a.update(source=(32, -1, *a["source"][2:])), "at least 0 columns"),
        (lambda a: a.update(source=(32, 2**62, *a["source"][2:])), "64 bits"),
        (lambda a: a.update(source=(32, 4, -1, *a["source"][3:])), "at least 0"),
        (lambda a: a.update(source=(*a["source"][:6], 32, *(0,) * 11)), "sizes of at least 1"),
    ],
)
def test_addresses_and_sizes_are_checked_in_the_core(change, message):
    matrix = block_matrix(np.ones((2, 2), bool), 16, 16)
    plan = plan_of([matrix], "f16", device(99))
    packed = plan.pack(values_of([matrix], torch.float16))
    x, y = torch.zeros(4, 32, dtype=torch.float16), torch.zeros(4, 32, dtype=torch.float16)
    arguments = raw_arguments(plan, packed, x, y)
    plan._plan.run(**arguments)
    change(arguments)
    with pytest.raises(ValueError, match=message):
        plan._plan.run(**arguments)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("shared", [12, 16, 24, 48, 227])
def test_groups_fetch_panels_of_their_own(math, shared):
    """A band of kept blocks: every group of slabs needs other rows of X, in one, two or more chunks."""
    rows, cols, block = 72, 24, 16
    centre = np.arange(rows)[:, None] * cols / rows
    mask = np.abs(centre - np.arange(cols)) < 2
    matrix = block_matrix(mask, block, block)
    dtype = DTYPES[math]
    plan = plan_of([matrix], math, device(shared, processors=64))
    x = whole_numbers(np.random.default_rng(0), (40, cols * block), dtype)
    y = plan.multiply(plan.pack(values_of([matrix], dtype)), x)
    expected = x.double() @ torch.from_numpy(matrix.to_dense()).double().t()
    torch.testing.assert_close(y, expected.to(dtype), rtol=0, atol=0)
    assert plan.facts["groups"] > 1


@pytest.mark.parametrize("processors", [1, 1000])
def test_slabs_that_share_a_panel_take_turns_on_it_if_ctas_are_plenty(processors):
    matrix = block_matrix(np.ones((64, 2), bool), 16, 16)
    plan = plan_of([matrix], "f16", device(227, processors), columns=64)
    assert plan.facts["stages"] == 1
    assert plan.facts["groups"] == (1 if processors == 1 else 2)
    x = whole_numbers(np.random.default_rng(0), (64, 32), torch.float16)
    y = plan.multiply(plan.pack(values_of([matrix], torch.float16)), x)
    expected = x.double() @ torch.from_numpy(matrix.to_dense()).double().t()
    torch.testing.assert_close(y, expected.half(), rtol=0, atol=0)


def nearest_tf32(values):
    """To 10 bits of fraction, ties away from zero."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("bh", [8, 16])
@pytest.mark.parametrize("n", [7, 40])
def test_tf32_rounds_both_factors_to_nearest(bh, n):
    """One product for each sum: 11 bits times 11 bits are exact in float32."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((bh, 1), dtype=np.float32)
    x = rng.standard_normal((n, 1), dtype=np.float32)
    matrix = BsrMatrix.from_dense(w, BlockGrid(m=bh, k=1, bh=bh, bw=1))
    plan = plan_of([matrix], "tf32", device(99))
    y = plan.multiply(plan.pack(torch.from_numpy(matrix.values.copy())), torch.from_numpy(x))
    np.testing.assert_array_equal(y.numpy(), nearest_tf32(x) * nearest_tf32(w).T)
