"""Compares hardware with the engines of another build of the C++ core.

    python -m tests.rtl.with_core CORE DATAFLOW ROWS COLS SKIP     # exit status 0: they agree, 3: they do not

A process of its own, because the core is put in place before pysim is imported.
"""

from __future__ import annotations

import importlib.util
import sys

DIFFERENT = 3


def load_core(path: str) -> None:
    """Makes the extension module at ``path`` pysim._core."""
    spec = importlib.util.spec_from_file_location("pysim._core", path)
    assert spec is not None
    assert spec.loader is not None
    core = importlib.util.module_from_spec(spec)
    sys.modules["pysim._core"] = core
    spec.loader.exec_module(core)


def main(path: str, dataflow: str, rows: str, cols: str, skip: str) -> int:
    load_core(path)
    from hypothesis import HealthCheck, Phase, given, settings

    from pysim import _core
    from tests.rtl.build import program
    from tests.rtl.cases import cases
    from tests.rtl.model import MODELS
    from tests.rtl.simulator import Simulator, check

    assert _core.__file__ == path, f"expected the core at {path}, got {_core.__file__}"
    shape = (dataflow, int(rows), int(cols))
    model = next(model for model in MODELS if (model.dataflow, model.rows, model.cols) == shape)
    difference: list[str] = []

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases([model], skip))
    def every_case(case):
        if difference:
            return
        try:
            check(simulator, case)
        except (AssertionError, RuntimeError) as error:  # the latter: the engine itself found a rule broken
            difference.append(str(error).strip().partition("\n")[0])

    with Simulator([model], program([model])) as simulator:
        every_case()
    print(difference[0] if difference else "no difference")
    return DIFFERENT if difference else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
