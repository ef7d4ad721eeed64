"""The shipped kernels' PTX in the machine.

The same bits as the emulation of their source, in any order of warps, and faults as soon as a synchronisation
is taken out.
"""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.sparse import BsrMatrix
from pysim.sparse.gpu_int8 import GpuInt8Plan
from pysim.workload import BlockGrid
from tests.kernels.test_gpu_cluster import columns_of
from tests.kernels.test_gpu_emulation import (
    CPU,
    DTYPES,
    LAYOUTS,
    MATHS,
    block_matrix,
    device,
    drawn_mask,
    laid_out,
    plan_of,
    problems,
    values_of,
)
from tests.kernels.test_gpu_int8 import INPUTS, MASKS, epilogues
from tests.kernels.test_gpu_int8 import weights as int8_weights
from tests.kernels.test_int8 import random_input
from tests.ptx.simulated import PtxError, Simulated

FEW = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def both_ways(plan, gpu, seed, product):
    """What a product gives in the emulation and in the machine, and the machine's kernels."""
    expected, kernel = product(), plan.last_kernel
    core = plan._plan
    plan._plan = Simulated(core, gpu, seed)
    try:
        found = product()
        assert plan.last_kernel == kernel
        return expected, found, plan._plan.launched
    finally:
        plan._plan = core


@pytest.mark.parametrize("math", MATHS)
@FEW
@given(
    problem=problems(),
    n=st.sampled_from([1, 3, 8, 16, 17, 64, 65, 130]),
    layout=st.sampled_from(LAYOUTS),
    bias=st.booleans(),
    relu=st.booleans(),
    shared=st.sampled_from([12, 24, 227]),
    processors=st.sampled_from([1, 4, 132]),
    seed=seeds,
)
def test_products(simulated_gpu, math, problem, n, layout, bias, relu, shared, processors, seed):
    matrix, _, rng = problem
    x = laid_out(torch.from_numpy(rng.standard_normal((n, matrix.grid.k))).to(DTYPES[math]), layout)
    b = torch.from_numpy(rng.standard_normal(matrix.grid.m)).float() if bias else None
    plan = plan_of([matrix], math, device(shared, processors))
    packed = plan.pack(values_of([matrix], DTYPES[math]), b)
    expected, found, _ = both_ways(plan, simulated_gpu, seed, lambda: plan.multiply(packed, x, relu=relu))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("math", ["f16", "bf16"])
@FEW
@given(
    problem=problems(),
    n=st.sampled_from([17, 64, 127, 129, 300]),
    cluster=st.sampled_from([2, 4, 8]),
    shared=st.sampled_from([12, 24, 99, 227]),
    seed=seeds,
)
def test_clusters(simulated_gpu, math, problem, n, cluster, shared, seed):
    matrix, _, rng = problem
    x = columns_of(rng, n, matrix.grid.k, DTYPES[math])
    plan = plan_of([matrix], math, device(shared), cluster=cluster)
    packed = plan.pack(values_of([matrix], DTYPES[math]))
    expected, found, launched = both_ways(
        plan, simulated_gpu, seed, lambda: plan.multiply(packed, x, relu=True)
    )
    assert torch.equal(found, expected)
    assert "cluster_kernel" in launched[0]


@pytest.mark.parametrize("math", MATHS)
@FEW
@given(
    groups=st.sampled_from([1, 2]),
    channels=st.sampled_from([3, 4, 8, 16]),
    out=st.integers(1, 40),
    window=st.sampled_from([((1, 1), 1, 0, 1), ((3, 3), 1, 1, 1), ((3, 3), 2, 1, 2), ((1, 3), 2, 0, 1)]),
    images=st.integers(1, 3),
    bh=st.sampled_from([1, 4, 8, 16]),
    bw=st.sampled_from([1, 4, 8]),
    last=st.booleans(),
    seed=seeds,
)
def test_convolutions(simulated_gpu, math, groups, channels, out, window, images, bh, bw, last, seed):
    kernel, stride, padding, dilation = window
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=out, k=kernel[0] * kernel[1] * channels, positions=kernel[0] * kernel[1], bh=bh, bw=bw)
    masks = [drawn_mask(rng, grid.shape, "even") for _ in range(groups)]
    matrices = [
        BsrMatrix.from_dense(
            rng.standard_normal((out, grid.k)).astype(np.float32) * grid.expand(mask), grid, mask
        )
        for mask in masks
    ]
    x = torch.from_numpy(rng.standard_normal((images, groups * channels, 7, 6))).to(DTYPES[math])
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    plan = plan_of(matrices, math, device(99))
    packed = plan.pack(values_of(matrices, DTYPES[math]))
    geometry = {
        "kernel_size": kernel,
        "stride": (stride, stride),
        "padding": (padding, padding),
        "dilation": (dilation, dilation),
    }
    expected, found, _ = both_ways(plan, simulated_gpu, seed, lambda: plan.convolve(packed, x, **geometry))
    assert torch.equal(found, expected)


@FEW
@given(
    data=st.data(),
    n=st.sampled_from([1, 3, 16, 17, 65, 130]),
    dtype=INPUTS,
    shared=st.sampled_from([12, 227]),
    processors=st.sampled_from([1, 132]),
    seed=seeds,
)
def test_products_of_bytes(simulated_gpu, data, n, dtype, shared, processors, seed):
    draw = data.draw
    rng = np.random.default_rng(seed)
    bh, bw = draw(st.sampled_from([1, 4, 8, 16, 32])), draw(st.sampled_from([1, 4, 16, 20]))
    grid = BlockGrid(m=draw(st.integers(1, 150)), k=4 * draw(st.integers(1, 70)), bh=bh, bw=bw)
    matrix = int8_weights(rng, grid, drawn_mask(rng, grid.shape, draw(MASKS)))
    plan = GpuInt8Plan(
        [matrix], device=CPU, limits=device(shared, processors), **draw(epilogues(dtype, grid.m))
    )
    x = torch.from_numpy(random_input(rng, dtype, (n, grid.k)))
    expected, found, _ = both_ways(plan._plan, simulated_gpu, seed, lambda: plan.multiply(x))
    assert torch.equal(found, expected)


def test_every_kernel_is_launched_by_its_name(simulated_gpu):
    """One product for each arithmetic, slab height and kernel; together all entries of all modules."""
    launched = set()
    for math in MATHS:
        for bh in (1, 2, 4, 8, 16, 32):
            mask = np.random.default_rng(bh).random((64 // bh, 9)) < 0.4
            mask[0] = True  # a long slab, whose sum is divided
            matrix = block_matrix(mask, bh, 16)
            for n, cluster in ((5, 1), (70, 1), (70, 2)):
                if cluster > 1 and math in ("f32", "tf32"):
                    continue
                plan = plan_of([matrix], math, device(227), cluster=cluster)
                packed = plan.pack(values_of([matrix], DTYPES[math]))
                x = columns_of(np.random.default_rng(n), n, matrix.grid.k, DTYPES[math])
                expected, found, names = both_ways(
                    plan, simulated_gpu, 0, lambda plan=plan, packed=packed, x=x: plan.multiply(packed, x)
                )
                assert torch.equal(found, expected)
                launched |= set(names)
    for bh in (8, 16):
        grid = BlockGrid(m=64, k=64, bh=bh, bw=16)
        matrix = int8_weights(np.random.default_rng(bh), grid, np.ones(grid.shape, bool))
        plan = GpuInt8Plan([matrix], device=CPU, output="int32")
        for n in (5, 70):
            x = torch.ones((n, 64), dtype=torch.uint8)
            expected, found, names = both_ways(
                plan._plan, simulated_gpu, 0, lambda plan=plan, x=x: plan.multiply(x)
            )
            assert torch.equal(found, expected)
            launched |= set(names)
    entries = {
        name for text in simulated_gpu.modules.values() for name in re.findall(r"\.entry (\w+)\(", text)
    }
    assert launched == entries


# ---- Faults put in: what a GPU would show now and then at most is found every time.


def taken_out(text, entry, pattern, which=None, by=""):
    """An entry's PTX with matches of a pattern replaced: all, or number `which`."""
    begin = re.search(rf"\.entry \w*{entry}\w*\(", text).start()
    following = text.find(".entry ", begin + 1)
    end = len(text) if following < 0 else following
    body = text[begin:end]
    found = list(re.finditer(pattern, body))
    assert found, pattern
    for match in reversed(found if which is None else [found[which]]):
        body = body[: match.start()] + match.expand(by) + body[match.end() :]
    return text[:begin] + body + text[end:]


# Kernels are mangled: Math 2 is f16, 1 is tf32; then the slab's height.
PANEL = ("kernels_f16", "panel_kernelILNS0_4MathE2ELi16")
TF32 = ("kernels_tf32", "panel_kernelILNS0_4MathE1ELi16")
DECODE = ("kernels_f16", "decode_kernelILNS0_4MathE2ELi16")
CLUSTER = ("cluster", "cluster_kernel_ofILNS0_4MathE2ELi16")
NO_WAIT = "setp.eq.u32 p, 0, 0;"
FAULTS = {
    "panel: no barrier after the copies": (*PANEL, r"bar\.sync\s+0;", 0, "", "race|together"),
    "panel: no barrier before the next copies": (*PANEL, r"bar\.sync\s+0;", 1, "", "race|copy"),
    "panel: no wait for copies": (*PANEL, r"cp\.async\.wait_group 1;", None, "", "copy on its way"),
    "panel: a wait for all but two": (
        *(*PANEL, r"cp\.async\.wait_group 1;", None, "cp.async.wait_group 2;"),
        "copy on its way",
    ),
    "panel: copies not committed": (*PANEL, r"cp\.async\.commit_group;", 0, "", "copy on its way"),
    "TF32: no barrier after the copies": (*TF32, r"bar\.sync\s+0;", 0, "", "race"),
    "few columns: lanes not together": (*DECODE, r"bar\.warp\.sync[^;]*;", None, "", "together"),
    "cluster: no wait for the copy engine": (
        *(*CLUSTER, r"mbarrier\.try_wait\.parity\.acquire\.cta\S* p,[^;]*;", None, NO_WAIT),
        "race|copy",
    ),
    "cluster: no wait for the readers": (
        *(*CLUSTER, r"mbarrier\.try_wait\.parity\.acquire\.cluster\S* p,[^;]*;", None, NO_WAIT),
        "race|copy",
    ),
    "cluster: readers say nothing": (
        *(*CLUSTER, r"mbarrier\.arrive\.release\.cluster[^;]*;", None, ""),
        "nobody can go on",
    ),
    "cluster: a wait for the CTA alone": (
        *(*CLUSTER, r"try_wait\.parity\.acquire\.cluster", None, "try_wait.parity.acquire.cta"),
        "acquire.cluster",
    ),
    "cluster: an arrival for the CTA alone": (
        *(*CLUSTER, r"arrive\.release\.cluster\.shared", None, "arrive.release.cta.shared"),
        "release.cluster",
    ),
    "cluster: no fence after the making": (*CLUSTER, r"fence\.mbarrier_init[^;]*;", None, "", "fence"),
    "cluster: no barrier after the making": (
        *(*CLUSTER, r"barrier\.cluster\.(arrive|wait)[^;]*;", None, ""),
        "race|made|fence",
    ),
    "cluster: other bytes than announced": (
        *(*CLUSTER, r"(mbarrier\.arrive\.expect_tx[^;]*), (%r\d+);", None, r"\1, 4096;"),
        r"nobody can go on|race|copy|2\^20|more than the barrier",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_missing_synchronisation_is_a_fault(with_faults, name):
    """40 block columns of 16 with room for few at a time: many chunks pass through two stages."""
    module, entry, pattern, which, by, message = FAULTS[name]
    mask = np.random.default_rng(0).random((40, 40)) < 0.3
    math = "tf32" if module == "kernels_tf32" else "f16"
    matrix = block_matrix(mask, 16, 16)
    cluster = 4 if module == "cluster" else 1
    plan = plan_of([matrix], math, device(24), cluster=cluster)
    packed = plan.pack(values_of([matrix], DTYPES[math]))
    n = 9 if "decode" in entry else 130
    x = columns_of(np.random.default_rng(1), n, matrix.grid.k, DTYPES[math])

    def product():
        return plan.multiply(packed, x)

    expected, found, launched = both_ways(plan, with_faults, 0, product)
    assert torch.equal(found, expected)
    assert entry in launched[0]
    with_faults.load(taken_out(with_faults.modules[module], entry, pattern, which, by))
    for seed in range(5):
        with pytest.raises(PtxError, match=message):
            both_ways(plan, with_faults, seed, product)


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (r"ldmatrix\.sync\.aligned\.m8n8\.x4\.trans", "ldmatrix.sync.aligned.m8n8.x4"),
        (r"(mma\.sync[^{]*\{[^}]*\}, \{)(%r\d+), (%r\d+)", r"\1\3, \2"),
        (r"(ldmatrix[^{]*\{)(%r\d+), (%r\d+)", r"\1\3, \2"),
    ],
    ids=["not transposed", "factors swapped", "matrices swapped"],
)
def test_a_wrong_fragment_shows_in_the_result(with_faults, pattern, by):
    entry = "panel_kernelILNS0_4MathE2ELi16"
    matrix = block_matrix(np.random.default_rng(0).random((5, 9)) < 0.5, 16, 16)
    plan = plan_of([matrix], "f16", device(227))
    packed = plan.pack(values_of([matrix], torch.float16))
    x = columns_of(np.random.default_rng(1), 70, matrix.grid.k, torch.float16)
    with_faults.load(taken_out(with_faults.modules["kernels_f16"], entry, pattern, by=by))
    expected, found, _ = both_ways(plan, with_faults, 0, lambda: plan.multiply(packed, x))
    assert not torch.equal(found, expected)
