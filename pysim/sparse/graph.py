"""A PyTorch network as the list of operators that the native engine runs: captured, folded and fused.

The network is captured by ``torch.fx``. Batch norm is folded into the product before it; bias, a residual
sum and ReLU become the product's own last steps. Whatever the engine does not know is an error that names it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from pysim.errors import ModelError, PysimError
from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.conv2d import BsrConv2d
from pysim.sparse.layer import BsrModule, plain
from pysim.sparse.linear import BsrLinear
from pysim.sparse.network_ops import AddOp, ClampOp, ConvOp, FlattenOp, NetworkOps, Op, PoolOp
from pysim.sparse.pooling import adaptive_ranges, window_ranges
from pysim.workload import BlockGrid

# Time of one element of a slab by the slab's rows, in units of one vector: slabs of 1 and 2 rows wait for
# loads of X, taller ones for arithmetic. See docs/kernels.md.
_ELEMENT_COST = {1: 1.0, 2: 1.0, 3: 1.5, 4: 2.0}


def capture(model: nn.Module, example: Tensor) -> NetworkOps:
    """The operators of ``model`` in evaluation mode, for inputs of the example's shape.

    Raises:
        ModelError: ``torch.fx`` cannot follow the network, or the engine does not know one of its operators.
    """
    tracer = _Tracer()
    try:
        # A single layer would be traced into its function.
        graph = tracer.trace(nn.Sequential(model) if type(model) in _MODULES else model)
        module = fx.GraphModule(tracer.root, graph)
        with torch.no_grad():
            ShapeProp(module).propagate(example)
    except PysimError:
        raise
    except Exception as error:  # whatever the network's own code raises
        raise ModelError(
            f"compile: expected a network that torch.fx can follow: {error}",
            hint="Branches on the values or shapes of tensors cannot be followed.",
        ) from error
    return _Capture(module, tuple(example.shape)).run()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BsrModule) or super().is_leaf_module(m, module_qualified_name)


class _Capture:
    def __init__(self, module: fx.GraphModule, shape: tuple[int, ...]) -> None:
        self._module = module
        self._shape = shape
        self._ops: list[Op] = []
        self._values: dict[fx.Node, int] = {}
        self._shared: set[int] = set()  # values that more than one operator reads

    def run(self) -> NetworkOps:
        if len(self._shape) not in (2, 4):
            raise ModelError(
                f"compile: expected an input of shape (N, C, H, W) or (N, features), got {self._shape}"
            )
        inputs = 0
        for node in self._module.graph.nodes:
            if node.op == "placeholder":
                inputs += 1
                if inputs > 1:
                    raise ModelError(f"compile: expected one input, got another named {node.target}")
                self._keep(node, 0)
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node) or result not in self._values:
                    raise ModelError("compile: expected one tensor as the result, got something else")
                return NetworkOps(
                    input_shape=self._shape,
                    output_shape=_shape(result),
                    ops=tuple(self._ops),
                    output=self._values[result],
                )
            elif _is_tensor(node) and node.op != "get_attr":
                self._operator(node)
        raise ModelError("compile: expected a network with a result, got none")

    # Values.

    def _keep(self, node: fx.Node, value: int) -> None:
        self._values[node] = value
        if len(node.users) > 1:
            self._shared.add(value)

    def _append(self, node: fx.Node, op: Op) -> None:
        self._ops.append(op)
        self._keep(node, len(self._ops))

    def _source(self, node: fx.Node, position: int = 0) -> tuple[fx.Node, int]:
        source = node.args[position] if len(node.args) > position else None
        if source is None and position == 0:
            source = node.kwargs.get("input")
        if not isinstance(source, fx.Node) or source not in self._values:
            raise self._unknown(node, f"with the argument {source}")
        return source, self._values[source]

    def _producer(self, value: int) -> Op | None:
        """The operator that made the value, if nobody else reads it."""
        return self._ops[value - 1] if value > 0 and value not in self._shared else None

    def _replace(self, node: fx.Node, value: int, op: Op) -> None:
        self._ops[value - 1] = op
        self._keep(node, value)

    def _unknown(self, node: fx.Node, detail: str = "") -> ModelError:
        if node.op == "call_module":
            kind = type(self._module.get_submodule(str(node.target))).__name__
            text = f"{kind} ({node.target})"
        else:
            text = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
        return ModelError(
            f"compile: expected operators that the engine knows, got {text}{f' {detail}' if detail else ''}",
            hint="docs/layers.md lists them. pysim.compress keeps such a network in PyTorch.",
        )

    # Operators.

    def _operator(self, node: fx.Node) -> None:
        if node.op == "call_module":
            layer = self._module.get_submodule(str(node.target))
            handler = _MODULES.get(type(layer))
            if handler is None:
                raise self._unknown(node)
            handler(self, node, layer)
            return
        function = (
            _FUNCTIONS.get(node.target) if node.op == "call_function" else _METHODS.get(str(node.target))
        )
        if function is None:
            raise self._unknown(node)
        function(self, node)

    def _pass(self, node: fx.Node, _: nn.Module | None = None) -> None:
        source, value = self._source(node)
        if _shape(source) != _shape(node):
            raise self._unknown(node, f"from {_shape(source)} to {_shape(node)}")
        self._keep(node, value)

    def _reshape(self, node: fx.Node, _: nn.Module | None = None) -> None:
        source, value = self._source(node)
        before, after = _shape(source), _shape(node)
        if before == after or (_is_vector(before) and _is_vector(after) and before[:2] == after[:2]):
            self._keep(node, value)
        elif len(before) == 4 and after == (before[0], before[1] * before[2] * before[3]):
            self._append(node, FlattenOp(name=node.name, x=value))
        else:
            raise self._unknown(node, f"from {before} to {after}")

    def _conv(self, node: fx.Node, layer: nn.Module) -> None:
        source, value = self._source(node)
        if len(_shape(source)) != 4:
            raise self._unknown(node, f"of an input of shape {_shape(source)}")
        sparse = layer if isinstance(layer, BsrConv2d) else _sparse_conv(layer)  # type: ignore[arg-type]
        if sparse._pads_before:
            raise self._unknown(node, "with unequal or non-zero padding")
        op = ConvOp(
            name=str(node.target),
            x=value,
            matrices=tuple(sparse.matrices()),
            kernel=sparse.kernel_size,
            stride=sparse.stride,
            padding=sparse._kernel_padding,
            dilation=sparse.dilation,
            bias=plain(sparse.bias),
        )
        self._append(node, op)

    def _linear(self, node: fx.Node, layer: nn.Module) -> None:
        source, value = self._source(node)
        if len(_shape(source)) != 2:
            raise self._unknown(node, f"of an input of shape {_shape(source)}")
        sparse = layer if isinstance(layer, BsrLinear) else _sparse_linear(layer)  # type: ignore[arg-type]
        self._append(
            node,
            ConvOp(
                name=str(node.target), x=value, matrices=tuple(sparse.matrices()), bias=plain(sparse.bias)
            ),
        )

    def _batch_norm(self, node: fx.Node, layer: nn.Module) -> None:
        assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        source, value = self._source(node)
        if layer.running_mean is None or layer.running_var is None or len(_shape(source)) == 3:
            raise self._unknown(node, "without running statistics, or of a sequence")
        scale = (layer.running_var.double() + layer.eps).rsqrt()
        if layer.weight is not None:
            scale = scale * layer.weight.detach().double()
        shift = -layer.running_mean.double() * scale
        if layer.bias is not None:
            shift = shift + layer.bias.detach().double()
        before = self._producer(value)
        if isinstance(before, ConvOp) and not before.relu and before.residual is None:
            self._replace(node, value, _fold(before, scale.numpy(), shift.numpy()))
            return
        ones = BsrMatrix.from_dense([[1.0]], BlockGrid(m=1, k=1, bh=1, bw=1))
        alone = ConvOp(name=str(node.target), x=value, matrices=(ones,) * len(scale))
        self._append(node, _fold(alone, scale.numpy(), shift.numpy()))

    def _relu(self, node: fx.Node, _: nn.Module | None = None) -> None:
        value = self._source(node)[1]
        before = self._producer(value)
        if isinstance(before, ConvOp | AddOp):
            self._replace(node, value, replace(before, relu=True))
        else:
            self._append(node, ClampOp(name=node.name, x=value, low=0.0, high=float("inf")))

    def _clamp(self, node: fx.Node, low: float, high: float) -> None:
        value = self._source(node)[1]
        if not low <= 0 <= high:
            raise self._unknown(node, f"to {low} .. {high}, a range without zero")
        self._append(node, ClampOp(name=node.name, x=value, low=low, high=high))

    def _relu6(self, node: fx.Node, _: nn.Module | None = None) -> None:
        self._clamp(node, 0.0, 6.0)

    def _hardtanh(self, node: fx.Node, layer: nn.Module) -> None:
        assert isinstance(layer, nn.Hardtanh)
        self._clamp(node, layer.min_val, layer.max_val)

    def _add(self, node: fx.Node, _: nn.Module | None = None) -> None:
        (left, a), (right, b) = self._source(node), self._source(node, 1)
        if _shape(left) != _shape(right) or node.kwargs.get("alpha", 1) != 1:
            raise self._unknown(node, f"of {_shape(left)} and {_shape(right)}")
        # The later product takes the other as its residual, which is there by then.
        first, last = min(a, b), max(a, b)
        before = self._producer(last)
        if first != last and isinstance(before, ConvOp) and not before.relu and before.residual is None:
            self._replace(node, last, replace(before, residual=first))
        else:
            self._append(node, AddOp(name=node.name, a=a, b=b))

    def _pool(self, node: fx.Node, layer: nn.Module) -> None:
        source, value = self._source(node)
        assert isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)
        average = isinstance(layer, nn.AvgPool2d)
        if (isinstance(layer, nn.AvgPool2d) and layer.divisor_override is not None) or (
            isinstance(layer, nn.MaxPool2d) and layer.return_indices
        ):
            raise self._unknown(node, "with a divisor or indices")
        self._append_pool(
            node,
            source,
            value,
            average=average,
            kernel=layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=1 if isinstance(layer, nn.AvgPool2d) else layer.dilation,
            count_padding=isinstance(layer, nn.AvgPool2d) and layer.count_include_pad,
        )

    def _append_pool(
        self,
        node: fx.Node,
        source: fx.Node,
        value: int,
        *,
        average: bool,
        kernel: Any,  # noqa: ANN401
        stride: Any,  # noqa: ANN401
        padding: Any,  # noqa: ANN401
        dilation: Any,  # noqa: ANN401
        count_padding: bool,
    ) -> None:
        before, after = _shape(source), _shape(node)
        if len(before) != 4 or _two(dilation) != (1, 1):
            raise self._unknown(node, f"with dilation or of an input of shape {before}")
        ranges = [
            window_ranges(
                before[2 + axis],
                after[2 + axis],
                kernel=_two(kernel)[axis],
                stride=_two(stride or kernel)[axis],
                padding=_two(padding)[axis],
                count_padding=count_padding,
            )
            for axis in (0, 1)
        ]
        self._append(node, PoolOp(name=node.name, x=value, average=average, rows=ranges[0], cols=ranges[1]))

    def _pool_function(self, node: fx.Node) -> None:
        source, value = self._source(node)
        known = ("kernel_size", "stride", "padding")
        given = dict(zip(known, node.args[1:], strict=False)) | dict(node.kwargs)
        average = node.target is functional.avg_pool2d
        if (
            len(node.args) > 1 + len(known)
            or given.keys() - {*known, "input", "ceil_mode", "dilation", "return_indices"}
            or given.get("dilation", 1) not in (1, (1, 1))
            or given.get("return_indices", False)
        ):
            raise self._unknown(node, "with other than kernel, stride and padding")
        self._append_pool(
            node,
            source,
            value,
            average=average,
            kernel=given["kernel_size"],
            stride=given.get("stride"),
            padding=given.get("padding", 0),
            dilation=1,
            count_padding=average,
        )

    def _adaptive(self, node: fx.Node, _: nn.Module | None = None) -> None:
        source, value = self._source(node)
        before, after = _shape(source), _shape(node)
        if len(before) != 4:
            raise self._unknown(node, f"of an input of shape {before}")
        rows, cols = (adaptive_ranges(before[axis], after[axis]) for axis in (2, 3))
        self._append(node, PoolOp(name=node.name, x=value, average=True, rows=rows, cols=cols))

    def _mean(self, node: fx.Node) -> None:
        source, value = self._source(node)
        before, after = _shape(source), _shape(node)
        axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        if (
            len(before) != 4
            or not isinstance(axes, Sequence)
            or {int(axis) % 4 for axis in axes} != {2, 3}  # type: ignore[arg-type]
            or after[:2] != before[:2]
        ):
            raise self._unknown(node, f"over {axes} of an input of shape {before}")
        rows, cols = (adaptive_ranges(before[axis], 1) for axis in (2, 3))
        self._append(node, PoolOp(name=node.name, x=value, average=True, rows=rows, cols=cols))


_MODULES: dict[type[nn.Module], Callable[[_Capture, fx.Node, nn.Module], None]] = {
    nn.Conv2d: _Capture._conv,
    BsrConv2d: _Capture._conv,
    nn.Linear: _Capture._linear,
    BsrLinear: _Capture._linear,
    nn.BatchNorm1d: _Capture._batch_norm,
    nn.BatchNorm2d: _Capture._batch_norm,
    nn.ReLU: _Capture._relu,
    nn.ReLU6: _Capture._relu6,
    nn.Hardtanh: _Capture._hardtanh,
    nn.MaxPool2d: _Capture._pool,
    nn.AvgPool2d: _Capture._pool,
    nn.AdaptiveAvgPool2d: _Capture._adaptive,
    nn.Flatten: _Capture._reshape,
    nn.Identity: _Capture._pass,
    nn.Dropout: _Capture._pass,
    nn.Dropout2d: _Capture._pass,
}
_FUNCTIONS: dict[Any, Callable[[_Capture, fx.Node], None]] = {
    torch.relu: _Capture._relu,
    torch.relu_: _Capture._relu,
    functional.relu: _Capture._relu,
    functional.relu6: _Capture._relu6,
    operator.add: _Capture._add,
    operator.iadd: _Capture._add,
    torch.add: _Capture._add,
    torch.flatten: _Capture._reshape,
    torch.reshape: _Capture._reshape,
    torch.mean: _Capture._mean,
    functional.max_pool2d: _Capture._pool_function,
    functional.avg_pool2d: _Capture._pool_function,
    functional.adaptive_avg_pool2d: _Capture._adaptive,
}
_METHODS: dict[str, Callable[[_Capture, fx.Node], None]] = {
    "relu": _Capture._relu,
    "relu_": _Capture._relu,
    "add": _Capture._add,
    "add_": _Capture._add,
    "flatten": _Capture._reshape,
    "view": _Capture._reshape,
    "reshape": _Capture._reshape,
    "contiguous": _Capture._pass,
    "mean": _Capture._mean,
}


def _sparse_conv(conv: nn.Conv2d) -> BsrConv2d:
    rows = conv.weight.detach().permute(0, 2, 3, 1).reshape(conv.groups, conv.out_channels // conv.groups, -1)
    return BsrConv2d.from_dense(conv, (_height(rows != 0), 1))


def _sparse_linear(linear: nn.Linear) -> BsrLinear:
    return BsrLinear.from_dense(linear, (_height(linear.weight.detach()[None] != 0), 1))


def _height(keep: Tensor) -> int:
    """The block height that costs least where ``keep`` (groups, m, k) says which weights are not zero."""

    def cost(height: int) -> float:
        slabs = keep.split(height, dim=1)
        return sum(_ELEMENT_COST[slab.shape[1]] * int(slab.any(dim=1).sum()) for slab in slabs)

    return min((4, 2, 1), key=cost)


def _fold(op: ConvOp, scale: np.ndarray[Any, Any], shift: np.ndarray[Any, Any]) -> ConvOp:
    """scale * op + shift, by output channel; rounded once."""
    matrices = []
    per_group = len(scale) // len(op.matrices)
    for g, matrix in enumerate(op.matrices):
        grid = matrix.grid
        rows = np.ones(grid.shape[0] * grid.bh)
        rows[: grid.m] = scale[g * per_group : (g + 1) * per_group]
        of_block = np.repeat(rows.reshape(-1, grid.bh), np.diff(matrix.row_ptr), axis=0)
        values = (matrix.values * of_block[:, :, None]).astype(np.float32)
        matrices.append(replace(matrix, values=values))
    bias = shift if op.bias is None else op.bias * scale + shift
    return replace(op, matrices=tuple(matrices), bias=bias.astype(np.float32))


def _is_tensor(node: fx.Node) -> bool:
    return hasattr(node.meta.get("tensor_meta"), "shape")


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or shape[2:] == (1, 1)


def _two(sizes: int | tuple[int, ...]) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else (sizes[0], sizes[-1])
