"""The figure of the kernels' benchmark has a bar for every block and n; equal results give equal files."""

import re

import pytest

from pysim.errors import ConfigError
from pysim.report import draw_bench, render_bench
from pysim.result import KernelBench, KernelBenchRow


def row(block, n, quartiles, gflops=50.0):
    return KernelBenchRow(
        block=block,
        n=n,
        dense_us=10.0,
        sparse_us=5.0,
        speedup_quartiles=quartiles,
        gflops=gflops,
        max_error=0.1,
        peers={},
    )


BENCH = KernelBench(
    m=64,
    k=64,
    sparsity=0.9,
    dtype="float32",
    isa="avx2",
    threads=1,
    peak_gflops=200.0,
    seed=0,
    versions={"torch": "0"},
    rows=tuple(row(block, n, (1.0, 2.0, 4.0)) for block in ((1, 1), (4, 4), (1, 16)) for n in (1, 64)),
)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_results_give_the_same_file(tmp_path, kind):
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        draw_bench(BENCH, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_there_is_a_bar_for_every_block_and_n(tmp_path):
    out = tmp_path / "bench.svg"
    draw_bench(BENCH, out)
    bars = re.findall(r'id="patch_\d+"', out.read_text())
    assert len(bars) >= len(BENCH.rows)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="png or"):
        draw_bench(BENCH, tmp_path / "bench.pdf")


def test_the_table_shows_the_share_of_the_peak():
    text = render_bench(BENCH)
    assert "25%" in text  # 50 of 200
    assert "peak: 200 GFLOP/s" in text
