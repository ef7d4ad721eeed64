"""Random layers for the hardware to run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from pysim.config import Skip
from tests.rtl.model import Model
from tests.rtl.work import Case


@st.composite
def cases(draw: st.DrawFn, models: Sequence[Model], skip: Skip) -> Case:
    """Ragged edges, several kernel positions, from nothing kept to all; pruned weights are not zero."""
    model = draw(st.sampled_from(models))
    # Columns combine only where there are many, and few and low blocks are kept: mux gets more of those.
    combine = skip == "mux"
    positions = draw(st.sampled_from([1, 1, 2, 4, 9]))
    fewest, most = (12 if combine else 1, 24) if positions == 1 else (1, 7)
    channels = draw(st.integers(fewest, most))
    m, k, n = draw(st.integers(4 if combine else 1, 20)), positions * channels, draw(st.integers(1, 20))
    bh = draw(st.sampled_from([1, 1, 1, 2, 3] if combine else [1, 2, 3, 4, 5, 6]))
    bw = draw(st.sampled_from([1, 1, 2, 3] if combine else [1, 2, 3, 4, 5, 6]))
    kept = draw(st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.5] if combine else [0.0, 0.1, 0.3, 0.6, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = -(-m // bh), positions * -(-channels // bw)
    limit = draw(st.sampled_from([8, 1 << (model.width - 1)]))  # small values, or all that an operand has
    return Case(
        model=model,
        skip=skip,
        pipelining=draw(st.sampled_from(["serial", "overlap"])),
        mux=draw(st.sampled_from([model.members, *range(1, model.members + 1)])),
        positions=positions,
        block=(bh, bw),
        mask=rng.random(grid) < kept,
        w=rng.integers(-limit, limit, (m, k)),
        x=rng.integers(-limit, limit, (k, n)),
        eager=draw(st.booleans()),
    )
