"""One line on stderr that says what is going on and how long it will take; nothing if nobody watches."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_REDRAW_SECONDS = 0.1


class ProgressLine:
    """A progress callback that draws on stderr if it is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._what = ""
        self._started = 0.0
        self._first_done = 0
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            return
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._first_done = what, now, done
        elif now - self._drawn < _REDRAW_SECONDS and done < total:
            return
        self._drawn = now
        advanced = done - self._first_done
        left = ""
        if advanced > 0 and done < total:
            seconds = (now - self._started) / advanced * (total - done)
            left = f", {seconds:.0f} s left" if seconds < 100 else f", {seconds / 60:.0f} min left"
        sys.stderr.write(f"\r\x1b[K{what}: {100 * done // max(total, 1)} %{left}")
        sys.stderr.flush()
