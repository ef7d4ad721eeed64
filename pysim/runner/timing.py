"""Measures layers on this machine: dense through torch, sparse through pysim's kernel, sample by sample in
turn.

A form's time is the first quartile of its rounds: what the machine does when little else runs on it. A median
is off by a thousand times once other work holds a core in half of the rounds, because an OpenMP barrier waits
for it.

Both sides use the same number of threads, read the same activations and allocate their own output. Dense is
the fastest form torch offers: NCHW or channels-last convolution, or for a linear layer ``linear`` or
``mm``. The sparse plan is made once, beforehand, as weights do not change in inference. Every sample follows
untimed calls of the same form, so that each library finds its own threads awake and the other's asleep.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from pysim.lowering import Activation, weight_matrix
from pysim.result import KernelTiming, OneCallTiming
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.sparse import compile as compile_network
from pysim.training import Progress, no_progress
from pysim.workload import BlockMask, Layer

_ROUNDS = 9
# A sample is as many calls as take this long, at least one; the clock's share is under 0.1 us a call.
_SAMPLE_SECONDS = 200e-6
# Untimed calls before a sample last this long. An OpenMP library's idle threads spin for milliseconds after
# its last call, on the very cores that pysim's threads need; pysim's own look for work for microseconds.
_SETTLE_SECONDS = 0.3e-3
_SETTLE_AFTER_OPENMP_SECONDS = 5e-3
PYSIM = "pysim"

Seconds = npt.NDArray[np.float64]
Forms = Mapping[str, Callable[[], object]]


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
    forms = dense_forms(layer, weight.detach(), activation.input)
    if mask is None:
        samples = interleave(forms)
        form, dense = fastest(samples)
        dense_us = typical(dense) * 1e6
        return KernelTiming(
            isa="torch",
            dense_us=dense_us,
            dense_form=form,
            sparse_us=dense_us,
            speedup_quartiles=(1.0, 1.0),
            max_error=0.0,
        )
    matrices = weight_matrix(layer, weight)
    parts = [BsrMatrix.from_dense(w, mask.grid, keep) for w, keep in zip(matrices, mask.keep, strict=True)]
    sparse, isa = _sparse_form(layer, parts, activation.input, threads)
    samples = interleave({**forms, PYSIM: sparse})
    times = samples.pop(PYSIM)
    form, dense = fastest(samples)
    low, high = np.quantile(dense / times, (0.25, 0.75))
    return KernelTiming(
        isa=isa,
        dense_us=typical(dense) * 1e6,
        dense_form=form,
        sparse_us=typical(times) * 1e6,
        speedup_quartiles=(float(low), float(high)),
        max_error=rounding_error(layer, weight.detach(), activation, sparse()),
    )


def time_layers(
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    activations: Mapping[str, Activation],
    masks: Mapping[str, BlockMask],
    *,
    threads: int,
    progress: Progress = no_progress,
) -> Iterator[KernelTiming | None]:
    """Times a network's layers one after the other; None for a product of two activations.

    Args:
        layers: In order.
        weights: By name.
        activations: By layer.
        masks: By weight's name; a layer without one stays dense.
        threads: For both sides; torch's own number is restored afterwards.
        progress: Told how many layers are done.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for done, layer in enumerate(layers, start=1):
            if layer.weight is None:
                yield None
                continue
            mask = masks.get(layer.weight)
            yield time_layer(layer, weights[layer.weight], activations[layer.name], mask, threads=threads)
            progress("timing kernels", done, len(layers))
    finally:
        torch.set_num_threads(before)


def time_network(
    model: nn.Module, masks: Mapping[str, BlockMask], image: Tensor, *, threads: int
) -> OneCallTiming:
    """Times a pruned network: PyTorch operator by operator, one native call of it, and of the dense network.

    Args:
        model: Pruned, in evaluation mode.
        masks: By weight's name.
        image: A batch of inputs.
        threads: For all; torch's own number is restored afterwards.

    Raises:
        ModelError: ``pysim.compile`` does not know one of the network's operators.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sparse = compile_network(model, image, threads=threads)
        dense = compile_network(_unpruned(model, masks), image, threads=threads)
        samples = interleave(
            {
                "nchw": _eager(model, image, torch.contiguous_format),
                "channels_last": _eager(model, image, torch.channels_last),
                f"{PYSIM} dense": lambda: dense(image),
                PYSIM: lambda: sparse(image),
            }
        )
    finally:
        torch.set_num_threads(before)
    times, dense_times = samples.pop(PYSIM), samples.pop(f"{PYSIM} dense")
    form, eager = fastest(samples)
    low, high = np.quantile(eager / times, (0.25, 0.75))
    return OneCallTiming(
        eager_us=typical(eager) * 1e6,
        eager_form=form,
        dense_us=typical(dense_times) * 1e6,
        sparse_us=typical(times) * 1e6,
        speedup_quartiles=(float(low), float(high)),
    )


def _eager(model: nn.Module, image: Tensor, layout: torch.memory_format) -> Callable[[], object]:
    laid_out = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]
    source = image.contiguous(memory_format=layout)
    return lambda: laid_out(source)


def _unpruned(model: nn.Module, masks: Mapping[str, BlockMask]) -> nn.Module:
    """A copy with small numbers in place of zeros: time does not depend on their values."""
    whole = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in whole.named_parameters():
            if name in masks:
                weight[weight == 0] = 1e-3
    return whole


def dense_forms(layer: Layer, weight: Tensor, source: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every way torch offers to compute the layer, where its weight and input are."""
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


def interleave(forms: Forms) -> dict[str, Seconds]:
    """Seconds per call, (rounds,) for each form; in every round each form is sampled once, in turn."""
    samples: dict[str, list[float]] = {name: [] for name in forms}
    with torch.inference_mode():
        for call in forms.values():
            call()
        for _ in range(_ROUNDS):
            for name, call in forms.items():
                settle = _SETTLE_AFTER_OPENMP_SECONDS if name.startswith(PYSIM) else _SETTLE_SECONDS
                _seconds_per_call(call, settle)
                samples[name].append(_seconds_per_call(call, _SAMPLE_SECONDS))
    return {name: np.array(times) for name, times in samples.items()}


def _seconds_per_call(call: Callable[[], object], least_seconds: float) -> float:
    """Calls until that much time has passed."""
    clock = time.perf_counter
    start = now = clock()
    calls = 0
    while now - start < least_seconds:
        call()
        calls += 1
        now = clock()
    return (now - start) / calls


def fastest(samples: Mapping[str, Seconds]) -> tuple[str, Seconds]:
    name = min(samples, key=lambda form: typical(samples[form]))
    return name, samples[name]


def typical(seconds: Seconds) -> float:
    """The first quartile."""
    return float(np.quantile(seconds, 0.25))


def rounding_error(layer: Layer, weight: Tensor, activation: Activation, output: Tensor) -> float:
    """Largest difference from torch, as a share of what rounding allows.

    Two float32 sums of the same k products, in whatever order, differ by at most 2 gamma_k sum(abs(w)
    abs(x)) with gamma_k = k u / (1 - k u) and u = 2**-24 (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1).
    """
    magnitude = next(iter(dense_forms(layer, weight.abs(), activation.input.abs()).values()))()
    expected = activation.output if layer.conv is not None else activation.output.t()
    if layer.conv is None:
        magnitude = magnitude.t()
    u = 2.0**-24
    gamma = (layer.k + 1) * u / (1 - (layer.k + 1) * u)  # one more for the bias that was taken off
    # The magnitudes are themselves rounded: one gamma more covers that.
    allowed = 2 * gamma * (1 + gamma) * magnitude + torch.finfo(torch.float32).tiny
    return float(((output - expected).abs() / allowed).max())
