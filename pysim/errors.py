"""Every error that pysim raises on purpose, so that a caller can catch one family."""

from __future__ import annotations

from collections.abc import Sequence


class PysimError(Exception):
    """Something the caller can put right.

    Args:
        message: "where: expected X, got Y".
        hint: What to do about it, one sentence; the command line prints it on its own line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(PysimError):
    """A setting is out of its range, or two settings exclude each other."""


class CombinedConfigError(ConfigError):
    """Several settings are wrong.

    Args:
        errors: Each of them, at least two.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        lines = [f"  {error}. {error.hint}" if error.hint else f"  {error}" for error in errors]
        super().__init__(
            "\n".join((f"expected settings that go together, got {len(errors)} mistakes", *lines))
        )
        self.errors = tuple(errors)


class DataError(PysimError):
    """A data set or checkpoint file is missing, truncated, oversized or not what it claims to be."""


class ModelError(PysimError):
    """A model is unknown, or does something that cannot be lowered."""


class ShapeError(PysimError):
    """An array has the wrong shape, type or layout."""


class PysimWarning(UserWarning):
    """Something that a result depends on and that its reader should know; the command line prints it."""


def printable(said: object) -> str:
    """What a library says about a file, on one line that a terminal shows as it is, cut at 300 letters."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(said))
    return text if len(text) <= 300 else f"{text[:297]}..."
