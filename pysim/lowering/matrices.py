"""A layer's operands as the matrices of Y (m, n) = W (m, k) X (k, n), k ordered (kh, kw, cin)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import unfold

from pysim.workload import Layer

Float32Array = npt.NDArray[np.float32]


def weight_matrix(layer: Layer, weight: Tensor) -> Float32Array:
    """The layer's weight parameter as (groups, m, k)."""
    w = weight.detach()
    if layer.conv is not None:
        w = w.permute(0, 2, 3, 1)
    matrix: Float32Array = w.reshape(layer.groups, layer.m, layer.k).contiguous().numpy()
    return matrix


def other_matrix(other: Tensor) -> Float32Array:
    """The right operand of a product of two activations as (groups, m, k): what takes the weight's place."""
    return _grouped(other)


def _grouped(operand: Tensor) -> Float32Array:
    """(rows, columns) or (groups, rows, columns) as (groups, columns, rows)."""
    whole = operand.detach() if operand.ndim == 3 else operand.detach()[None]
    return np.ascontiguousarray(whole.transpose(1, 2).numpy())


def input_matrix(layer: Layer, activation: Tensor) -> Float32Array:
    """What the layer read as (groups, k, n): for a convolution the unfolded image."""
    if layer.conv is None:
        return _grouped(activation)
    c = layer.conv
    columns = unfold(activation.detach(), c.kernel, c.dilation, c.padding, c.stride)
    channels = c.in_channels // layer.groups
    split = columns.view(c.batch, layer.groups, channels, layer.positions, -1)
    # (batch, group, channel, position, pixel) -> (group, position, channel, batch, pixel)
    matrix: Float32Array = (
        split.permute(1, 3, 2, 0, 4).reshape(layer.groups, layer.k, layer.n).contiguous().numpy()
    )
    return matrix


def output_matrix(layer: Layer, activation: Tensor) -> Float32Array:
    """What the layer wrote, without bias, as (groups, m, n)."""
    out = activation.detach()
    if layer.conv is None:
        return _grouped(out)
    split = out.reshape(layer.conv.batch, layer.groups, layer.m, -1)
    matrix: Float32Array = (
        split.permute(1, 2, 0, 3).reshape(layer.groups, layer.m, layer.n).contiguous().numpy()
    )
    return matrix
