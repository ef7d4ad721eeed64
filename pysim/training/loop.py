"""One plain training loop: SGD with Nesterov momentum, one learning-rate cycle, optional masks, resumable.

Defaults are those of docs/pruning.md. A run with ``state_path`` saves itself after every epoch and, started
again with the same settings, goes on from there to the same result on the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pysim.errors import ConfigError, DataError
from pysim.training.batches import Batches
from pysim.training.checkpoint import check_state, load_tensors, save_tensors

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and how much there is."""

Masks = Mapping[str, Tensor]
"""Parameter name to a bool tensor of the parameter's shape; False stays zero."""


def no_progress(what: str, done: int, total: int) -> None:
    """The default progress callback: says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train.

    Args:
        epochs: Passes over the training images, at least 0.
        batch_size: Images a step, at least 1.
        peak_lr: Highest learning rate, above 0.
        warmup_fraction: Part of all steps in which the rate climbs from 0 to ``peak_lr``; then it falls to 0.
        momentum: Nesterov momentum.
        weight_decay: On parameters of two or more dimensions only.
        label_smoothing: Of the cross entropy, training only.
        crop_pad: Zero border within which crops move, in pixels.
        flip: Mirror half the images left to right.
        seed: Of the order, crops and flips.

    Raises:
        ConfigError: A field is out of range.
    """

    epochs: int
    batch_size: int = 128
    peak_lr: float = 0.15
    warmup_fraction: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    crop_pad: int = 2
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("epochs", self.epochs >= 0, "at least 0"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("peak_lr", 0 < self.peak_lr < math.inf, "above 0 and finite"),
            ("warmup_fraction", 0 <= self.warmup_fraction < 1, "from 0 to below 1"),
            ("momentum", 0 < self.momentum < 1, "between 0 and 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("crop_pad", self.crop_pad >= 0, "at least 0"),
            ("seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1"),
        )
        for name, holds, expected in checks:
            if not holds:
                raise ConfigError(f"training.{name}: expected {expected}, got {getattr(self, name)}")


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """The rate of ``step`` (0-based): linear to the peak, then linear to zero after the last step."""
    warmup = config.warmup_fraction * total_steps
    if step < warmup:
        return config.peak_lr * (step + 1) / (math.floor(warmup) + 1)
    return config.peak_lr * (total_steps - step) / (total_steps - warmup)


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Sets every masked weight to zero, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    masks: Masks | None = None,
    state_path: Path | None = None,
    progress: Progress = no_progress,
) -> list[float]:
    """Trains ``model`` in place and leaves it in evaluation mode.

    Args:
        model: The network; its weights are moved to channels-last layout.
        batches: The data.
        config: How.
        masks: Weights held at zero, re-applied after every step.
        state_path: Where to save after every epoch, and to resume from if it exists; removed at the end.
        progress: Called after every step.

    Returns:
        The mean training loss of every epoch run by this call.

    Raises:
        DataError: ``state_path`` is broken or belongs to other settings.
        ConfigError: The loss is no longer finite.
    """
    masks = masks or {}
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    apply_masks(model, masks)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=True,
    )
    steps_per_epoch = math.ceil(batches.train_count / config.batch_size)
    total = config.epochs * steps_per_epoch
    first_epoch = 0
    if state_path is not None and state_path.is_file():
        first_epoch = _load_state(state_path, model, optimizer, config)
    losses = []
    for epoch in range(first_epoch, config.epochs):
        model.train()
        loss_sum = torch.zeros(())
        for step, (images, labels) in enumerate(
            batches.train(config.batch_size, seed=config.seed, epoch=epoch, flip=config.flip),
            start=epoch * steps_per_epoch,
        ):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step, total)
            loss = cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            apply_masks(model, masks)
            loss_sum += loss.detach() * len(labels)
            progress(f"training, epoch {epoch + 1} of {config.epochs}", step + 1, total)
        losses.append(float(loss_sum) / batches.train_count)
        if not math.isfinite(losses[-1]):
            raise ConfigError(
                f"training: the loss is {losses[-1]} in epoch {epoch + 1}", hint="Try a lower learning rate."
            )
        if state_path is not None:
            _save_state(state_path, model, optimizer, config, epoch + 1)
    model.eval()
    if state_path is not None:
        state_path.unlink(missing_ok=True)
    return losses


def _momentum(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    return {
        f"momentum.{name}": optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in model.named_parameters()
    }


def _save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.SGD, config: TrainConfig, epochs_done: int
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    note: dict[str, object] = {"config": asdict(config), "epochs_done": epochs_done}
    save_tensors(path, tensors | _momentum(model, optimizer), note)


def _load_state(path: Path, model: nn.Module, optimizer: torch.optim.SGD, config: TrainConfig) -> int:
    tensors, note = load_tensors(path)
    if note.get("config") != asdict(config):
        raise DataError(
            f"{path}: was saved by a run with other settings: {note.get('config')}",
            hint="Repeat that run's settings, or remove the file to start afresh.",
        )
    epochs_done = note.get("epochs_done")
    if not isinstance(epochs_done, int) or not 0 <= epochs_done <= config.epochs:
        raise DataError(f"{path}: expected epochs_done from 0 to {config.epochs}, got {epochs_done}")
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    expected |= {f"momentum.{name}": parameter for name, parameter in model.named_parameters()}
    check_state(path, tensors, expected)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        momentum = torch.empty_like(parameter, requires_grad=False)
        momentum.copy_(tensors[f"momentum.{name}"])
        optimizer.state[parameter]["momentum_buffer"] = momentum
    return epochs_done


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    batch_size: int = 500,
    what: str = "testing",
    progress: Progress = no_progress,
) -> float:
    """Accuracy on the test images, in percent."""
    model.eval()
    correct = seen = 0
    with torch.inference_mode():
        for images, labels in batches.test(batch_size):
            correct += int((model(images).argmax(dim=1) == labels).sum())
            seen += len(labels)
            progress(what, seen, batches.test_count)
    return 100.0 * correct / seen


def reestimate_batch_norm(
    model: nn.Module, batches: Batches, *, images: int = 2048, batch_size: int = 256
) -> None:
    """Replaces every batch norm's running statistics by plain means over the first training images.

    Pruning changes the statistics that batch norm has learnt; without this the first accuracy after pruning
    says more about them than about the mask.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    saved = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches that follow
    model.train()
    with torch.no_grad():
        for chunk in batches.train_head(images).split(batch_size):
            model(chunk)
    model.eval()
    for norm, momentum in saved:
        norm.momentum = momentum
