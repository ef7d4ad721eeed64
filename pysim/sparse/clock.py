"""Seconds of a number of calls, on the host's clock or between a GPU's events."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds_of(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds that ``repeats`` calls take.

    On a GPU these are the seconds between two events around the calls on the current stream, so they hold the
    GPU's work and whatever the host's launches delay it by.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3
