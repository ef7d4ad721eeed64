"""What trains: the CPU or a GPU, and whether it has bfloat16."""

from __future__ import annotations

import torch

from pysim.errors import ConfigError

DEVICES = ("cpu", "cuda")


def find_device(name: str) -> torch.device:
    """A device that PyTorch can use here.

    Raises:
        ConfigError: The name is unknown, or there is no such device.
    """
    if name not in DEVICES:
        raise ConfigError(f"device: expected one of {', '.join(DEVICES)}, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        built = "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch is built for the CPU alone"
        raise ConfigError(
            f"device: expected a GPU for cuda: {built}",
            hint="Leave out --device, or install PyTorch for CUDA where there is a GPU.",
        )
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_bf16(device: torch.device) -> None:
    """Raises ConfigError if the device has no bfloat16."""
    if not has_bf16(device):
        raise ConfigError(
            f"bf16: expected a {device.type} that multiplies bfloat16 (AVX-512 BF16 or AMX), got another",
            hint="Leave out --bf16.",
        )
