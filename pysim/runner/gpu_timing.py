"""Measures layers on a GPU: dense through torch, which is cuBLAS and cuDNN, sparse through pysim's kernels.

Times are those between two events on the GPU around as many calls as take some milliseconds; all forms are
sampled in turn, as on the CPU. Float32 is exact on both sides: TF32 is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pysim.errors import ConfigError
from pysim.lowering import Activation, weight_matrix
from pysim.result import KernelTiming
from pysim.runner.timing import PYSIM, Forms, Seconds, dense_forms, fastest, rounding_error, typical
from pysim.sparse import BsrMatrix
from pysim.sparse.clock import seconds_of
from pysim.sparse.gpu import GpuPlan, usable_device
from pysim.training import Progress, no_progress
from pysim.workload import BlockMask, Layer

_ROUNDS = 9
# Long enough that an event's resolution of half a microsecond does not matter.
_SAMPLE_SECONDS = 3e-3


def gpu_device() -> torch.device:
    """The GPU that torch uses, if pysim can use it too.

    Raises:
        ConfigError: It cannot, or torch cannot; the message says why.
    """
    usable_device(torch.device("cuda"))
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device: expected a PyTorch that sees the GPU, got {torch.__version__}",
            hint="Install PyTorch built for CUDA.",
        )
    device = torch.device("cuda", torch.cuda.current_device())
    usable_device(device)
    return device


def interleave_on(device: torch.device, forms: Forms) -> dict[str, Seconds]:
    """Seconds per call, (rounds,) for each form; in every round each form is sampled once, in turn."""
    repeats = {}
    with torch.inference_mode():
        for name, call in forms.items():
            seconds_of(call, 3, device)
            once = max(seconds_of(call, 3, device) / 3, 1e-9)
            repeats[name] = max(1, min(10_000, int(_SAMPLE_SECONDS / once)))
        samples: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(_ROUNDS):
            for name, call in forms.items():
                samples[name].append(seconds_of(call, repeats[name], device) / repeats[name])
    return {name: np.array(times) for name, times in samples.items()}


def time_layer_on(
    device: torch.device, layer: Layer, weight: Tensor, activation: Activation, mask: BlockMask | None
) -> KernelTiming:
    """Times one layer on a GPU, float32.

    Args:
        device: The GPU; the CPU runs the emulation, for tests.
        layer: What it is.
        weight: Its weight parameter, on the CPU, zeros in the pruned blocks.
        activation: A real input of it and torch's own output for that input, on the CPU.
        mask: The kept blocks; None for a layer that stays dense.
    """
    there = Activation(input=activation.input.to(device), output=activation.output)
    forms: dict[str, Callable[[], object]] = dict(dense_forms(layer, weight.detach().to(device), there.input))
    if mask is None:
        form, dense = fastest(interleave_on(device, forms))
        us = typical(dense) * 1e6
        return KernelTiming(
            isa="torch",
            dense_us=us,
            dense_form=form,
            sparse_us=us,
            speedup_quartiles=(1.0, 1.0),
            max_error=0.0,
        )
    sparse = _sparse_form(device, layer, weight, mask, there.input)
    forms[PYSIM] = sparse
    samples = interleave_on(device, forms)
    times = samples.pop(PYSIM)
    form, dense = fastest(samples)
    low, high = np.quantile(dense / times, (0.25, 0.75))
    output = sparse().cpu()
    gpu = usable_device(device)
    return KernelTiming(
        isa=f"sm_{gpu.capability[0]}{gpu.capability[1]}",
        dense_us=typical(dense) * 1e6,
        dense_form=form,
        sparse_us=typical(times) * 1e6,
        speedup_quartiles=(float(low), float(high)),
        max_error=rounding_error(
            layer, weight.detach(), activation, output if layer.conv is not None else output.t()
        ),
    )


def time_layers_on(
    device: torch.device,
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    activations: Mapping[str, Activation],
    masks: Mapping[str, BlockMask],
    *,
    progress: Progress = no_progress,
) -> Iterator[KernelTiming | None]:
    """Times a network's layers one after the other; None for a product of two activations."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for done, layer in enumerate(layers, start=1):
            if layer.weight is None:
                yield None
                continue
            mask = masks.get(layer.weight)
            yield time_layer_on(device, layer, weights[layer.weight], activations[layer.name], mask)
            progress("timing kernels on the GPU", done, len(layers))
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _sparse_form(
    device: torch.device, layer: Layer, weight: Tensor, mask: BlockMask, source: Tensor
) -> Callable[[], Tensor]:
    matrices = weight_matrix(layer, weight)
    parts = [BsrMatrix.from_dense(w, mask.grid, keep) for w, keep in zip(matrices, mask.keep, strict=True)]
    plan = GpuPlan(
        mask.grid,
        [(part.row_ptr, part.col_idx) for part in parts],
        math="f32",
        device=device,
        columns=layer.n,
    )
    values = torch.from_numpy(np.concatenate([part.values for part in parts])).to(device)
    packed = plan.pack(values)
    c = layer.conv
    if c is None:
        return lambda: plan.multiply(packed, source)
    image = source.contiguous(memory_format=torch.channels_last)
    return lambda: plan.convolve(
        packed,
        image,
        kernel_size=c.kernel,
        stride=c.stride,
        padding=c.padding,
        dilation=c.dilation,
    )
