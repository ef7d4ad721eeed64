"""Checks of what callers hand to the kernels: arrays of numpy or torch, and settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pysim.errors import ConfigError, ShapeError
from pysim.sparse.bsr import BsrMatrix

Float32Array = npt.NDArray[np.float32]
ArrayT = TypeVar("ArrayT", Float32Array, Tensor)
ScalarT = TypeVar("ScalarT", bound=np.generic)


class ElementType(NamedTuple):
    """An element type as numpy and torch call it. Looked up once: a call has microseconds."""

    name: str
    numpy: np.dtype[np.generic]
    torch: torch.dtype


def element_type(name: str) -> ElementType:
    """That of a name that both libraries know."""
    kind: torch.dtype = getattr(torch, name)
    return ElementType(name, np.dtype(name), kind)


FLOAT32 = element_type("float32")


def check_matrix(matrix: BsrMatrix, where: str) -> None:
    if not isinstance(matrix, BsrMatrix):
        raise ConfigError(f"{where}: expected BsrMatrix, got {type(matrix).__name__}")


@contextlib.contextmanager
def as_config_error(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        text = str(error)
        raise ConfigError(text if ": expected" in text else f"{where}: {text}") from error


def isa_name(isa: str | None) -> str:
    if isa is not None and not isinstance(isa, str):
        raise ConfigError(f"isa: expected a name, got {isa!r}")
    return isa or ""


def integer(value: int, where: str) -> int:
    """``value``, an int that fits in 32 bits. Raises ConfigError."""
    if not isinstance(value, int) or abs(value) >= 2**31:
        raise ConfigError(f"{where}: expected an integer, got {value!r}")
    return value


def pair(value: tuple[int, int], where: str) -> tuple[int, int]:
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(isinstance(side, int) and abs(side) < 2**62 for side in value)
    ):
        raise ConfigError(f"{where}: expected two integers, got {value!r}")
    return value[0], value[1]


def numbers(values: npt.ArrayLike | None, count: int) -> list[float] | None:
    if values is None:
        return None
    try:
        array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"bias: expected {count} numbers, got {values!r}") from error
    numbers: list[float] = array.ravel().tolist()
    return numbers


def empty_like(x: ArrayT, shape: tuple[int, ...]) -> ArrayT:
    if isinstance(x, Tensor):
        return torch.empty(shape, dtype=torch.float32)
    return np.empty(shape, dtype=np.float32)


def as_numpy(array: Float32Array | Tensor, where: str) -> Float32Array:
    """``typed_numpy`` for float32."""
    return typed_numpy(array, where, FLOAT32)


def typed_numpy(array: npt.NDArray[ScalarT] | Tensor, where: str, kind: ElementType) -> npt.NDArray[ScalarT]:
    """The same memory as a numpy array. Raises ShapeError for another type, dtype or device."""
    if isinstance(array, Tensor):
        if array.device.type != "cpu" or array.layout != torch.strided:
            raise ShapeError(
                f"{where}: expected a dense tensor on the CPU, got {array.layout} on {array.device}"
            )
        if array.dtype != kind.torch:
            raise ShapeError(f"{where}: expected {kind.name}, got {array.dtype}")
        return array.detach().numpy() if array.requires_grad else array.numpy()
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"{where}: expected a {kind.name} array, got {type(array).__name__}")
    if array.dtype != kind.numpy:
        raise ShapeError(f"{where}: expected {kind.name}, got {array.dtype}")
    return array
