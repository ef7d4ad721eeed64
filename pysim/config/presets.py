"""Arrays of known machines: shape and dataflow only, each with its source. All start from ``skip="none"``."""

from __future__ import annotations

import difflib
import re

from pysim.config.accelerator import Accelerator
from pysim.errors import ConfigError

DEFAULT_PRESET = "gemmini-16"

PRESETS: dict[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        # Gemmini's default configuration (Genc et al., DAC 2021): 16 x 16, ws or os chosen at run time.
        Accelerator(name="gemmini-16", rows=16, cols=16, dataflow="ws"),
        # Jouppi et al., ISCA 2017: 256 x 256, weights preloaded and double-buffered. Unverified against the
        # paper's text; 2 * 65536 MACs at 700 MHz give 91.8 TOPS against 92 published.
        Accelerator(name="tpu-v1", rows=256, cols=256, dataflow="ws"),
        # Chen et al., JSSC 2017: 12 x 14. The silicon is row stationary, which is not modelled: run as ws.
        Accelerator(name="eyeriss", rows=12, cols=14, dataflow="ws"),
        # The 8 x 8 edge core among ONNXim's configurations.
        Accelerator(name="edge-8", rows=8, cols=8, dataflow="ws"),
        # SCALE-Sim's own configuration files, for cross-checks with it; not the papers' machines. It starts
        # a fold when the one before has left.
        Accelerator(name="scalesim-eyeriss", rows=12, cols=14, dataflow="ws", pipelining="serial"),
        Accelerator(name="scalesim-tpu", rows=256, cols=256, dataflow="os", pipelining="serial"),
    )
}


def load_accelerator(name: str) -> Accelerator:
    """The preset of this name.

    Raises:
        ConfigError: There is none; the message lists the names, the hint the nearest.
    """
    if name in PRESETS:
        return PRESETS[name]
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", name)
    if size:
        return Accelerator(name="custom", rows=int(size[1]), cols=int(size[2]))
    nearest = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
    raise ConfigError(
        f"accelerator: expected ROWSxCOLS or one of {', '.join(sorted(PRESETS))}, got {name!r}",
        hint=f"Did you mean {nearest[0]}?" if nearest else None,
    )
