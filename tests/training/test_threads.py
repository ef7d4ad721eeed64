"""The number of threads: set, or tried and then kept by the state, because bits depend on it."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pysim.data.synthetic import make_synthetic
from pysim.errors import ConfigError, DataError
from pysim.training import (
    Batches,
    TrainConfig,
    check_threads,
    load_tensors,
    loop,
    save_tensors,
    train,
    training_threads,
)
from pysim.training.threads import candidate_threads, fastest_threads

CONFIG = TrainConfig(epochs=2, batch_size=16, peak_lr=0.05)


@pytest.fixture(scope="module")
def batches():
    return Batches(make_synthetic(train=96, test=50), crop_pad=2)


def tiny() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(256, 10),
    )


class InterruptedRunError(Exception):
    pass


@given(costs=st.dictionaries(st.sampled_from([1, 2, 3, 4]), st.integers(1, 9), min_size=1))
def test_the_fastest_is_taken_the_lower_of_two_as_fast_and_what_was_set_is_set_again(costs):
    """A clock that a step moves on by what its number of threads costs; one round in three is disturbed."""
    now, calls = [0.0], []

    def step():
        calls.append(torch.get_num_threads())
        disturbed = len(calls) > 2 * 2 * len(costs)
        now[0] += 100 - costs[calls[-1]] if disturbed else costs[calls[-1]]

    before = torch.get_num_threads()
    chosen = fastest_threads(step, sorted(costs), lambda: now[0])
    assert torch.get_num_threads() == before
    assert chosen == min(costs, key=lambda count: (costs[count], count))
    assert {calls.count(count) for count in costs} == {6}


def test_candidates_are_powers_of_two_up_to_the_cores_and_the_cores(monkeypatch):
    for cores, expected in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert candidate_threads() == expected


def test_a_number_is_set_and_taken_back_even_after_an_error():
    before = torch.get_num_threads()

    def interrupted():
        with training_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        interrupted()
    assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="threads: expected from 1 to 1024"):
        check_threads(0)


def run(batches, monkeypatch, fastest, *, state=None, stop=None, every=5):
    """Trains with a probe that finds ``fastest``; returns the weights and the threads of every step."""
    seen = []

    def progress(what, done, total):
        seen.append(torch.get_num_threads())
        if done == stop:
            raise InterruptedRunError

    monkeypatch.setattr(loop, "candidate_threads", lambda: [1, 2, 3])
    monkeypatch.setattr(loop, "fastest_threads", lambda step, counts: (step(), fastest)[1])
    model = tiny()
    with training_threads(None):
        train(
            model,
            batches,
            CONFIG,
            state_path=state,
            save_every=every,
            probe_threads=True,
            progress=progress,
        )
    return model.state_dict(), seen


def test_a_run_that_goes_on_takes_the_threads_of_its_state_whatever_is_fastest_now(
    batches, monkeypatch, tmp_path
):
    state = tmp_path / "state"
    with pytest.raises(InterruptedRunError):
        run(batches, monkeypatch, 2, state=state, stop=7)
    assert load_tensors(state)[1]["threads"] == 2
    _, seen = run(batches, monkeypatch, 1, state=state)
    assert set(seen) == {2}
    assert len(seen) == 6


def test_trying_changes_neither_weights_nor_random_numbers(batches, monkeypatch):
    model = tiny()
    train(model, batches, CONFIG)
    tried, seen = run(batches, monkeypatch, 1)
    assert set(seen) == {1}
    assert all(torch.equal(tried[name], tensor) for name, tensor in model.state_dict().items())


def test_a_state_without_a_number_of_threads_is_refused_by_a_probing_run(batches, monkeypatch, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(InterruptedRunError):
        run(batches, monkeypatch, 1, state=state, stop=6)
    tensors, note = load_tensors(state)
    for threads in (None, 0, "2", 10**9, True):
        save_tensors(state, tensors, note | {"threads": threads})
        with pytest.raises(DataError, match="expected the number of threads"):
            run(batches, monkeypatch, 1, state=state)
