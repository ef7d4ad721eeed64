"""Measures one layer on this machine: dense through torch, sparse through pysim's kernel, call by call in
turn.

Both sides use the same number of threads, read the same activations and allocate their own output. Dense is
the fastest form torch offers: NCHW or channels-last convolution, or for a linear layer ``linear`` or
``mm``. The sparse plan is made once, beforehand, as weights do not change in inference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from pysim.lowering import Activation, weight_matrix
from pysim.result import KernelTiming
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockMask, Layer

_ROUNDS = 21
# A sample lasts at least this long, so that the clock's own cost (under 0.1 us) does not matter.
_SAMPLE_SECONDS = 100e-6

Seconds = npt.NDArray[np.float64]
Forms = Mapping[str, Callable[[], Tensor]]


def time_layer(
    layer: Layer, weight: Tensor, activation: Activation, mask: BlockMask | None, *, threads: int
) -> KernelTiming:
    """Times one layer.

    Args:
        layer: What it is.
        weight: Its weight parameter, zeros in the pruned blocks.
        activation: A real input of it and torch's own output for that input.
        mask: The kept blocks; None for a layer that stays dense.
        threads: For both sides.
    """
    forms = _dense_forms(layer, weight.detach(), activation.input)
    if mask is None:
        samples = _interleave(forms)
        form, dense = _fastest(samples)
        median = float(np.median(dense)) * 1e6
        return KernelTiming(
            isa="torch",
            dense_us=median,
            dense_form=form,
            sparse_us=median,
            speedup_quartiles=(1.0, 1.0),
            max_error=0.0,
        )
    matrices = weight_matrix(layer, weight)
    parts = [BsrMatrix.from_dense(w, mask.grid, keep) for w, keep in zip(matrices, mask.keep, strict=True)]
    sparse, isa = _sparse_form(layer, parts, activation.input, threads)
    samples = _interleave({**forms, "pysim": sparse})
    times = samples.pop("pysim")
    form, dense = _fastest(samples)
    low, high = np.quantile(dense / times, (0.25, 0.75))
    return KernelTiming(
        isa=isa,
        dense_us=float(np.median(dense)) * 1e6,
        dense_form=form,
        sparse_us=float(np.median(times)) * 1e6,
        speedup_quartiles=(float(low), float(high)),
        max_error=_error(layer, weight.detach(), activation, sparse()),
    )


def _dense_forms(layer: Layer, weight: Tensor, source: Tensor) -> dict[str, Callable[[], Tensor]]:
    if layer.conv is None:
        columns = source.t().contiguous()
        return {"linear": lambda: linear(source, weight), "mm": lambda: torch.mm(weight, columns)}
    c = layer.conv

    def form(layout: torch.memory_format) -> Callable[[], Tensor]:
        image, kernel = source.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
        return lambda: conv2d(image, kernel, None, c.stride, c.padding, c.dilation, layer.groups)

    return {"nchw": form(torch.contiguous_format), "channels_last": form(torch.channels_last)}


def _sparse_form(
    layer: Layer, parts: list[BsrMatrix], source: Tensor, threads: int
) -> tuple[Callable[[], Tensor], str]:
    if layer.conv is None:
        spmm = SpmmPlan(parts[0], threads=threads)
        columns = source.t().contiguous()
        return lambda: spmm(columns), spmm.isa
    c = layer.conv
    conv = ConvPlan(
        parts,
        kernel_size=c.kernel,
        stride=c.stride,
        padding=c.padding,
        dilation=c.dilation,
        threads=threads,
    )
    planes = source.contiguous()
    return lambda: conv(planes), conv.isa


def _interleave(forms: Forms) -> dict[str, Seconds]:
    """Seconds per call, (rounds,) for each form; in every round each form runs once, in turn."""
    clock = time.perf_counter
    repeats = {}
    with torch.inference_mode():
        for name, call in forms.items():
            call()
            start = clock()
            call()
            repeats[name] = max(1, int(_SAMPLE_SECONDS / max(clock() - start, 1e-9)))
        samples: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(_ROUNDS):
            for name, call in forms.items():
                count = repeats[name]
                start = clock()
                for _ in range(count):
                    call()
                samples[name].append((clock() - start) / count)
    return {name: np.array(times) for name, times in samples.items()}


def _fastest(samples: Mapping[str, Seconds]) -> tuple[str, Seconds]:
    name = min(samples, key=lambda form: float(np.median(samples[form])))
    return name, samples[name]


def _error(layer: Layer, weight: Tensor, activation: Activation, output: Tensor) -> float:
    """Largest difference from torch, as a share of what rounding allows.

    Two float32 sums of the same k products, in whatever order, differ by at most 2 gamma_k sum(abs(w)
    abs(x)) with gamma_k = k u / (1 - k u) and u = 2**-24 (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1).
    """
    magnitude = next(iter(_dense_forms(layer, weight.abs(), activation.input.abs()).values()))()
    expected = activation.output if layer.conv is not None else activation.output.t()
    if layer.conv is None:
        magnitude = magnitude.t()
    u = 2.0**-24
    gamma = (layer.k + 1) * u / (1 - (layer.k + 1) * u)  # one more for the bias that was taken off
    # The magnitudes are themselves rounded: one gamma more covers that.
    allowed = 2 * gamma * (1 + gamma) * magnitude + torch.finfo(torch.float32).tiny
    return float(((output - expected).abs() / allowed).max())
