"""The GPU kernel for clusters of CTAs, whole clusters at a time, in the emulation.

CTAs take turns in a drawn order and copies of the copy engine land early, late or between. That the emulation
notices a missing wait or a wrong byte count was tried by breaking the kernel in seven ways.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pysim.errors import ConfigError
from pysim.sparse import CudaDevice
from pysim.sparse.gpu import GpuPlan
from tests.kernels.test_gpu_emulation import (
    CPU,
    DTYPES,
    FEW,
    block_matrix,
    device,
    plan_of,
    problems,
    values_of,
    whole_numbers,
)

HALF = ["f16", "bf16"]


def columns_of(rng, n, k, dtype):
    """x (n, k) whose columns of W X lie together, rows padded to 16 bytes with NaN."""
    around = torch.full((k, -(-n // 8) * 8), torch.nan, dtype=dtype)
    around[:, :n] = whole_numbers(rng, (k, n), dtype)
    return around[:, :n].t()


@pytest.mark.parametrize("math", HALF)
@FEW
@given(
    problem=problems(),
    n=st.sampled_from([17, 64, 120, 127, 128, 129, 136, 300]),
    cluster=st.sampled_from([2, 4, 8]),
    bias=st.booleans(),
    relu=st.booleans(),
    shared=st.sampled_from([12, 24, 99, 227]),
)
def test_product_is_exact_on_integers(math, problem, n, cluster, bias, relu, shared):
    matrix, w, rng = problem
    dtype = DTYPES[math]
    x = columns_of(rng, n, matrix.grid.k, dtype)
    b = whole_numbers(rng, matrix.grid.m, torch.float32) if bias else None
    plan = plan_of([matrix], math, device(shared), cluster=cluster)
    packed = plan.pack(values_of([matrix], dtype), b)
    expected = x.double() @ torch.from_numpy(w).double().t() + (0 if b is None else b)
    if relu:
        expected = expected.clamp(min=0)
    torch.testing.assert_close(plan.multiply(packed, x, relu=relu), expected.to(dtype), rtol=0, atol=0)
    assert plan.last_kernel == "cluster"


@pytest.mark.parametrize("cluster", [2, 4, 8])
@pytest.mark.parametrize("bh", [8, 16])
def test_many_chunks_pass_through_two_stages(cluster, bh):
    """40 block columns of 16 with room for few at a time; 40 slabs, so that the last cluster is not full."""
    mask = np.random.default_rng(0).random((40 * 16 // bh, 40)) < 0.3
    matrix = block_matrix(mask, bh, 16)
    plan = plan_of([matrix], "f16", device(24), cluster=cluster)
    assert plan.facts["stages"] == 2
    assert plan.facts["groups"] % cluster == 0
    x = columns_of(np.random.default_rng(1), 260, 640, torch.float16)
    expected = x.double() @ torch.from_numpy(matrix.to_dense()).double().t()
    y = plan.multiply(plan.pack(values_of([matrix], torch.float16)), x)
    torch.testing.assert_close(y, expected.half(), rtol=0, atol=0)


def test_groups_of_one_cluster_fetch_the_same_rows():
    """Two slabs of 16 for each of 16 warps: with 2 CTAs one cluster, whose panel both need."""
    matrix = block_matrix(np.ones((32, 3), bool), 16, 16)
    assert plan_of([matrix], "f16", device(227), cluster=2).facts["groups"] == 2
    assert plan_of([matrix], "f16", device(227), cluster=8).facts["groups"] == 8  # six of them empty


@pytest.mark.parametrize(
    ("layout", "kernel"),
    [
        ("columns", "cluster"),
        ("tokens", "panel"),
        ("columns at an odd place", "panel"),
        ("columns whose last copy would leave the storage", "panel"),
        ("few", "few columns"),
    ],
)
def test_x_that_the_copy_engine_cannot_fetch_takes_another_kernel(layout, kernel):
    matrix = block_matrix(np.random.default_rng(0).random((20, 9)) < 0.5, 16, 16)
    plan = plan_of([matrix], "bf16", device(24), cluster=4)
    n = 5 if layout == "few" else 100
    x = columns_of(np.random.default_rng(1), n, 144, torch.bfloat16)
    if layout == "tokens":
        x = x.contiguous()
    elif layout == "columns at an odd place":
        wide = torch.zeros(144, 112, dtype=torch.bfloat16)
        wide[:, 1:101] = x.t()
        x = wide[:, 1:101].t()
    elif layout == "columns whose last copy would leave the storage":
        flat = torch.zeros(143 * 104 + 100, dtype=torch.bfloat16)
        cut = flat.as_strided((144, 100), (104, 1))
        cut.copy_(x.t())
        x = cut.t()
    expected = x.double() @ torch.from_numpy(matrix.to_dense()).double().t()
    y = plan.multiply(plan.pack(values_of([matrix], torch.bfloat16)), x)
    torch.testing.assert_close(y, expected.bfloat16(), rtol=0, atol=0)
    assert plan.last_kernel == kernel


def test_clusters_that_have_no_kernel_are_refused():
    matrix = block_matrix(np.ones((2, 2), bool), 16, 16)
    for math, cluster in (("f32", 2), ("tf32", 4), ("f16", 3), ("f16", 16), ("f16", 0)):
        with pytest.raises(ConfigError, match="a cluster of 1, or of 2, 4 or 8 in f16 or bf16"):
            plan_of([matrix], math, device(99), cluster=cluster)
    old = CudaDevice(name="old", capability=(8, 0), processors=4, shared_bytes=99 * 1024)
    indices = [(matrix.row_ptr, matrix.col_idx)]
    with pytest.raises(ConfigError, match=r"expected compute capability 9.0 for clusters, got 8.0"):
        GpuPlan(matrix.grid, indices, math="f16", device=CPU, cluster=2, limits=old)
