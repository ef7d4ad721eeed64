"""One plain training loop: SGD with Nesterov momentum, one learning-rate cycle, optional masks, resumable.

Defaults are those of docs/pruning.md. A run with ``state_path`` saves itself as it goes and, started again
with the same settings, goes on from there to the same result, bit for bit, on the same machine.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pysim.errors import ConfigError
from pysim.training.batches import Batches
from pysim.training.device import check_bf16
from pysim.training.evaluation import Progress, no_progress
from pysim.training.hooks import Masks, StepHook
from pysim.training.stack import Stack, StackBatches
from pysim.training.state import Position, load_state, remove_state, save_state
from pysim.training.threads import candidate_threads, fastest_threads


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
        bf16: Convolutions and matrix products in bfloat16, as autocast chooses them; weights stay float32.

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
    bf16: bool = False

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


def on_device(masks: Masks, device: torch.device) -> Masks:
    """The same masks, where the weights are."""
    return {name: mask.to(device) for name, mask in masks.items()}


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Sets every masked weight to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)


def train(
    model: nn.Module,
    batches: Batches | StackBatches,
    config: TrainConfig,
    *,
    masks: Masks | None = None,
    hook: StepHook | None = None,
    start_step: int = 0,
    state_path: Path | None = None,
    save_every: int = 100,
    keep_state: bool = False,
    identity: str = "",
    channels_last: bool = True,
    probe_threads: bool = False,
    progress: Progress = no_progress,
) -> list[float]:
    """Trains ``model`` in place, on the device of ``batches``, and leaves it on the CPU in evaluation mode.

    Args:
        model: The network.
        batches: The data.
        config: How.
        masks: Weights held at zero, re-applied after every step.
        hook: Told of every step; may change the masks.
        start_step: Step of the schedule to begin at, from 0 to below the number of steps: rates, batches and
            crops are those of a whole run from there on.
        state_path: Where to save, and to resume from if it exists. The state before the last one is kept
            beside it and used if the last cannot be read.
        save_every: Steps between saves; an epoch's end is saved too.
        keep_state: Leave the last state when all is done, for a caller who has yet to write the result.
        identity: Of model and data: a state of another identity is refused.
        channels_last: Layout of weights and images, which PyTorch's convolutions prefer and pysim's do not.
        probe_threads: Try how many threads are fastest just now and leave that number set; a run that goes on
            takes the number of its saved state instead, as bits depend on it.
        progress: Called after every step.

    Returns:
        The mean training loss of every epoch finished by this call.

    Raises:
        DataError: The saved state is broken or belongs to other settings, or cannot be written.
        ConfigError: The loss is no longer finite, ``start_step`` is out of range, or bfloat16 is asked for
            where the processor does not have it.
    """
    device = batches.device
    if config.bf16:
        check_bf16(device)
    steps_per_epoch = math.ceil(batches.train_count / config.batch_size)
    total = config.epochs * steps_per_epoch
    if not 0 <= start_step <= max(total - 1, 0):
        raise ConfigError(f"training: expected a first step from 0 to {total - 1}, got {start_step}")
    hook = hook or StepHook()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = _optimizer(model, config)
    settings = {**asdict(config), "start_step": start_step, "identity": identity}
    losses = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)  # of whatever the model itself draws, such as dropout
        position = Position(step=start_step, loss_sum=torch.zeros((), device=device), seen=0)
        saved = None
        if state_path is not None:
            saved = load_state(
                state_path, model, optimizer, hook, settings, total, saved_threads=probe_threads
            )
        position = saved or position
        if probe_threads and saved is None:
            torch.set_num_threads(_fastest_threads(model, batches, config, layout))
        masks = on_device(hook.masks or masks or {}, device)
        apply_masks(model, masks)
        model.train()
        while position.step < total:
            epoch, skipped = divmod(position.step, steps_per_epoch)
            order = batches.train(config.batch_size, seed=config.seed, epoch=epoch, flip=config.flip)
            for images, labels in islice(order, skipped, None):
                step = position.step
                hook.begin_step(model, step, total)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, total)
                loss = _loss(model, images.contiguous(memory_format=layout), labels, config)
                optimizer.zero_grad()
                loss.backward()
                changed = hook.gradients_ready(model, step, total)
                if changed is not None:
                    changed = on_device(changed, device)
                    _forget_momentum(model, optimizer, masks, changed)
                    masks = changed
                optimizer.step()
                apply_masks(model, masks)
                position = Position(
                    step=step + 1,
                    loss_sum=position.loss_sum + loss.detach() * labels.shape[-1],
                    seen=position.seen + labels.shape[-1],
                )
                progress(f"training, epoch {epoch + 1} of {config.epochs}", step + 1, total)
                if state_path is not None and (step + 1) % save_every == 0:
                    save_state(state_path, model, optimizer, hook, settings, position)
            losses.append(float(position.loss_sum) / position.seen)
            if not math.isfinite(losses[-1]):
                raise ConfigError(
                    f"training: the loss is {losses[-1]} in epoch {epoch + 1}",
                    hint="Try a lower learning rate.",
                )
            position = Position(step=position.step, loss_sum=torch.zeros((), device=device), seen=0)
            if state_path is not None:
                save_state(state_path, model, optimizer, hook, settings, position)
    model.eval().to("cpu")
    if state_path is not None and not keep_state:
        remove_state(state_path)
    return losses


def _loss(model: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Mean over the images; of a stack the sum of its networks' means, so that each gradient is its own."""
    with torch.autocast(images.device.type, torch.bfloat16) if config.bf16 else nullcontext():
        outputs = model(images)
    smoothing = config.label_smoothing
    if labels.ndim == 1:
        return cross_entropy(outputs.float(), labels, label_smoothing=smoothing)
    flat = outputs.float().flatten(0, 1)
    return cross_entropy(flat, labels.flatten(), label_smoothing=smoothing, reduction="sum") / labels.shape[1]


def _fastest_threads(
    model: nn.Module, batches: Batches | StackBatches, config: TrainConfig, layout: torch.memory_format
) -> int:
    """Tried on a copy and the first batch; random numbers are drawn as if nothing had been tried."""
    trial = copy.deepcopy(model).train()
    images, labels = next(batches.train(config.batch_size, seed=config.seed, epoch=0, flip=config.flip))
    images = images.contiguous(memory_format=layout)
    with torch.random.fork_rng(devices=[batches.device] if batches.device.type == "cuda" else []):
        return fastest_threads(lambda: _loss(trial, images, labels, config).backward(), candidate_threads())


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    matrix = 3 if isinstance(model, Stack) else 2
    decayed = [p for p in model.parameters() if p.ndim >= matrix]
    plain = [p for p in model.parameters() if p.ndim < matrix]
    return torch.optim.SGD(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=True,
    )


def _forget_momentum(model: nn.Module, optimizer: torch.optim.SGD, before: Masks, after: Masks) -> None:
    """A weight that comes back starts without momentum: what it had is of the time it was held at zero."""
    for name, mask in after.items():
        parameter = model.get_parameter(name)
        momentum: Tensor | None = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None and name in before:
            momentum.mul_(~(mask & ~before[name]))
