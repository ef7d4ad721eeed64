"""What this machine offers: ``pysim info``."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass

import torch

import pysim
from pysim.data.embedded import PACK
from pysim.models import MODELS, pretrained_path
from pysim.sparse import IsaStatus, cuda_status, int8_isa_report, isa_report
from pysim.store import cache_folder


def default_threads() -> int:
    """2, or 1 where the process may use only one core."""
    return min(2, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """Version, instruction sets, CUDA, threads, data and cache of this installation."""

    pysim_version: str
    python_version: str
    torch_version: str
    isas: tuple[IsaStatus, ...]
    int8_isas: tuple[IsaStatus, ...]
    cuda: str
    cores: int
    default_threads: int
    models: tuple[str, ...]
    shipped_checkpoints: tuple[str, ...]
    data: str
    cache: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def render(self) -> str:
        """As aligned lines."""
        lines = [
            ("pysim", self.pysim_version),
            ("python", self.python_version),
            ("torch", self.torch_version),
            *(
                (f"{kind} {isa.name}", "available" if isa.available else f"off: {isa.reason}")
                for kind, isas in (("isa", self.isas), ("int8", self.int8_isas))
                for isa in isas
            ),
            ("cuda", self.cuda),
            ("threads", f"{self.default_threads} by default, {self.cores} core(s) usable"),
            ("models", ", ".join(self.models)),
            ("shipped weights", ", ".join(self.shipped_checkpoints) or "none"),
            ("data", self.data),
            ("cache", self.cache),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def describe_system() -> SystemFacts:
    """Looks at this machine and this installation."""
    embedded = f"{PACK.stat().st_size} bytes" if PACK.is_file() else "absent"
    return SystemFacts(
        pysim_version=pysim.__version__,
        python_version=platform.python_version(),
        torch_version=torch.__version__,
        isas=isa_report(),
        int8_isas=int8_isa_report(),
        cuda=cuda_status().text,
        cores=len(os.sched_getaffinity(0)),
        default_threads=default_threads(),
        models=tuple(MODELS),
        shipped_checkpoints=tuple(name for name in MODELS if pretrained_path(name, "fashion-mnist")),
        data=f"embedded fashion-mnist, {embedded}; also synthetic, idx:DIR, cifar10:DIR",
        cache=str(cache_folder()),
    )
