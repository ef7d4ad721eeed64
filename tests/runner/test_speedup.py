"""A speedup is that of ``pysim run``, and a busy machine is not timed."""

from __future__ import annotations

import pytest

from pysim.errors import ConfigError
from pysim.pruning import PruneConfig
from pysim.runner import PruneRunConfig, RunConfig, prune, run, speedup
from pysim.runner.speedup import Speedometer, accelerator_for, machine_is_quiet
from pysim.runner.stages import Source, network_from_file

DATA = "synthetic:1x8x8"


@pytest.fixture
def network(tiny, tmp_path):
    out = tmp_path / "pruned.safetensors"
    masks = PruneConfig(block=(2, 2), sparsity=0.75)
    prune(PruneRunConfig(model=tiny, blocks=((2, 2),), prune=masks, data=DATA, dense_epochs=1, out=out))
    source = Source(DATA, None)
    return tiny, out, source, network_from_file(tiny, out, source, lambda what, done, total: None)[1]


def test_the_simulated_speedup_is_that_of_a_run(network):
    model, out, source, pruned = network
    machine = accelerator_for("4x4", "gather")
    config = RunConfig(model=model, blocks=(), accelerator=machine, data=DATA, checkpoint=out, measure=False)
    found = Speedometer(machine, source, None)(pruned, (2, 2))
    assert found.simulated == run(config).runs[0].speedup
    assert found.measured is None


def test_only_a_quiet_machine_is_timed(network, monkeypatch):
    *_, source, pruned = network
    meter = Speedometer(accelerator_for("4x4", "gather"), source, 1)
    for quiet, measured in ((True, True), (False, False)):
        monkeypatch.setattr(speedup, "machine_is_quiet", lambda quiet=quiet: quiet)
        assert (meter(pruned, (2, 2)).measured is not None) == measured


def test_others_that_begin_while_a_network_is_timed_spoil_the_timing(network, monkeypatch):
    *_, source, pruned = network
    answers = iter([True, False])
    monkeypatch.setattr(speedup, "machine_is_quiet", lambda: next(answers))
    assert Speedometer(accelerator_for("4x4", "gather"), source, 1)(pruned, (2, 2)).measured is None


@pytest.mark.parametrize(
    ("ticks", "quiet"),
    [
        ([(100, 1000), (104, 1100)], True),  # 4 of 100 ticks
        ([(100, 1000), (106, 1100)], False),
        ([(100, 1000), (100, 1000)], False),  # the clock stands: nothing can be said
        ([None, None], False),
    ],
)
def test_quiet_is_at_most_a_twentieth_busy(monkeypatch, ticks, quiet):
    samples = iter(ticks)
    monkeypatch.setattr(speedup, "_processor_ticks", lambda: next(samples))
    assert machine_is_quiet(0) == quiet


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError):
        accelerator_for("gemmini-16", "jump")
