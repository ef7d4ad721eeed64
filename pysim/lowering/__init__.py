"""From a network to the matrix products an accelerator runs."""

from pysim.lowering.matrices import input_matrix, other_matrix, output_matrix, weight_matrix
from pysim.lowering.tracer import Activation, trace

__all__ = ["Activation", "input_matrix", "other_matrix", "output_matrix", "trace", "weight_matrix"]
