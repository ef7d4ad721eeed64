"""Training, evaluation and checkpoints."""

from pysim.training.batches import Batches
from pysim.training.checkpoint import load_tensors, load_weights, save_tensors
from pysim.training.loop import (
    Masks,
    Progress,
    TrainConfig,
    apply_masks,
    evaluate,
    no_progress,
    reestimate_batch_norm,
    train,
)

__all__ = [
    "Batches",
    "Masks",
    "Progress",
    "TrainConfig",
    "apply_masks",
    "evaluate",
    "load_tensors",
    "load_weights",
    "no_progress",
    "reestimate_batch_norm",
    "save_tensors",
    "train",
]
