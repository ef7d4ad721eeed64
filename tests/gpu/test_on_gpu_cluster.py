"""What only a GPU can show of the kernel for clusters.

Behind the other tests, as a mistake here may mean that the GPU waits for ever.
"""

from __future__ import annotations

import pytest
import torch

from tests.gpu.test_on_gpu import (
    DTYPES,
    EMULATED,
    GPU,
    HERE,
    SIZES,
    expected_of,
    plan_of,
    problem,
    real_gpu,
    whole_numbers,
)

HAVE_CLUSTERS = EMULATED or (HERE and torch.cuda.get_device_capability(GPU) == (9, 0))
pytestmark = pytest.mark.skipif(
    not HAVE_CLUSTERS, reason="NO GPU OF COMPUTE CAPABILITY 9.0: these tests have not run"
)


@pytest.mark.parametrize("math", ["f16", "bf16"])
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (8, 8), (16, 16), (64, 64), (16, 1)])
@pytest.mark.parametrize("cluster", [2, 4, 8])
def test_product_of_a_cluster_is_exact_on_integers(math, block, cluster):
    """Many times over: a copy that lands too early or too late need not do so in the first run."""
    for kind in ("even", "skewed"):
        for m, k in SIZES:
            matrix = problem(*block, m, k, kind)
            plan, packed = plan_of(matrix, math, cluster=cluster)
            for n in (24, 128, 520, 2048) if HERE else (24, 136):
                x = whole_numbers(n, k, dtype=DTYPES[math]).to(GPU)
                columns, expected = x.t().contiguous().t(), expected_of(matrix, x)
                for _ in range(10 if HERE else 1):
                    y = plan.multiply(packed, columns)
                    assert plan.last_kernel == "cluster"
                    torch.testing.assert_close(y, expected, rtol=0, atol=0)


@real_gpu
def test_a_captured_graph_of_clusters_computes_on_new_inputs():
    matrix = problem(16, 16, 1000, 1500)
    plan, packed = plan_of(matrix, "f16", cluster=4)
    columns = whole_numbers(1500, 512, dtype=torch.float16).to(GPU)
    plan.multiply(packed, columns.t())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = plan.multiply(packed, columns.t())
    assert plan.last_kernel == "cluster"
    for _ in range(3):
        columns.copy_(whole_numbers(1500, 512, dtype=torch.float16))
        graph.replay()
        torch.testing.assert_close(y, expected_of(matrix, columns.t()), rtol=0, atol=0)
