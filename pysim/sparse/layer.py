"""What block-sparse layers share: their weight as torch's state, and plans that follow its changes.

The parameter ``values`` holds the kept blocks; gradients reach those and no others. The weight is packed for
the kernels at the first call, and again when torch says that ``values`` changed: edits through ``.data`` stay
unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pysim.errors import ConfigError, PysimError, ShapeError
from pysim.sparse.bsr import BsrMatrix
from pysim.workload import BlockGrid, BoolArray

PlanT = TypeVar("PlanT")
# What a plan was made of: number of threads and versions of all but the values, version of the values.
_Key = tuple[tuple[object, ...], object]
_MAX_THREADS = 256


class BsrModule(nn.Module):
    """One weight, of one or several groups of equal shape.

    State: ``values`` (nnz_blocks, bh, bw), ``row_ptr`` (groups, block rows + 1) int64 counting from zero in
    each group, ``col_idx`` (nnz_blocks,) int32, and ``bias`` (out features,) if there is one.
    """

    values: nn.Parameter
    row_ptr: Tensor
    col_idx: Tensor
    bias: nn.Parameter | None

    def __init__(self, matrices: Sequence[BsrMatrix], bias: Tensor | None) -> None:
        super().__init__()
        if not matrices or any(matrix.grid != matrices[0].grid for matrix in matrices):
            raise ConfigError("block-sparse layer: expected at least one group, all of one grid")
        self.grid = matrices[0].grid
        self.groups = len(matrices)
        self.values = nn.Parameter(torch.from_numpy(np.concatenate([m.values for m in matrices])))
        self.register_buffer("row_ptr", torch.from_numpy(np.stack([m.row_ptr for m in matrices])))
        self.register_buffer("col_idx", torch.from_numpy(np.concatenate([m.col_idx for m in matrices])))
        features = self.groups * self.grid.m
        if bias is not None and bias.shape != (features,):
            raise ShapeError(
                f"block-sparse layer: expected a bias of shape ({features},), got {tuple(bias.shape)}"
            )
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        self._plans: dict[str, tuple[_Key | None, object]] = {}

    def matrices(self) -> list[BsrMatrix]:
        """The weight as it is now, one matrix per group, in float32; copies.

        Raises:
            ShapeError: An index is out of place.
        """
        values = self.values.detach().float().cpu()
        return split_matrices(
            self.grid, self.row_ptr.cpu().numpy(), self.col_idx.cpu().numpy(), values.numpy()
        )

    @property
    def density(self) -> float:
        """Kept blocks over all blocks, 0 to 1."""
        return len(self.col_idx) / (self.groups * self.grid.shape[0] * self.grid.shape[1])

    def _plan(
        self,
        kind: str,
        make: Callable[[list[BsrMatrix], int], PlanT],
        renew: Callable[[PlanT, Tensor], PlanT] | None = None,
    ) -> PlanT:
        """The plan of this kind, made again if the weight or the number of threads has changed.

        ``renew`` makes it from the last one where nothing but the values has changed.
        """
        threads = min(torch.get_num_threads(), _MAX_THREADS)
        frame = (self.col_idx, self.row_ptr, *(() if self.bias is None else (self.bias,)))
        # A tensor made in inference mode counts no versions: nothing says whether it changed.
        key = (
            None
            if any(t.is_inference() for t in (self.values, *frame))
            else ((threads, *map(_version, frame)), _version(self.values))
        )
        held = self._plans.get(kind)
        if held is not None and key is not None and held[0] == key:
            return held[1]  # type: ignore[return-value]
        values = self.values
        if values.device.type != "cpu" or values.dtype != torch.float32:
            raise ShapeError(
                f"block-sparse layer: expected float32 values on the CPU, "
                f"got {values.dtype} on {values.device}"
            )
        same_frame = held is not None and key is not None and held[0] is not None and held[0][0] == key[0]
        if renew is not None and same_frame:
            plan = renew(held[1], values.detach().contiguous())  # type: ignore[index, arg-type]
        else:
            plan = make(self.matrices(), threads)
        self._plans[kind] = (key, plan)
        return plan

    def _as_operator(self, x: Tensor) -> bool:
        """Whether to call the torch operator: on a GPU, and while torch compiles or exports.

        Elsewhere the CPU kernels are called directly, which costs some microseconds less.
        """
        on_cpu = x.device.type == "cpu" and self.values.device.type == "cpu"
        return not on_cpu or torch.compiler.is_compiling()

    def _needs_gradients(self, x: Tensor) -> bool:
        parts = (x, self.values) if self.bias is None else (x, self.values, self.bias)
        return torch.is_grad_enabled() and any(part.requires_grad for part in parts)

    def __getstate__(self) -> dict[str, Any]:
        # Plans are made again where they are needed.
        return {**self.__dict__, "_plans": {}}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes other kept blocks too, if the grid is the same; refuses indices that are out of place."""
        parts = [state_dict.get(prefix + name) for name in ("values", "row_ptr", "col_idx")]
        if all(isinstance(part, Tensor) for part in parts):
            values, row_ptr, col_idx = (part.detach().cpu() for part in parts)  # type: ignore[union-attr]
            try:
                if row_ptr.ndim != 2 or len(row_ptr) != self.groups:
                    raise ShapeError(
                        f"BSR row_ptr: expected {self.groups} groups, got {tuple(row_ptr.shape)}"
                    )
                split_matrices(self.grid, row_ptr.numpy(), col_idx.numpy(), values.float().numpy())
            except (PysimError, TypeError) as error:
                error_msgs.append(f"{prefix or type(self).__name__}: {error}")
                return
            if values.shape != self.values.shape:
                # In place: optimisers that hold the parameter keep it.
                self.values.data = self.values.data.new_empty(values.shape)
                self.values.grad = None
                self.col_idx = self.col_idx.new_empty(col_idx.shape)
        self._plans = {}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _version(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor._version


def split_matrices(
    grid: BlockGrid,
    row_ptr: np.ndarray[Any, Any],
    col_idx: np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
) -> list[BsrMatrix]:
    """One matrix for each row of ``row_ptr``. Raises ShapeError if an index is out of place."""
    ends = np.cumsum(row_ptr[:, -1])
    if (row_ptr[:, -1] < 0).any() or (ends[-1] if len(ends) else 0) != len(col_idx):
        raise ShapeError(f"BSR row_ptr: expected counts that add up to {len(col_idx)}, got {row_ptr[:, -1]}")
    return [
        BsrMatrix(
            grid=grid,
            row_ptr=rows,
            col_idx=col_idx[end - rows[-1] : end],
            values=values[end - rows[-1] : end],
        )
        for rows, end in zip(row_ptr, ends, strict=True)
    ]


def cut(rows: np.ndarray[Any, Any], grid: BlockGrid, keep: BoolArray | None) -> list[BsrMatrix]:
    if keep is not None and (keep.ndim != 3 or len(keep) != len(rows)):
        raise ShapeError(f"block mask: expected ({len(rows)}, block rows, columns), got shape {keep.shape}")
    masks = [None] * len(rows) if keep is None else list(keep)
    return [BsrMatrix.from_dense(w, grid, mask) for w, mask in zip(rows, masks, strict=True)]


def float32(weight: Tensor) -> np.ndarray[Any, Any]:
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ShapeError(f"weight: expected float32 on the CPU, got {weight.dtype} on {weight.device}")
    array: np.ndarray[Any, Any] = weight.detach().numpy()
    return array


def plain(bias: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if bias is None else float32(bias)
