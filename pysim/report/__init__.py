"""Results for people: reads a result, runs nothing."""

from pysim.report.bench import render_bench
from pysim.report.bench_figure import draw_bench
from pysim.report.explain import explain
from pysim.report.figure import check_figure, draw_trade_off, load_trade_off
from pysim.report.gpu_bench import render_gpu_bench
from pysim.report.prune import render_prune
from pysim.report.study import render_measured, render_study
from pysim.report.table import render
from pysim.report.tune import render_tuning

__all__ = [
    "check_figure",
    "draw_bench",
    "draw_trade_off",
    "explain",
    "load_trade_off",
    "render",
    "render_bench",
    "render_gpu_bench",
    "render_measured",
    "render_prune",
    "render_study",
    "render_tuning",
]
