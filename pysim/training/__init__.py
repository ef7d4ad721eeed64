"""Training, evaluation and checkpoints."""

from pysim.training.batches import Batches
from pysim.training.checkpoint import check_state, load_tensors, load_weights, save_tensors
from pysim.training.evaluation import Progress, evaluate, no_progress, reestimate_batch_norm
from pysim.training.hooks import GROWING, GrowingMasks, Masks, Snapshot, StepHook
from pysim.training.loop import TrainConfig, apply_masks, train
from pysim.training.state import StateWarning, remove_state

__all__ = [
    "GROWING",
    "Batches",
    "GrowingMasks",
    "Masks",
    "Progress",
    "Snapshot",
    "StateWarning",
    "StepHook",
    "TrainConfig",
    "apply_masks",
    "check_state",
    "evaluate",
    "load_tensors",
    "load_weights",
    "no_progress",
    "reestimate_batch_norm",
    "remove_state",
    "save_tensors",
    "train",
]
