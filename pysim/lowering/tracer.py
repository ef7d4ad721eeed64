"""Runs a network once and writes down every matrix product and everything that is not one.

A dispatch mode sees each operator that PyTorch really executes, below modules and functions, so nothing that
runs can be missed. Attention's fused paths are switched off while tracing: they would hide their products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from pysim.errors import ModelError
from pysim.workload import ConvGeometry, Layer, UnmappedOp, Workload

_aten = torch.ops.aten
_BATCH_NORMS = (_aten.native_batch_norm, _aten._native_batch_norm_legit_no_training)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What went into and came out of one layer, bias not yet added to ``output``.

    Args:
        input: (N, C, H, W) for a convolution, (tokens, k) for a linear layer, (groups, n, k) for products in
            a batch.
        output: (N, C, H, W), (tokens, m) or (groups, n, m).
        other: Of a product without a weight parameter the right operand, (k, m) or (groups, k, m): another
            activation, or weights that are computed.
    """

    input: Tensor
    output: Tensor
    other: Tensor | None = None


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under this mode; to say so torch would import its compiler, for a second."""
        return False

    def __init__(self, model: nn.Module, keep: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self.unmapped: dict[tuple[str, str, bool], UnmappedOp] = {}
        self.activations: dict[str, Activation] = {}
        self._keep = keep
        self._tracker = ModuleTracker()
        self._weights = {p.data_ptr(): (name, p) for name, p in model.named_parameters()}
        self._runs: dict[str, int] = {}
        self._last_output: Tensor | None = (
            None  # of a layer with weights; kept so that its memory stays its own
        )

    def __enter__(self) -> Self:
        self._tracker.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._tracker.__exit__(*exception)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is _aten.convolution:
            self._convolution(args, result)
        elif packet is _aten.mm:
            self._product(args[0], args[1], result, bias=None)
        elif packet is _aten.addmm:
            self._product(args[1], args[2], result, bias=args[0])
        elif packet in (_aten.mv, _aten.addmv):
            matrix, vector = args[-2:]
            bias = args[0] if packet is _aten.addmv else None
            self._product(vector[None], matrix.t(), result[None], bias=bias)
        elif packet in (_aten.bmm, _aten.baddbmm):
            left, right = args[-2:]
            groups, n, k = left.shape
            # Rows of the left operand are positions, as in a linear layer.
            layer = Layer(name="", weight=None, m=right.shape[2], k=k, n=n, groups=groups)
            if packet is _aten.bmm or _is_plain(kwargs):
                bias = None if packet is _aten.bmm else args[0]
                self._add(layer, lambda: _activation(left, result, bias, right))
            else:
                self._add(layer)
        elif not (func.is_view or _is_bookkeeping(func)):
            self._other(packet, args, result)
        return result

    def _module(self) -> str:
        """Path of the innermost running module, below the root."""
        paths = [path for path in self._tracker.parents if path != "Global"]
        deepest = max(paths, key=lambda path: path.count("."), default="")
        return deepest.partition(".")[2]

    def _weight_name(self, tensor: Tensor) -> str | None:
        """The parameter that ``tensor`` is, whole and untransposed; None for a slice or a computed weight."""
        name, parameter = self._weights.get(tensor.data_ptr(), (None, tensor))
        same = tensor.shape == parameter.shape and tensor.stride() == parameter.stride()
        return name if same else None

    def _add(self, layer: Layer, activation: Callable[[], Activation] | None = None) -> None:
        base = self._module() or "network"
        if layer.weight is not None and "." in layer.weight:
            base = layer.weight.rpartition(".")[0]
        run = self._runs[base] = self._runs.get(base, 0) + 1
        name = base if run == 1 else f"{base}#{run}"
        self.layers.append(replace(layer, name=name))
        if activation is not None and name in self._keep:
            self.activations[name] = activation()

    def _convolution(self, args: tuple[Any, ...], output: Tensor) -> None:
        image, weight, bias, stride, padding, dilation, transposed, _, groups = args
        if transposed or weight.ndim != 4:
            raise ModelError(
                f"lowering {self._module()}: expected a 2-D convolution, got "
                + ("a transposed one" if transposed else f"a weight of {weight.ndim} dimensions")
            )
        out_channels, channels, kernel_height, kernel_width = weight.shape
        batch, _, height, width = image.shape
        positions = kernel_height * kernel_width
        layer = Layer(
            name="",
            weight=self._weight_name(weight),
            m=out_channels // groups,
            k=positions * channels,
            n=batch * output.shape[2] * output.shape[3],
            groups=groups,
            positions=positions,
            conv=ConvGeometry(
                batch=batch,
                in_channels=image.shape[1],
                height=height,
                width=width,
                out_height=output.shape[2],
                out_width=output.shape[3],
                kernel=(kernel_height, kernel_width),
                stride=_pair(stride),
                padding=_pair(padding),
                dilation=_pair(dilation),
            ),
        )
        shift = None if bias is None else bias.view(1, -1, 1, 1)
        self._add(layer, lambda: _activation(image, output, shift))
        self._last_output = output if layer.weight is not None else None

    def _product(self, left: Tensor, right: Tensor, output: Tensor, bias: Tensor | None) -> None:
        """left (n, k) times right (k, m); a linear layer's weight is on the right, transposed."""
        weight = self._weight_name(right.t())
        layer = Layer(name="", weight=weight, m=right.shape[1], k=right.shape[0], n=left.shape[0])
        other = right if weight is None else None
        self._add(layer, lambda: _activation(left, output, bias, other))
        self._last_output = output if weight is not None else None

    def _other(self, packet: Any, args: tuple[Any, ...], result: Any) -> None:
        operations = max((t.numel() for t in (*_tensors(args), *_tensors(result))), default=0)
        if operations == 0:
            return
        source = next(_tensors(args), None)
        last = self._last_output
        follows = source is not None and last is not None and source.data_ptr() == last.data_ptr()
        op = UnmappedOp(
            module=self._module(),
            op=packet.__name__,
            operations=operations,
            foldable=packet in _BATCH_NORMS and follows,
        )
        key = (op.module, op.op, op.foldable)
        seen = self.unmapped.get(key)
        if seen is not None:
            op = replace(op, operations=operations + seen.operations, calls=seen.calls + 1)
        self.unmapped[key] = op


def trace(
    model: nn.Module, example: Tensor, *, keep_activations: frozenset[str] = frozenset()
) -> tuple[Workload, dict[str, Activation]]:
    """Runs ``model`` once on ``example`` and lists its work.

    Args:
        model: Any module; it is run in evaluation mode and left in the mode it was in.
        example: One input; its batch size is the batch size of the workload.
        keep_activations: Names of layers whose input and output are to be kept.

    Returns:
        The workload, layers in order of execution, and the activations that were asked for.

    Raises:
        ModelError: The model has a convolution that is not 2-D, or no matrix product at all.
    """
    recorder = _Recorder(model, keep_activations)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _unfused_attention(), recorder:
            model(example)
    finally:
        model.train(was_training)
    if not recorder.layers:
        raise ModelError("lowering: expected at least one convolution or matrix product, the model ran none")
    workload = Workload(layers=tuple(recorder.layers), unmapped=tuple(recorder.unmapped.values()))
    return workload, recorder.activations


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _is_bookkeeping(func: Any) -> bool:
    """Operators that make or name tensors but compute no element."""
    return func.overloadpacket in (
        _aten.detach,
        _aten.empty,
        _aten.empty_like,
        _aten._unsafe_view,
        _aten.alias,
    )


def _activation(
    source: Tensor, output: Tensor, bias: Tensor | None, other: Tensor | None = None
) -> Activation:
    """Copies: what runs next may work in place."""
    return Activation(
        input=source.clone(),
        output=output.clone() if bias is None else output - bias,
        other=None if other is None else other.clone(),
    )


def _is_plain(factors: Mapping[str, Any] | None) -> bool:
    """Whether a product with a summand is just their sum, without factors."""
    return all(value == 1 for value in (factors or {}).values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _pair(values: Any) -> tuple[int, int]:
    first, last = int(values[0]), int(values[-1])
    return first, last
