"""A little of every kernel, for compute-sanitizer: python -m tests.gpu.sanitized."""

from __future__ import annotations

import torch

from pysim.sparse import BsrConv2d, Int8SpmmPlan
from pysim.sparse.gpu_int8 import GpuInt8Plan
from tests.gpu.test_on_gpu import (
    DTYPES,
    GPU,
    HERE,
    expected_of,
    plan_of,
    problem,
    whole_numbers,
)
from tests.gpu.test_on_gpu_cluster import HAVE_CLUSTERS
from tests.gpu.test_on_gpu_int8 import problem as int8_problem
from tests.gpu.test_on_gpu_int8 import random_input


def main() -> None:
    for math, dtype in DTYPES.items():
        for block in ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16)):
            matrix = problem(*block, 150, 330, "skewed")
            plan, packed = plan_of(matrix, math)
            for n in (1, 16, 70, 72):
                x = whole_numbers(n, 330, dtype=dtype).to(GPU)
                for source in (x, x.t().contiguous().t()):
                    y = plan.multiply(packed, source)
                    torch.testing.assert_close(y, expected_of(matrix, x), rtol=0, atol=0)
    if HERE and HAVE_CLUSTERS:
        matrix = problem(16, 16, 600, 1500)
        columns = whole_numbers(200, 1500, dtype=torch.float16).to(GPU).t().contiguous().t()
        for cluster in (2, 4, 8):
            plan, packed = plan_of(matrix, "f16", cluster=cluster)
            y = plan.multiply(packed, columns)
            torch.testing.assert_close(y, expected_of(matrix, columns), rtol=0, atol=0)
    for bh in (4, 16):
        small = int8_problem(bh, 16, 150, 1, 336)
        bytes_plan = GpuInt8Plan([small], device=GPU)
        for n in (1, 16, 70):
            tokens = random_input("uint8", n, 336)
            result = bytes_plan.multiply(tokens.to(GPU)).cpu()
            assert torch.equal(result, Int8SpmmPlan(small)(tokens.t().contiguous()).t())
    layer = BsrConv2d.from_dense(torch.nn.Conv2d(16, 32, 3, padding=1), (8, 8)).to(GPU)
    for layout in (torch.contiguous_format, torch.channels_last):
        layer(torch.randn(2, 16, 9, 9, device=GPU).contiguous(memory_format=layout))
    if GPU.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
