"""Block pruning: which layers, which blocks, and zeros where blocks were."""

from pysim.pruning.one_shot import PruneConfig, element_masks, prunable_weights, prune_one_shot
from pysim.pruning.scores import kept_count, mean_magnitude, top_blocks

__all__ = [
    "PruneConfig",
    "element_masks",
    "kept_count",
    "mean_magnitude",
    "prunable_weights",
    "prune_one_shot",
    "top_blocks",
]
