"""A speedup is that of ``pysim run``, and a busy machine is not timed."""

from __future__ import annotations

import pytest

from pysim.errors import ConfigError
from pysim.pruning import PruneConfig
from pysim.runner import PruneRunConfig, RunConfig, prune, run, speedup
from pysim.runner.networks import Source, network_from_file
from pysim.runner.speedup import accelerator_for, measured_speedup, simulated_speedup

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
    image, _ = next(source.batches.test(1))
    found = simulated_speedup(pruned.model, pruned.masks, (2, 2), image, machine)
    assert found == run(config).runs[0].speedup


@pytest.mark.parametrize(("others", "measured"), [(0.0, True), (0.1, True), (0.2, False), (None, False)])
def test_only_a_machine_without_other_work_is_timed(network, monkeypatch, others, measured):
    *_, source, pruned = network
    monkeypatch.setattr(speedup, "cores_used_by_others", lambda before, after: others)
    image, _ = next(source.batches.test(1))
    found = measured_speedup(pruned.model, pruned.masks, image, 1)
    assert (found is not None) == measured


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError):
        accelerator_for("gemmini-16", "jump")
