"""What the compiled kernels do for the product of docs/cuda.md: counted in software, not timed.

    python -m tests.ptx

W is 4096 x 4096, one block in ten kept, X has one panel of columns. Needs nvcc; takes some minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from pysim.sparse import BsrMatrix
from pysim.sparse.gpu import EMULATED, GpuPlan
from pysim.workload import BlockGrid
from tests.ptx.simulated import Gpu, Simulated, build

SIZE, DENSITY = 4096, 0.1
CASES = [
    *(("f16", bh, bw, cluster) for bh, bw in ((4, 4), (8, 8), (16, 16), (32, 32)) for cluster in (1, 4)),
    ("f16", 16, 1, 1),
    ("tf32", 16, 16, 1),
    ("tf32", 16, 4, 1),
    ("f32", 4, 4, 1),
    ("f32", 8, 8, 1),
]


def counted(gpu: Gpu, math: str, bh: int, bw: int, cluster: int, size: int = SIZE) -> dict[str, int]:
    """Counts of one panel of columns, 64, or 128 in clusters and in float32."""
    grid = BlockGrid(m=size, k=size, bh=bh, bw=bw)
    mask = np.random.default_rng(0).random(grid.shape) < DENSITY
    matrix = BsrMatrix.from_dense(grid.expand(mask).astype(np.float32), grid, mask)
    dtype = torch.float16 if math == "f16" else torch.float32
    columns = 128 if cluster > 1 or math == "f32" else 64
    plan = GpuPlan(
        grid,
        [(matrix.row_ptr, matrix.col_idx)],
        math=math,
        device=torch.device("cpu"),
        columns=size,
        cluster=cluster,
        limits=EMULATED,
    )
    packed = plan.pack(torch.from_numpy(matrix.values).to(dtype))
    plan._plan = Simulated(plan._plan, gpu, 0)
    y = plan.multiply(packed, torch.ones(size, columns, dtype=dtype).t())
    expected = torch.from_numpy(matrix.to_dense().sum(1)).to(dtype)
    if not torch.equal(y, expected.expand_as(y)):
        raise AssertionError(f"{math} {bh} x {bw}: a wrong product")
    return gpu.counts | {"columns": columns}


def main() -> None:
    """Prints one line for each case, in millions for all 4096 columns."""
    print("math  block  cluster     mma  shared cycles  without conflicts  into shared MB  read MB")
    with tempfile.TemporaryDirectory() as folder:
        gpu = build(Path(folder))
        for math, bh, bw, cluster in CASES:
            c = counted(gpu, math, bh, bw, cluster)
            panels = SIZE // c["columns"] / 1e6
            read = c["fetched_bytes"] + 32 * c["global_read_sectors"]
            print(
                f"{math:5} {bh:>2} x {bw:<2} {cluster:>5} {c['products'] * panels:9.2f} "
                f"{c['shared_wavefronts'] * panels:14.2f} {c['shared_ideal'] * panels:18.2f} "
                f"{c['copied_bytes'] * panels:15.0f} {read * panels:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
