"""Results for people: reads a result, runs nothing."""

from pysim.report.bench import render_bench
from pysim.report.explain import explain
from pysim.report.figure import check_figure, draw_trade_off, load_trade_off
from pysim.report.gpu_bench import render_gpu_bench
from pysim.report.prune import render_prune
from pysim.report.study import render_study
from pysim.report.table import render

__all__ = [
    "check_figure",
    "draw_trade_off",
    "explain",
    "load_trade_off",
    "render",
    "render_bench",
    "render_gpu_bench",
    "render_prune",
    "render_study",
]
