"""What the torch operators of block-sparse layers share: checks, and what is packed from a weight.

What was packed is kept as long as torch counts no change of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pysim.errors import ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.sparse.gpu import GpuPlan, Packed, math_for
from pysim.sparse.layer import split_matrices
from pysim.workload import BlockGrid

MadeT = TypeVar("MadeT")
_MAX_KEPT = 1024
_MAX_THREADS = 256

_Entry = tuple[tuple[StorageWeakRef, ...], tuple[int, ...], object]
_kept: dict[Hashable, _Entry] = {}


def keep(kind: Hashable, tensors: tuple[Tensor, ...], make: Callable[[], MadeT]) -> MadeT:
    """What ``make`` made of these tensors as they are; made again once torch has counted a change of one.

    The weak references hold each storage's address, so that no other storage can take it and be mistaken for
    it.
    """
    if any(t.is_inference() for t in tensors):  # such tensors count no changes
        return make()
    key = (kind, *((t.untyped_storage()._cdata, t.data_ptr(), tuple(t.shape)) for t in tensors))
    versions = tuple(t._version for t in tensors)
    entry = _kept.get(key)
    if entry is None or entry[1] != versions or any(reference.expired() for reference in entry[0]):
        # Copies of the items, and pop: other threads may be at it too.
        for old in [k for k, held in list(_kept.items()) if any(r.expired() for r in held[0])]:
            _kept.pop(old, None)
        for old in list(_kept)[: max(0, len(_kept) + 1 - _MAX_KEPT)]:
            _kept.pop(old, None)
        entry = tuple(StorageWeakRef(t.untyped_storage()) for t in tensors), versions, make()
        _kept[key] = entry
    return entry[2]  # type: ignore[return-value]


def threads() -> int:
    return min(torch.get_num_threads(), _MAX_THREADS)


def check_devices(x: Tensor, values: Tensor, row_ptr: Tensor, col_idx: Tensor, bias: Tensor | None) -> None:
    for name, tensor in (("values", values), ("row_ptr", row_ptr), ("col_idx", col_idx), ("bias", bias)):
        if tensor is not None and tensor.device != x.device:
            raise ShapeError(
                f"block-sparse layer: expected {name} on {x.device}, where the input is, got {tensor.device}",
                hint="Move model and input to one device.",
            )
    if values.dtype != x.dtype:
        raise ShapeError(f"block-sparse layer: expected an input of {values.dtype}, got {x.dtype}")


def matrices(grid: BlockGrid, values: Tensor, row_ptr: Tensor, col_idx: Tensor) -> list[BsrMatrix]:
    if values.dtype != torch.float32:
        raise ShapeError(f"block-sparse layer: expected float32 on the CPU, got {values.dtype}")
    return split_matrices(grid, row_ptr.numpy(), col_idx.numpy(), values.detach().numpy())


def plain_bias(bias: Tensor | None) -> np.ndarray[Any, Any] | None:
    if bias is not None and bias.dtype != torch.float32:
        raise ShapeError(f"block-sparse layer: expected a float32 bias on the CPU, got {bias.dtype}")
    return None if bias is None else bias.detach().numpy()


def gpu_plan(
    grid: BlockGrid,
    values: Tensor,
    row_ptr: Tensor,
    col_idx: Tensor,
    columns: int,
    *,
    transposed: bool = False,
) -> tuple[GpuPlan, Tensor | None]:
    """The plan of the places, and for W^T where its values come from."""
    math = math_for(values.dtype, allow_tf32=torch.backends.cuda.matmul.allow_tf32)

    def make() -> tuple[GpuPlan, Tensor | None]:
        rows, cols = row_ptr.cpu().numpy(), col_idx.cpu().numpy()
        empty = np.zeros((len(cols), grid.bh, grid.bw), np.float32)
        parts = [(m.row_ptr, m.col_idx) for m in split_matrices(grid, rows, cols, empty)]
        if not transposed:
            return GpuPlan(grid, parts, math=math, device=values.device, columns=columns), None
        turned, part, order = _transposed(grid, *parts[0])
        plan = GpuPlan(turned, [part], math=math, device=values.device, columns=columns)
        return plan, torch.from_numpy(order).to(values.device)

    return keep(("gpu plan", grid, math, transposed), (row_ptr, col_idx), make)


def _transposed(
    grid: BlockGrid, row_ptr: np.ndarray[Any, Any], col_idx: np.ndarray[Any, Any]
) -> tuple[BlockGrid, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """The grid and indices of W^T of one kernel position, and for each of its blocks that of W."""
    turned = BlockGrid(m=grid.k, k=grid.m, bh=grid.bw, bw=grid.bh)
    order = np.argsort(col_idx, kind="stable")
    rows = np.repeat(np.arange(grid.shape[0], dtype=np.int32), np.diff(row_ptr))
    counts = np.bincount(col_idx, minlength=turned.shape[0])
    return turned, (np.append(0, np.cumsum(counts)).astype(np.int64), rows[order]), order


def packed(plan: GpuPlan, values: Tensor, bias: Tensor | None, order: Tensor | None = None) -> Packed:
    """Weights and bias as the plan's kernels read them; ``order`` is that of ``gpu_plan``."""

    def make() -> tuple[GpuPlan, Packed]:
        if order is None:
            return plan, plan.pack(values, bias)
        return plan, plan.pack(values.detach().index_select(0, order).transpose(1, 2).contiguous())

    state = (values,) if bias is None else (values, bias)
    # What is kept holds the plan, so no other plan can have its id.
    return keep(("packed", id(plan)), state, make)[1]
