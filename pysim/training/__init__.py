"""Training, evaluation and checkpoints."""

from pysim.training.batches import Batches
from pysim.training.checkpoint import check_state, load_tensors, load_weights, save_tensors
from pysim.training.device import DEVICES, check_bf16, find_device, has_bf16
from pysim.training.evaluation import Progress, evaluate, no_progress, reestimate_batch_norm
from pysim.training.hooks import GROWING, GrowingMasks, Masks, Snapshot, StepHook
from pysim.training.loop import TrainConfig, apply_masks, train
from pysim.training.pruned_file import (
    PrunedFile,
    is_pruned_file,
    load_pruned,
    mask_tensors,
    save_pruned,
    split_masks,
)
from pysim.training.state import StateWarning, exclusive_state, remove_state
from pysim.training.threads import Threads, check_threads, training_threads
from pysim.training.together import train_together

__all__ = [
    "DEVICES",
    "GROWING",
    "Batches",
    "GrowingMasks",
    "Masks",
    "Progress",
    "PrunedFile",
    "Snapshot",
    "StateWarning",
    "StepHook",
    "Threads",
    "TrainConfig",
    "apply_masks",
    "check_bf16",
    "check_state",
    "check_threads",
    "evaluate",
    "exclusive_state",
    "find_device",
    "has_bf16",
    "is_pruned_file",
    "load_pruned",
    "load_tensors",
    "load_weights",
    "mask_tensors",
    "no_progress",
    "reestimate_batch_norm",
    "remove_state",
    "save_pruned",
    "save_tensors",
    "split_masks",
    "train",
    "train_together",
    "training_threads",
]
