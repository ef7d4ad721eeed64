"""A network in the form that trains fastest here: batch norm native, with the sum and the ReLU behind it.

``torch.fx`` finds what follows each batch norm. Where it cannot follow the network, batch norm is native by
itself and the rest stays as it is.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pysim.sparse.batch_norm import FusedBatchNorm2d
from pysim.sparse.layer import BsrModule

_ADDS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
# The form and the network round differently; more than this share of the largest output is not rounding but a
# network misunderstood.
_SAME = 1e-3


def training_form(model: nn.Module, example: Tensor) -> nn.Module:
    """Makes batch norm of images native, in place, and fuses sums and ReLUs where ``torch.fx`` can follow.

    What ``state_dict`` holds stays as it is. A fused network is followed as it is in training mode and for
    ``example``: one that branches on the mode, or on what Python keeps, should not go through this.

    Args:
        model: Changed. Layers of another type than exactly ``nn.BatchNorm2d``, or with hooks, stay.
        example: One input. On it a fused network is compared with the unfused one, and left unfused if they
            differ by more than rounding.

    Returns:
        ``model``.
    """
    for name, norm in list(model.named_modules()):
        if type(norm) is nn.BatchNorm2d and name and not _has_hooks(norm):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, FusedBatchNorm2d.of(norm))
    forward = _fused_forward(model)
    if forward is not None and _agrees(model, forward, example):
        model.forward = MethodType(forward, model)
    return model


def _has_hooks(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, BsrModule | FusedBatchNorm2d)
        return own or super().is_leaf_module(m, module_qualified_name)


def _fused_forward(model: nn.Module) -> Callable[..., object] | None:
    """The forward pass with fused calls; None if it cannot be followed or there is nothing to fuse."""
    if any(_has_hooks(module) for module in model.modules()):
        return None  # a hook of what is no leaf would be lost
    modes = {module: module.training for module in model.modules()}
    model.train()
    try:
        graph, again = (_Tracer().trace(model) for _ in range(2))
    except Exception:
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode
    if str(graph) != str(again) or not _fuse(graph, model):
        return None
    forward: Callable[..., object] = type(fx.GraphModule(model, graph)).forward
    return forward


def _fuse(graph: fx.Graph, model: nn.Module) -> bool:
    """Puts what follows each batch norm into its call. Whether there was anything."""
    fused_any = False
    for norm in list(graph.nodes):
        if norm.op != "call_module" or not isinstance(model.get_submodule(norm.target), FusedBatchNorm2d):
            continue
        chain, residual = [norm], None
        follower = _only_user(norm)
        if follower is not None and _is_sum(follower, norm):
            (residual,) = (part for part in follower.args if part is not norm)
            chain.append(follower)
            follower = _only_user(follower)
        relu = follower is not None and _is_relu(follower, model)
        if relu:
            chain.append(follower)
        if len(chain) == 1 or len(norm.args) != 1 or norm.kwargs or _disturbed(chain, model):
            continue
        with graph.inserting_before(chain[-1]):
            fused = graph.call_module(norm.target, norm.args, {"residual": residual, "relu": relu})
        chain[-1].replace_all_uses_with(fused)
        for node in reversed(chain):
            graph.erase_node(node)
        fused_any = True
    return fused_any


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _is_sum(node: fx.Node, norm: fx.Node) -> bool:
    """Whether it adds another tensor to ``norm``; in place only to ``norm`` itself."""
    adds = (node.op == "call_function" and node.target in _ADDS) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )
    if not adds or node.kwargs or len(node.args) != 2 or not all(isinstance(p, fx.Node) for p in node.args):
        return False
    if node.args[0] is node.args[1]:
        return False
    in_place = node.target in (operator.iadd, "add_")
    return node.args[0] is norm or not in_place


def _is_relu(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELUS


def _disturbed(chain: list[fx.Node], model: nn.Module) -> bool:
    """Whether something between first and last works in place: the first moves behind it."""
    node = chain[0].next
    while node is not chain[-1]:
        if node not in chain and _works_in_place(node, model):
            return True
        node = node.next
    return False


def _works_in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    flags = any(argument is True for argument in (*node.args, *node.kwargs.values()))
    return flags or node.target in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _agrees(model: nn.Module, forward: Callable[..., object], example: Tensor) -> bool:
    """Whether both give the same on the example in training mode, on copies: statistics move."""
    results = []
    for fused in (False, True):
        twin = copy.deepcopy(model).train()
        if fused:
            twin.forward = MethodType(forward, twin)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            # Twice, as one value alone has no statistics.
            results.append(twin(torch.cat((example, example))))
    plain, found = results
    if not isinstance(plain, Tensor) or not isinstance(found, Tensor) or plain.shape != found.shape:
        return False
    largest = float(plain.abs().max()) if plain.numel() else 0.0
    return torch.allclose(found, plain, rtol=0, atol=_SAME * largest, equal_nan=True)
