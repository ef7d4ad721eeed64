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
# An H100, as docs/cuda.md assumes it; nothing here was measured.
PROCESSORS, CLOCK_HZ, L2_BYTES_PER_S = 132, 1.755e9, 5.5e12
FLOPS_OF_MMA = {"f16": 2 * 16 * 8 * 16, "tf32": 2 * 16 * 8 * 8, "f32": 0}
FLOPS_PER_S = {"f16": 590e12, "tf32": 295e12, "f32": 45e12}
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
    packed = plan.pack(torch.from_numpy(matrix.values.copy()).to(dtype))
    plan._plan = Simulated(plan._plan, gpu, 0)
    y = plan.multiply(packed, torch.ones(size, columns, dtype=dtype).t())
    expected = torch.from_numpy(matrix.to_dense().sum(1)).to(dtype)
    if not torch.equal(y, expected.expand_as(y)):
        raise AssertionError(f"{math} {bh} x {bw}: a wrong product")
    return gpu.counts | {"columns": columns}


def main() -> None:
    """Prints a line for each case: what all 4096 columns take, and the time of the slowest part by itself."""
    print(f"{'':24}millions of{'':34}MB{'':13}us if nothing else")
    print("math block   cluster  mma  instr. shared cycles (ideal)   to shared from L2", end="   ")
    print("shared    L2  issue   mma")
    with tempfile.TemporaryDirectory() as folder:
        gpu = build(Path(folder))
        for math, bh, bw, cluster in CASES:
            c = counted(gpu, math, bh, bw, cluster)
            panels = SIZE // c["columns"]
            copied = c["copied_bytes"] * panels
            from_l2 = (c["fetched_bytes"] + 32 * c["missed_sectors"]) * panels
            cycles = c["shared_wavefronts"] * panels + copied / 128
            times = (
                cycles / (PROCESSORS * CLOCK_HZ),
                from_l2 / L2_BYTES_PER_S,
                c["instructions"] * panels / (4 * PROCESSORS * CLOCK_HZ),
                c["products"] * panels * FLOPS_OF_MMA[math] / FLOPS_PER_S[math],
            )
            print(
                f"{math:4} {bh:>2} x {bw:<2} {cluster:>5} {c['products'] * panels / 1e6:8.2f} "
                f"{c['instructions'] * panels / 1e6:7.1f} {cycles / 1e6:10.2f} "
                f"({(c['shared_ideal'] * panels + copied / 128) / 1e6:.2f}) {copied / 1e6:12.0f} "
                f"{from_l2 / 1e6:8.0f} " + " ".join(f"{1e6 * t:7.0f}" for t in times),
                flush=True,
            )


if __name__ == "__main__":
    main()
