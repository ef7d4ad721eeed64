"""Block pruning for your accelerator: accuracy, simulated cycles and measured kernels, per block size."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Looked up on first use: `import pysim` stays instant, and torch is loaded only by what needs it.
_EXPORTS = {
    "Accelerator": "pysim.config",
    "compile": "pysim.sparse",
    "compress": "pysim.sparse",
    "simulate_gemm": "pysim.sim",
}

__all__ = ["Accelerator", "__version__", "compile", "compress", "simulate_gemm"]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'pysim' has no attribute {name!r}")
