"""An interrupted training run on disk: weights, statistics, momentum, masks, random state, position.

A state is written whole under another name, then the last one becomes the one before and the new one the
last: at every moment, whatever is killed, one of the two can be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pysim.errors import DataError, PysimWarning
from pysim.training.checkpoint import check_state, load_tensors, save_tensors
from pysim.training.hooks import StepHook
from pysim.training.threads import MAX_THREADS


class StateWarning(PysimWarning):
    """The last saved state cannot be read; the one before is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far training is.

    Args:
        step: Optimiser steps done, counted from the schedule's start.
        loss_sum: Sum of the losses of this epoch's images so far.
        seen: Those images.
    """

    step: int
    loss_sum: Tensor
    seen: int


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.SGD,
    hook: StepHook,
    settings: Mapping[str, object],
    position: Position,
) -> None:
    """Makes the present the last state, and the last one the one before.

    Raises:
        DataError: It cannot be written, as on a full disk; what was saved before is still there.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:  # none for a parameter that the loss does not reach
            tensors[f"momentum.{name}"] = momentum
    tensors |= {f"hook.{name}": tensor for name, tensor in hook.state().items()}
    tensors |= {"loss_sum": position.loss_sum} | _random_states(position.loss_sum.device)
    note: dict[str, object] = {
        "settings": dict(settings),
        "step": position.step,
        "seen": position.seen,
        "threads": torch.get_num_threads(),
    }
    try:
        save_tensors(_next(path), tensors, note)
        if path.is_file():
            path.replace(_previous(path))
        _next(path).replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: training cannot save itself: {error}; what was saved before is kept",
            hint="Make room, then repeat the command: it goes on from the last good state.",
        ) from error


def remove_state(path: Path) -> None:
    """Removes every file of a state, half-written ones too."""
    unfinished = path.parent.glob(f".{glob.escape(path.name)}*.tmp") if path.parent.is_dir() else ()
    for file in (path, _previous(path), _next(path), *unfinished):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_state(path: Path) -> Iterator[Path | None]:
    """``path`` while no other process has it, else None: two that train the same must not mix their states.

    The lock goes with the process, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            yield path
        finally:
            lock.unlink(missing_ok=True)


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.SGD,
    hook: StepHook,
    settings: Mapping[str, object],
    total: int,
    *,
    saved_threads: bool = False,
) -> Position | None:
    """Puts the last readable state into model, optimiser, hook and random generator.

    With ``saved_threads`` PyTorch goes on with as many threads as the state was saved with.

    Returns:
        Where to go on; None if nothing was saved.

    Raises:
        DataError: No saved state can be read, or it belongs to other settings.
    """
    found = _read(path)
    if found is None:
        return None
    tensors, note = found
    if note.get("settings") != dict(settings):
        raise DataError(
            f"{path}: was saved by a run with other settings: {note.get('settings')}",
            hint="Repeat that run's settings, or start afresh with --restart.",
        )
    step, seen = note.get("step"), note.get("seen")
    if not isinstance(step, int) or not isinstance(seen, int) or not 0 <= step <= total or seen < 0:
        raise DataError(f"{path}: expected a step from 0 to {total}, got {step!r} after {seen!r} images")
    threads = note.get("threads")
    if saved_threads:
        if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
            raise DataError(f"{path}: expected the number of threads that it was saved with, got {threads!r}")
        torch.set_num_threads(threads)
    parameters = dict(model.named_parameters())
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    expected |= {f"momentum.{name}": p for name, p in parameters.items() if f"momentum.{name}" in tensors}
    device = next(iter(parameters.values())).device
    expected |= {"loss_sum": torch.zeros(())} | _random_states(device)
    of_hook = {name: tensor for name, tensor in tensors.items() if name.startswith("hook.")}
    check_state(path, {n: t for n, t in tensors.items() if n not in of_hook}, expected)
    try:
        hook.load(model, {name.removeprefix("hook."): tensor for name, tensor in of_hook.items()})
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: its masks or snapshots cannot be read: {error}") from error
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in parameters.items():
        if f"momentum.{name}" in tensors:
            momentum = torch.empty_like(parameter, requires_grad=False)
            momentum.copy_(tensors[f"momentum.{name}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
    torch.set_rng_state(tensors["random"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    return Position(step=step, loss_sum=tensors["loss_sum"].to(device), seen=seen)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Of torch's generators that training draws from: the CPU's, and a GPU's if it trains."""
    states = {"random": torch.get_rng_state()}
    return states | {"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, object]] | None:
    problems = []
    for file in (path, _previous(path)):
        if not file.is_file():
            continue
        try:
            found = load_tensors(file)
        except DataError as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{problems[0]}; going on from {file}", StateWarning, stacklevel=2)
        return found
    if problems:
        raise DataError("; ".join(problems), hint="Start afresh with --restart.")
    return None
