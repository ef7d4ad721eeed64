"""How many threads train: as many as PyTorch takes by itself, a number, or whichever is fastest just now."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from pysim.errors import ConfigError

Threads = int | Literal["probe"] | None
"""A number; the fastest of those tried at the start; None for PyTorch's own."""

_ROUNDS = 3
MAX_THREADS = 1024


def check_threads(threads: Threads) -> None:
    """Raises ConfigError if it is a number out of range."""
    if isinstance(threads, int) and not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"threads: expected from 1 to {MAX_THREADS}, or probe, got {threads}")


@contextlib.contextmanager
def training_threads(threads: Threads) -> Iterator[None]:
    """Sets the number if there is one; whatever is set inside, what was before is there again afterwards."""
    before = torch.get_num_threads()
    try:
        if isinstance(threads, int):
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def candidate_threads() -> list[int]:
    """Powers of two up to the cores that this process may use, and those cores."""
    cores = len(os.sched_getaffinity(0))
    return sorted({2**i for i in range(cores.bit_length())} | {cores})


def fastest_threads(
    step: Callable[[], object],
    counts: Sequence[int],
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """The number with which ``step`` took least: the median of three rounds, the numbers in turn.

    Each is called once untimed after every change, as threads are started then. Of two as fast the lower.
    """
    times: dict[int, list[float]] = {count: [] for count in counts}
    with training_threads(None):
        for _ in range(_ROUNDS):
            for count, seen in times.items():
                torch.set_num_threads(count)
                step()
                started = clock()
                step()
                seen.append(clock() - started)
    return min(counts, key=lambda count: (statistics.median(times[count]), count))
