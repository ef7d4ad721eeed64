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
    positions = draw(st.sampled_from([1, 1, 2, 4, 9]))
    channels = draw(st.integers(1, 24 if positions == 1 else 7))
    m, k, n = draw(st.integers(1, 20)), positions * channels, draw(st.integers(1, 20))
    bh, bw = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = -(-m // bh), positions * -(-channels // bw)
    limit = draw(
        st.sampled_from([8, 1 << (model.width - 1)])
    )  # the latter: all values that an operand can have
    return Case(
        model=model,
        skip=skip,
        pipelining=draw(st.sampled_from(["serial", "overlap"])),
        mux=draw(st.integers(1, model.members)),
        positions=positions,
        block=(bh, bw),
        mask=rng.random(grid) < draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0])),
        w=rng.integers(-limit, limit, (m, k)),
        x=rng.integers(-limit, limit, (k, n)),
        eager=draw(st.booleans()),
    )
