"""Results for people: reads a result, runs nothing."""

from pysim.report.explain import explain
from pysim.report.prune import render_prune
from pysim.report.study import render_study
from pysim.report.table import render

__all__ = ["explain", "render", "render_prune", "render_study"]
