"""What is wrong with the fields of one part of a machine, collected so that it can be told at once."""

from __future__ import annotations

from collections.abc import Sequence

from pysim.errors import CombinedConfigError, ConfigError


def raise_all(errors: Sequence[ConfigError]) -> None:
    """Raises the error, or all of them as one; does nothing if there is none.

    Raises:
        ConfigError: There is one.
        CombinedConfigError: There are several; of those that hold several each is told by itself.
    """
    single: list[ConfigError] = []
    for error in errors:
        single += error.errors if isinstance(error, CombinedConfigError) else (error,)
    if len(single) == 1:
        raise single[0]
    if single:
        raise CombinedConfigError(single)


class Problems:
    """Those of one part, ``memory`` say; a message begins with the part and the field.

    A check between fields is made where none of its fields has a problem of its own.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._errors: list[ConfigError] = []
        self._fields: set[str] = set()

    def add(self, field: str, message: str, *, hint: str | None = None) -> None:
        """Notes that ``field`` is wrong: "expected X, got Y"."""
        self._fields.add(field)
        self._errors.append(ConfigError(f"{self._part}.{field}: {message}", hint=hint))

    def spares(self, *fields: str) -> bool:
        """Whether none of these fields has a problem."""
        return self._fields.isdisjoint(fields)

    def raise_all(self) -> None:
        """Raises ConfigError if there is any problem, with all of them."""
        raise_all(self._errors)
