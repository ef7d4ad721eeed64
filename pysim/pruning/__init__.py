"""Block pruning: which layers, which blocks, and zeros where blocks were."""

from pysim.pruning.dead import DeadParts, EmptyLayerWarning, dead_parts, describe_dead
from pysim.pruning.layers import LAYOUTS, Layout, bsr_matrices, element_masks, prunable_weights
from pysim.pruning.one_shot import (
    MASK_CONTROLS,
    PruneConfig,
    all_kept,
    apply_block_masks,
    block_sparsity,
    check_layout,
    check_masks,
    miscounted_layers,
    prune_one_shot,
)
from pysim.pruning.packing import describe_masks, pack_bits, rebuild_masks, unpack_bits
from pysim.pruning.schedules import GROWTH, cubic, level_sparsities
from pysim.pruning.scopes import SCOPES
from pysim.pruning.scores import SCORES, kept_count, mean_magnitude, top_blocks

__all__ = [
    "GROWTH",
    "LAYOUTS",
    "MASK_CONTROLS",
    "SCOPES",
    "SCORES",
    "DeadParts",
    "EmptyLayerWarning",
    "Layout",
    "PruneConfig",
    "all_kept",
    "apply_block_masks",
    "block_sparsity",
    "bsr_matrices",
    "check_layout",
    "check_masks",
    "cubic",
    "dead_parts",
    "describe_dead",
    "describe_masks",
    "element_masks",
    "kept_count",
    "level_sparsities",
    "mean_magnitude",
    "miscounted_layers",
    "pack_bits",
    "prunable_weights",
    "prune_one_shot",
    "rebuild_masks",
    "top_blocks",
    "unpack_bits",
]
