"""What each output row or column of a pooling reads, as torch defines it."""

from __future__ import annotations

PoolRanges = tuple[tuple[int, int, int], ...]  # For each output: begin, end, and what an average divides by.


def window_ranges(
    size: int, out: int, *, kernel: int, stride: int, padding: int, count_padding: bool
) -> PoolRanges:
    """Windows of ``kernel`` every ``stride``, from ``-padding`` on; cut to the image.

    Args:
        size: Image rows or columns.
        out: Outputs; torch decides how many (its ``ceil_mode``).
        kernel: Rows or columns of a window.
        stride: From one window to the next.
        padding: Before the image.
        count_padding: Whether an average divides by the padding too (not by what lies beyond it).
    """
    ranges = []
    for i in range(out):
        start = i * stride - padding
        end = min(start + kernel, size + padding)
        begin, stop = max(start, 0), min(end, size)
        ranges.append((begin, stop, end - start if count_padding else stop - begin))
    return tuple(ranges)


def adaptive_ranges(size: int, out: int) -> PoolRanges:
    """``out`` windows that cover ``size`` evenly, as ``nn.AdaptiveAvgPool2d`` cuts them."""
    ranges = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    return tuple((begin, end, end - begin) for begin, end in ranges)
