"""What this machine and this build can run."""

from __future__ import annotations

from dataclasses import dataclass

from pysim import _core


@dataclass(frozen=True, slots=True, kw_only=True)
class IsaStatus:
    """One instruction set: its name, whether it can run here, and if not, why."""

    name: str
    available: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """One GPU.

    Args:
        name: As the driver has it.
        capability: Compute capability, major and minor.
        processors: Streaming multiprocessors.
        shared_bytes: Most shared memory that a block can have.
    """

    name: str
    capability: tuple[int, int]
    processors: int
    shared_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaStatus:
    """Whether CUDA was built, the GPUs by index (also those that are too old), and one line that says so."""

    built: bool
    devices: tuple[CudaDevice, ...]
    text: str


def isa_report() -> tuple[IsaStatus, ...]:
    """All instruction sets, slowest first."""
    return _statuses(_core.isa_report())


def int8_isa_report() -> tuple[IsaStatus, ...]:
    """Those of the 8-bit products, slowest first."""
    return _statuses(_core.int8_isa_report())


def _statuses(report: list[tuple[str, bool, str]]) -> tuple[IsaStatus, ...]:
    return tuple(
        IsaStatus(name=name, available=available, reason=reason) for name, available, reason in report
    )


def available_isas() -> tuple[str, ...]:
    """Names of those that can run here, slowest first."""
    return tuple(status.name for status in isa_report() if status.available)


def available_int8_isas() -> tuple[str, ...]:
    """The same for 8-bit products."""
    return tuple(status.name for status in int8_isa_report() if status.available)


def cuda_status() -> CudaStatus:
    """What CUDA offers here; never an error for want of a GPU."""
    built, devices, text = _core.cuda_status()
    return CudaStatus(
        built=built,
        devices=tuple(
            CudaDevice(name=name, capability=(major, minor), processors=processors, shared_bytes=shared)
            for name, major, minor, processors, shared in devices
        ),
        text=text,
    )
