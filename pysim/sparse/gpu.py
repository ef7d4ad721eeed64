"""Block-sparse products on GPUs: plans of places, packed weights, launches.

Memory belongs to torch; the C++ core gets addresses and lengths. With tensors on the CPU the same kernel
source runs in an emulation, thread by thread: slow, and there for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim import _core
from pysim.errors import ConfigError, ShapeError
from pysim.sparse.arrays import as_config_error
from pysim.sparse.isa import CudaDevice, CudaStatus, cuda_status
from pysim.workload import BlockGrid, Int64Array

Math = Literal["f32", "tf32", "f16", "bf16", "i8"]
_DTYPES: dict[Math, torch.dtype] = {
    "f32": torch.float32,
    "tf32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i8": torch.int32,  # an element is four bytes that follow each other along k
}
_OLDEST = (8, 0)
_WITH_CLUSTERS = (9, 0)
_EMULATED_DEVICE = -1
# What the emulation pretends to be.
EMULATED = CudaDevice(name="emulated", capability=(9, 0), processors=132, shared_bytes=227 * 1024)

Indices = tuple[Int64Array, npt.NDArray[np.int32]]  # row_ptr and col_idx of one group


def usable_device(device: torch.device, status: CudaStatus | None = None) -> CudaDevice:
    """The GPU behind a torch device.

    Args:
        device: ``cuda`` or ``cuda:N``; ``cpu`` is the emulation.
        status: What the machine offers; default: ask.

    Raises:
        ConfigError: There is no such GPU here, no driver, no CUDA in this build, or the GPU is too old.
    """
    if device.type == "cpu":
        return EMULATED
    if device.type != "cuda":
        raise ConfigError(f"device: expected cuda, got {device}")
    found = cuda_status() if status is None else status
    if not found.built:
        raise ConfigError(
            "CUDA: expected a build with CUDA, got one without",
            hint="Install the CUDA toolkit (nvcc), then build pysim again.",
        )
    if not found.devices:
        raise ConfigError(f"CUDA: expected a GPU, got none: {found.text}", hint="pysim info shows the same.")
    index = 0 if device.index is None else device.index
    if index >= len(found.devices):
        raise ConfigError(f"CUDA: expected a device below {len(found.devices)}, got cuda:{index}")
    gpu = found.devices[index]
    if gpu.capability < _OLDEST:
        raise ConfigError(
            f"CUDA: expected compute capability 8.0 or newer, got {gpu.capability[0]}.{gpu.capability[1]} "
            f"({gpu.name})"
        )
    return gpu


def math_for(dtype: torch.dtype, *, allow_tf32: bool) -> Math:
    """The arithmetic for a type. Raises ShapeError for types without a kernel."""
    for name, other in _DTYPES.items():
        if dtype == other and name != "i8":
            return "tf32" if name == "f32" and allow_tf32 else name
    raise ShapeError(f"GPU product: expected float32, float16 or bfloat16, got {dtype}")


class Packed:
    """Weights in the kernels' order, with their bias in float32; made by ``GpuPlan.pack``."""

    __slots__ = ("bias", "weights")

    def __init__(self, weights: Tensor, bias: Tensor | None) -> None:
        self.weights, self.bias = weights, bias


class GpuPlan:
    """Where the kept blocks of one or several groups stand, as the GPU kernels read it. Holds no weights.

    Args:
        grid: How each group is cut.
        groups: row_ptr and col_idx of each; for a convolution one per group, side by side.
        math: ``f32`` multiplies exactly, ``tf32`` rounds float32 to 10 bits of fraction, ``f16`` and ``bf16``
            are for tensors of these types. Sums are float32 in all. ``i8`` is what ``GpuInt8Plan`` stands on.
        device: Where tables go; ``cpu`` is the emulation.
        columns: The width that work is spread for; any other works too.
        cluster: CTAs that share what they fetch of X: 2, 4 or 8 in ``f16`` and ``bf16``, for X whose columns
            lie together, more than 16 and aligned to 16 bytes; other X takes the kernel of 1. Compute
            capability 9.0 only.
        limits: Stands in for the device's own; for tests.

    Raises:
        ConfigError: The device cannot run it, or an index or size is out of range.
    """

    def __init__(
        self,
        grid: BlockGrid,
        groups: Sequence[Indices],
        *,
        math: Math,
        device: torch.device,
        columns: int = 1024,
        cluster: int = 1,
        limits: CudaDevice | None = None,
    ) -> None:
        gpu = usable_device(device) if limits is None else limits
        if cluster != 1 and gpu.capability != _WITH_CLUSTERS:
            raise ConfigError(
                f"GPU plan: expected compute capability 9.0 for clusters, got {gpu.capability[0]}."
                f"{gpu.capability[1]} ({gpu.name})",
                hint="cluster=1 runs on every GPU.",
            )
        parts = (grid.m, grid.k, grid.positions, grid.bh, grid.bw)
        with as_config_error("GPU plan"):
            self._plan = _core.GpuPlan(
                [(parts, row_ptr, col_idx) for row_ptr, col_idx in groups],
                math=math,
                shared_bytes=gpu.shared_bytes,
                processors=gpu.processors,
                columns=columns,
                cluster=cluster,
            )
        self.last_kernel = "none"  # which one the last product took
        self.math, self.device, self.dtype = math, device, _DTYPES[math]
        self.grid = grid
        self.m, self.k = len(groups) * grid.m, len(groups) * grid.k
        self._values = sum(len(col_idx) for _, col_idx in groups) * grid.bh * grid.bw
        self._image = _aligned(torch.from_numpy(self._plan.image), device)
        places = self._plan.places
        places[places < 0] = self._values  # a zero that stands behind the values
        self._places = torch.from_numpy(places).to(device)
        # One for each stream: products on different streams may overlap in time.
        self._workspaces: dict[int, Tensor] = {}

    @property
    def facts(self) -> dict[str, int]:
        """Sizes of the plan, for tests and reports: slab height, steps, groups, divided slabs ..."""
        return self._plan.facts

    def pack(self, values: Tensor, bias: Tensor | None = None) -> Packed:
        """Weights (nnz_blocks, bh, bw) of all groups and bias (m,) as the kernels read them: copies.

        On a GPU it waits until they are in place, so that any stream may use them.

        Raises:
            ShapeError: Another shape, type or device.
            ConfigError: A CUDA graph is being captured.
        """
        _require(values, self.device, self.dtype, "weights")
        if values.numel() != self._values:
            raise ShapeError(f"weights: expected {self._values} values, got {values.numel()}")
        if bias is not None and (bias.shape != (self.m,) or bias.device != values.device):
            raise ShapeError(
                f"bias: expected shape ({self.m},) on {values.device}, "
                f"got {tuple(bias.shape)} on {bias.device}"
            )
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise ConfigError(
                "GPU product: expected packed weights before a CUDA graph is captured, got none",
                hint="Call the layer once before capturing.",
            )
        flat = values.detach().reshape(-1)
        padded = torch.cat((flat, flat.new_zeros(1)))
        weights = _aligned(padded.index_select(0, self._places), self.device)
        packed = Packed(weights, None if bias is None else bias.detach().float().contiguous())
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return packed

    def multiply(self, packed: Packed, x: Tensor, *, relu: bool = False) -> Tensor:
        """x W^T + bias for x (n, k) with any strides, such as tokens or the transpose of columns.

        Returns:
            (n, m), contiguous.

        Raises:
            ShapeError: x has another shape, type or device.
            ConfigError: CUDA refuses.
        """
        _require(x, self.device, self.dtype, "GPU product")
        if x.ndim != 2 or x.shape[1] != self.k:
            raise ShapeError(f"GPU product: expected shape (n, {self.k}), got {tuple(x.shape)}")
        y = torch.empty((x.shape[0], self.m), dtype=self.dtype, device=x.device)
        self.run(packed, x, matrix_source(x), y, relu=relu)
        return y

    def convolve(
        self,
        packed: Packed,
        x: Tensor,
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        relu: bool = False,
    ) -> Tensor:
        """The convolution of x (N, channels, H, W), any strides; channels-last is the fast layout.

        Returns:
            (N, m, out height, out width), channels-last.

        Raises:
            ShapeError: x has another shape, type or device.
            ConfigError: The image is too small for the kernel, or CUDA refuses.
        """
        _require(x, self.device, self.dtype, "GPU convolution")
        taps = kernel_size[0] * kernel_size[1]
        if x.ndim != 4 or taps != self.grid.positions or x.shape[1] * taps != self.k:
            raise ShapeError(
                f"GPU convolution: expected (N, {self.k // self.grid.positions}, H, W) and "
                f"{self.grid.positions} kernel positions, got {tuple(x.shape)} and {taps}"
            )
        source, size = conv_source(x, kernel_size, stride, padding, dilation)
        y = torch.empty(
            (x.shape[0], self.m, *size),
            dtype=self.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        self.run(packed, x, source, y, relu=relu)
        return y

    def run(
        self,
        packed: Packed,
        x: Tensor,
        source: tuple[int, ...],
        y: Tensor,
        *,
        relu: bool = False,
        epilogue: _core.Int8Epilogue | None = None,
    ) -> None:
        """Launches; for what is built on this plan.

        Args:
            packed: Made by ``pack``; in ``i8`` with the epilogue's table in place of the bias.
            x: The memory that ``source`` describes.
            source: Of ``matrix_source`` or ``conv_source``; in ``i8`` k, channels and strides count quads.
            y: (columns, m), contiguous in this order.
            relu: For all but ``i8``.
            epilogue: For ``i8`` alone.

        Raises:
            ShapeError: Memory, sizes or strides do not fit.
            ConfigError: CUDA refuses.
        """
        index, stream = _EMULATED_DEVICE, 0
        if self.device.type == "cuda":
            index = x.device.index
            stream = torch.cuda.current_stream(x.device).cuda_stream
        try:
            workspace = self._workspace(stream, source[1])
            self.last_kernel = self._plan.run(
                device=index,
                stream=stream,
                image=_memory(self._image),
                weights=_memory(packed.weights),
                x=_memory(x),
                source=source,
                y=_memory(y),
                y_strides=(1, self.m),
                bias=None if packed.bias is None else _memory(packed.bias),
                workspace=None if workspace is None else _memory(workspace),
                relu=relu,
                epilogue=epilogue,
            )
        except ValueError as error:
            raise ShapeError(str(error)) from error
        except RuntimeError as error:
            raise ConfigError(str(error)) from error

    def _workspace(self, stream: int, n: int) -> Tensor | None:
        needed = self._plan.workspace_bytes(n)
        if needed == 0:
            return None
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            # Graphs captured on one stream may be replayed on several: each has its own, kept by its pool.
            return torch.empty(needed, dtype=torch.uint8, device=self.device)
        held = self._workspaces.get(stream)
        if held is None or held.numel() < needed:
            held = torch.empty(needed, dtype=torch.uint8, device=self.device)
            self._workspaces[stream] = held
        return held


def matrix_source(x: Tensor) -> tuple[int, ...]:
    """X as the core takes it: x is (n, k) with any strides."""
    return (x.shape[1], x.shape[0], x.stride(1), x.stride(0), *(0,) * 14)


def conv_source(
    x: Tensor,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The taps of a convolution of x (N, channels, H, W) with any strides; and the output's height and width.

    Raises ConfigError if the image is too small.
    """
    size = conv_size((x.shape[2], x.shape[3]), kernel_size, stride, padding, dilation)
    source = (
        *(kernel_size[0] * kernel_size[1] * x.shape[1], x.shape[0] * size[0] * size[1]),
        *(x.stride(1), x.stride(3), x.stride(2), x.stride(0)),
        *(x.shape[1], x.shape[2], x.shape[3]),
        *size,
        kernel_size[1],
        *(*stride, *padding, *dilation),
    )
    return source, size


def conv_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Height and width of a convolution's output. Raises ConfigError if the image is too small."""
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    room = [s + 2 * p - r for s, p, r in zip(size, padding, reach, strict=True)]
    if min(room) < 0:
        raise ConfigError(
            f"convolution: expected an image of at least {tuple(reach)} with padding, got {size}"
        )
    return room[0] // stride[0] + 1, room[1] // stride[1] + 1


def _aligned(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, at an address that the kernels' widest loads and the tables allow."""
    alignment = 256
    if device.type == "cuda":
        return tensor.to(device)  # torch's allocator gives multiples of 512 bytes
    room = torch.empty(tensor.numel() * tensor.element_size() + alignment, dtype=torch.uint8)
    skip = -room.data_ptr() % alignment
    place = room[skip : skip + tensor.numel() * tensor.element_size()].view(tensor.dtype)
    return place.copy_(tensor)


def _memory(tensor: Tensor) -> tuple[int, int]:
    """The address of the first element, and the bytes of the storage from there on; (0, 0) if it is empty."""
    if tensor.numel() == 0:  # may begin behind the end of its storage
        return 0, 0
    storage = tensor.untyped_storage()
    return tensor.data_ptr(), int(storage.nbytes()) - int(tensor.storage_offset()) * tensor.element_size()


def _require(tensor: Tensor, device: torch.device, dtype: torch.dtype, where: str) -> None:
    same = tensor.device.type == device.type and device.index in (None, tensor.device.index)
    if not same or tensor.layout != torch.strided:
        raise ShapeError(
            f"{where}: expected a dense tensor on {device}, got {tensor.layout} on {tensor.device}"
        )
    if tensor.dtype != dtype:
        raise ShapeError(f"{where}: expected {dtype}, got {tensor.dtype}")
