"""A pruned model to one that computes kept blocks only, in the layers where that is measured to be faster."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, ModelError
from pysim.result import Tuning
from pysim.sparse.clock import seconds_of
from pysim.sparse.conv2d import BsrConv2d
from pysim.sparse.linear import BsrLinear
from pysim.sparse.tuning import load_tuning
from pysim.workload import BlockGrid, BlockMask

# Blocks that are tried where none is given, largest first.
_BLOCKS = (16, 8, 4, 2, 1)
# A larger block makes better use of registers: it may store this many times the weights of the thriftiest.
_STORED_MORE = 1.1
_ROUNDS = 21
# A sample lasts at least this long, so that the clock's own cost does not matter.
_SAMPLE_SECONDS = 100e-6

# Break-evens were measured on large matrices. In smaller ones the cost of a call decides, so they are timed.
_LEAST_WEIGHTS = 1 << 17
_MOST_THREADS = 256
_DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16, torch.bfloat16)}

_Dense = nn.Linear | nn.Conv2d
_Sparse = BsrLinear | BsrConv2d


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """What became of one linear or convolution layer.

    Args:
        name: Its path in the model.
        sparse: Whether it was replaced.
        reason: Why, in words.
        block: Height and width of its blocks; None if it was never considered.
        density: Kept blocks over all blocks, 0 to 1; 1 if it was never considered.
        dense_us: Median time of the dense layer on the example, microseconds; None if not measured.
        sparse_us: The same of the sparse layer.
        speedup_quartiles: First and third quartile of dense over sparse time, round by round.
    """

    name: str
    sparse: bool
    reason: str
    block: tuple[int, int] | None = None
    density: float = 1.0
    dense_us: float | None = None
    sparse_us: float | None = None
    speedup_quartiles: tuple[float, float] | None = None

    def __str__(self) -> str:
        cut = "" if self.block is None else f", {self.block[0]}x{self.block[1]}, {self.density:.0%} kept"
        return f"{self.name}: {'sparse' if self.sparse else 'dense'}{cut}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A model whose pruned layers are block-sparse, and what was decided for each layer.

    Args:
        model: A copy; the original is as it was.
        layers: In the order of the model's modules.
    """

    model: nn.Module
    layers: tuple[LayerChoice, ...]

    def __str__(self) -> str:
        return "\n".join(str(layer) for layer in self.layers)


def compress(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    masks: Mapping[str, BlockMask] | None = None,
    block: tuple[int, int] | None = None,
    only_if_faster: bool = True,
    use_tuning: bool = True,
) -> Compressed:
    """Replaces pruned ``nn.Linear`` and ``nn.Conv2d`` layers by block-sparse ones.

    Each candidate is timed against its dense self on what it receives for ``example``, call by call in turn,
    with ``torch.get_num_threads()`` threads. It is replaced if it is faster in three of four rounds.

    If ``pysim tune`` has measured this machine, linear layers that are clearly below its break-even sparsity
    stay dense without being timed; no layer is replaced on its word alone.

    Args:
        model: float32 on the CPU, or float32, float16 or bfloat16 on a GPU, with zeros where it is pruned.
            Left as it is.
        example: One input, of the size that matters; a tuple is several arguments.
        masks: Weight name to kept blocks, as pruning returned them. Layers without one stay dense.
        block: Height and width of the blocks to look for. Default, without masks: for each layer the largest
            of 16, 8, 4, 2, 1 square that stores at most a tenth more weights than the thriftiest.
        only_if_faster: False replaces every pruned layer and measures nothing.
        use_tuning: False times every candidate, whatever ``pysim tune`` found.

    Returns:
        The new model and a choice for every linear and convolution layer.

    Raises:
        ConfigError: Both ``masks`` and ``block`` are given, or a mask names no weight.
        ModelError: The model cannot be copied.
        ShapeError: A mask does not fit its weight.
    """
    if masks is not None and block is not None:
        raise ConfigError("compress: expected masks or block, got both")
    try:
        new = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"compress: expected a model that can be copied: {error}",
            hint="torch.nn.utils.prune.remove makes pruned weights plain parameters again.",
        ) from error
    layers = {name: m for name, m in new.named_modules() if isinstance(m, _Dense)}
    for weight in masks or ():
        if weight.removesuffix(".weight") not in layers:
            raise ConfigError(
                f"compress: expected masks of linear or convolution weights, got one of {weight}"
            )
    inputs = _record_inputs(new, layers, example)
    shared = shared_parameters(new)
    threads = min(torch.get_num_threads(), _MOST_THREADS)
    tuning = load_tuning(threads) if use_tuning and only_if_faster else None
    replacements: dict[nn.Module, nn.Module] = {}
    choices = []
    for name, layer in layers.items():
        choice, sparse = _choose(
            name,
            layer,
            inputs.get(name),
            reason=why_not(layer, shared, called=name in inputs),
            mask=None if masks is None else masks.get(f"{name}.weight"),
            blocks=() if masks is not None else ((block,) if block else tuple((b, b) for b in _BLOCKS)),
            only_if_faster=only_if_faster,
            tuning=tuning,
        )
        choices.append(choice)
        if sparse is not None:
            replacements[layer] = sparse
    return Compressed(model=_replace(new, replacements), layers=tuple(choices))


def _record_inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor | tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """What each layer receives at its first call; layers that are not called are absent."""
    inputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            source = args[0] if args else kwargs.get("input")
            if isinstance(source, Tensor) and name not in inputs:
                inputs[name] = source.detach().clone()  # what runs next may work in place

        return record

    handles = [
        layer.register_forward_pre_hook(recorder(name), with_kwargs=True) for name, layer in layers.items()
    ]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in handles:
            handle.remove()
    return inputs


def shared_parameters(model: nn.Module) -> set[int]:
    """Identities of parameters that stand in more than one module."""
    seen = Counter(
        id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False)
    )
    return {identity for identity, count in seen.items() if count > 1}


def why_not(layer: _Dense, shared: set[int], *, called: bool) -> str | None:
    """Why a layer cannot be replaced whatever its weight; None if it can."""
    if type(layer) not in (nn.Linear, nn.Conv2d):
        return f"{type(layer).__name__} may do more than its base class"
    if "weight" not in layer._parameters:
        return "its weight is computed from others (torch.nn.utils.prune.remove makes it plain)"
    if any(id(parameter) in shared for parameter in layer.parameters()):
        return "another module shares its parameters"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        return "it has hooks"
    if len({(p.dtype, p.device) for p in layer.parameters()}) != 1:
        return "its parameters are of several types or on several devices"
    if layer.weight.dtype not in _DTYPES.get(layer.weight.device.type, ()):
        return "it is not float32 on the CPU, nor float32, float16 or bfloat16 on a GPU"
    if not called:
        return "the example did not call it as a module"
    return None


def _choose(
    name: str,
    layer: _Dense,
    source: Tensor | None,
    *,
    reason: str | None,
    mask: BlockMask | None,
    blocks: tuple[tuple[int, int], ...],
    only_if_faster: bool,
    tuning: Tuning | None,
) -> tuple[LayerChoice, _Sparse | None]:
    if reason is not None or source is None:
        return LayerChoice(name=name, sparse=False, reason=reason or "it was not called"), None
    sparse = _sparse_layer(layer, mask, blocks)
    if sparse is None:
        return LayerChoice(name=name, sparse=False, reason="it is not pruned"), None
    block = sparse.grid.bh, sparse.grid.bw
    if not only_if_faster:
        choice = LayerChoice(
            name=name, sparse=True, reason="as asked for", block=block, density=sparse.density
        )
        return choice, sparse
    hopeless = None if tuning is None else _below_break_even(sparse, source, tuning)
    if hopeless is not None:
        return LayerChoice(
            name=name, sparse=False, reason=hopeless, block=block, density=sparse.density
        ), None
    seconds = _measure(layer, sparse, source)
    low, high = np.quantile(seconds[0] / seconds[1], (0.25, 0.75))
    dense_us, sparse_us = (float(np.median(times)) * 1e6 for times in seconds)
    faster = bool(low > 1)
    choice = LayerChoice(
        name=name,
        sparse=faster,
        reason=f"{'' if faster else 'not reliably faster: '}{sparse_us:.1f} us, dense {dense_us:.1f} us",
        block=block,
        density=sparse.density,
        dense_us=dense_us,
        sparse_us=sparse_us,
        speedup_quartiles=(float(low), float(high)),
    )
    return choice, sparse if faster else None


def _below_break_even(sparse: _Sparse, source: Tensor, tuning: Tuning) -> str | None:
    """Why a linear layer is not worth timing; None if it is, or if nothing like it was measured."""
    if not isinstance(sparse, BsrLinear) or sparse.grid.m * sparse.grid.k < _LEAST_WEIGHTS:
        return None
    found = tuning.break_even(sparse.grid.bh, source.numel() // sparse.in_features)
    pruned = 1 - sparse.density
    if found is None or pruned >= found.sparsity[0]:
        return None
    low, _, high = (100 * share for share in found.sparsity)
    return f"{100 * pruned:.0f} % pruned, break-even {low:.0f} to {high:.0f} % (pysim tune; not timed)"


def _sparse_layer(
    layer: _Dense, mask: BlockMask | None, blocks: tuple[tuple[int, int], ...]
) -> _Sparse | None:
    """The layer with its kept blocks; None if all blocks are kept."""
    cls = BsrConv2d if isinstance(layer, nn.Conv2d) else BsrLinear
    if mask is not None:
        mask.grid.check_order("compress")
        block, keep = (mask.grid.bh, mask.grid.bw), mask.keep
    elif blocks:
        found = {block: _nonzero_blocks(layer, block) for block in blocks}
        least = min(stored for _, stored in found.values())
        block = next(block for block, (_, stored) in found.items() if stored <= _STORED_MORE * least)
        keep = found[block][0]
    else:
        return None
    if keep.all():
        return None
    # Blocks are cut on the CPU, in float32, which holds the others' values exactly.
    ready = layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32
    plain = layer if ready else copy.deepcopy(layer).float().cpu()
    sparse: _Sparse = cls.from_dense(plain, block, keep).to(layer.weight)  # type: ignore[arg-type]
    for mine, old in ((sparse.values, layer.weight), (sparse.bias, layer.bias)):
        if mine is not None and old is not None:
            mine.requires_grad_(old.requires_grad)
    return sparse


def _nonzero_blocks(layer: _Dense, block: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], int]:
    """(groups, block rows, block columns) that hold a nonzero weight, and the weights in those blocks."""
    weight = layer.weight.detach().float().cpu().numpy()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    if weight.ndim == 4:
        weight = weight.transpose(0, 2, 3, 1)
    rows = weight.reshape(groups, len(weight) // groups, -1)
    grid = BlockGrid(
        m=rows.shape[1],
        k=rows.shape[2],
        positions=int(np.prod(layer.weight.shape[2:])),
        bh=block[0],
        bw=block[1],
    )
    keep = np.stack([grid.nonzero_blocks(w) for w in rows])
    return keep, int((keep * grid.sizes()).sum())


def _measure(dense: nn.Module, sparse: nn.Module, source: Tensor) -> npt.NDArray[np.float64]:
    """Seconds per call, (2, rounds): dense and sparse, each once in every round, in turn."""
    with torch.inference_mode():
        calls: list[Callable[[], object]] = [lambda: dense(source), lambda: sparse(source)]
        repeats = []
        for call in calls:
            call()
            once = seconds_of(call, 1, source.device)
            repeats.append(max(1, int(_SAMPLE_SECONDS / max(once, 1e-9))))
        samples = np.empty((2, _ROUNDS))
        for r in range(_ROUNDS):
            for i, call in enumerate(calls):
                samples[i, r] = seconds_of(call, repeats[i], source.device) / repeats[i]
    return samples


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts new modules wherever the old ones stand; the model itself may be one of them."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)
