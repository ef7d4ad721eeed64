"""``pysim.compile``: a whole network as one native call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pysim import _core
from pysim.errors import ModelError, ShapeError
from pysim.sparse.arrays import ArrayT, as_config_error, as_numpy, integer, isa_name
from pysim.sparse.graph import capture
from pysim.sparse.network_ops import AddOp, ClampOp, ConvOp, FlattenOp, NetworkOps, PoolOp

# The compiled network and the original round differently; more than this share of the largest output is not
# rounding but an operator misunderstood.
_SAME = 1e-3


class CompiledNetwork:
    """A network for inputs of one shape, ready to run. Immutable; may be called from several threads at once.

    Attributes:
        input_shape: What it takes.
        output_shape: What it returns.
        threads: At most this many; the bits of the result do not depend on it.
        isa: The instruction set that runs.
    """

    def __init__(self, network: NetworkOps, *, isa: str | None, threads: int) -> None:
        self.input_shape, self.output_shape = network.input_shape, network.output_shape
        self.threads = threads
        self._ops = network.ops
        with as_config_error("compile"):
            self.isa = isa_name(isa) or _core.resolve_isa("")
            self._network = _core.Network(
                _build(network, self.isa),
                output=network.output,
                batch=network.input_shape[0],
                in_dims=len(self.input_shape),
                out_dims=len(self.output_shape),
                isa=self.isa,
                threads=integer(threads, "threads"),
            )
        self._run = self._network.run

    @property
    def chunk_images(self) -> int:
        """Images of the batch that pass through the network together."""
        return self._network.chunk_images

    @property
    def workspace_bytes(self) -> int:
        """Memory that the activations take, for each call that runs at the same time."""
        return self._network.workspace_bytes

    def __call__(self, x: ArrayT, out: ArrayT | None = None) -> ArrayT:
        """Runs the network.

        Args:
            x: float32 of ``input_shape``, contiguous, numpy or torch on the CPU.
            out: float32 of ``output_shape``, contiguous, apart from ``x``; made if absent.

        Raises:
            ShapeError: An array has another type, shape, layout or device, or the two overlap.
        """
        try:
            return self._run(x, out)
        except (ValueError, TypeError) as error:
            hint = "A compiled network runs inputs of its example's shape."
            raise ShapeError(str(error), hint=hint) from error

    def __str__(self) -> str:
        lines = [f"%0: input {self.input_shape}"]
        lines += [f"%{i}: {op}" for i, op in enumerate(self._ops, start=1)]
        return "\n".join(lines)


def compile(  # noqa: A001
    model: nn.Module, example: Tensor, *, isa: str | None = None, threads: int | None = None
) -> CompiledNetwork:
    """Makes one native call of a whole network in evaluation mode.

    Pruned layers run on their kept blocks, dense ones on the same kernels. Batch norm is folded; bias,
    residual sums and ReLU are fused; activations stay in the kernels' layout from layer to layer. The result
    is compared with ``model(example)`` before it is returned.

    Args:
        model: float32 on the CPU; what ``compress`` returned, or with zeros where it is pruned. Left as it
            is; later changes of its weights are not seen.
        example: One input; the network is compiled for its shape, batch size included.
        isa: As in ``SpmmPlan``.
        threads: As in ``SpmmPlan``; default ``torch.get_num_threads()``.

    Raises:
        ModelError: The network has an operator that the engine does not know, which the message names; or its
            result on the example is not the network's.
        ConfigError: The instruction set is unknown or not available here, or threads is out of range.
        ShapeError: The example or a weight is not float32 on the CPU.
    """
    as_numpy(example, "compile example")
    source = example.detach().contiguous()
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            network = capture(model, source.clone())
            expected = model(source.clone())
    finally:
        for module, training in modes.items():
            module.training = training
    compiled = CompiledNetwork(
        network, isa=isa, threads=torch.get_num_threads() if threads is None else threads
    )
    got = compiled(source)
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    if got.shape != expected.shape or not torch.allclose(
        got, expected, rtol=0, atol=_SAME * largest, equal_nan=True
    ):
        difference = float((got - expected).abs().max())
        raise ModelError(
            f"compile: expected the network's own result on the example, got one off by {difference:g}",
            hint="An operator that works in place on a value that is read again cannot be followed.",
        )
    return compiled


def _build(network: NetworkOps, isa: str) -> _core.NetworkGraph:
    graph = _core.NetworkGraph()
    features = network.input_shape[1:]
    graph.input(*features, *(1,) * (3 - len(features)))
    for op in network.ops:
        match op:
            case ConvOp():
                weights = _core.ConvWeights(
                    [matrix.parts for matrix in op.matrices],
                    kernel=op.kernel,
                    stride=op.stride,
                    padding=op.padding,
                    dilation=op.dilation,
                    bias=None if op.bias is None else op.bias.tolist(),
                    relu=op.relu,
                    isa=isa,
                    threads=1,
                )
                graph.conv(op.x, weights, -1 if op.residual is None else op.residual)
            case PoolOp():
                graph.pool(op.x, average=op.average, rows=list(op.rows), cols=list(op.cols))
            case AddOp():
                graph.add(op.a, op.b, relu=op.relu)
            case ClampOp():
                graph.clamp(op.x, low=op.low, high=op.high)
            case FlattenOp():
                graph.flatten(op.x)
    return graph
