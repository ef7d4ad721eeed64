"""What ``pysim tune`` keeps is found on the machine that it is for, and spares compress hopeless timings."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pysim
from pysim.errors import PysimWarning
from pysim.result import BreakEven, Tuning
from pysim.sparse import compression, tuning
from pysim.sparse.tuning import describe_machine, load_tuning, save_tuning, tuning_path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path))
    return tmp_path


def table(sparsity=(0.4, 0.5, 0.6), threads=1):
    rows = tuple(BreakEven(height=h, n=n, sparsity=sparsity) for h in (1, 4) for n in (1, 64))
    return Tuning(machine=describe_machine(threads), rows=rows)


def test_what_is_saved_is_found_again(cache):
    assert load_tuning(1) is None
    path = save_tuning(table(), 1)
    assert path.is_relative_to(cache)
    assert load_tuning(1) == table()
    assert load_tuning(2) is None  # another number of threads is another machine


@pytest.mark.parametrize("changed", [{"_cpu_name": "Another CPU"}, {"_kernels": "0" * 16}])
def test_another_machine_or_build_finds_nothing(cache, monkeypatch, changed):
    save_tuning(table(), 1)
    for name, value in changed.items():
        monkeypatch.setattr(tuning, name, lambda value=value: value)
    assert load_tuning(1) is None


GOOD = {"height": 4, "n": 1, "sparsity": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"null",
        b'{"schema": 1}',
        b" " * 70_000,
        {"schema": 2},
        {"machine": {}},
        {"rows": None},
        {"rows": [1]},
        {"rows": [{**GOOD, "sparsity": [0.3, 0.2, 0.1]}]},
        {"rows": [{**GOOD, "sparsity": [0.1, 0.2]}]},
        {"rows": [{**GOOD, "sparsity": [0.1, 0.2, 7]}]},
        {"rows": [{**GOOD, "sparsity": ["a", 0, 0]}]},
        {"rows": [{**GOOD, "sparsity": [0, 0, 10**400]}]},
        {"rows": [{**GOOD, "height": 0}]},
        {"rows": [{**GOOD, "n": "1"}]},
    ],
)
def test_a_broken_file_is_warned_of_and_counts_as_none(cache, text):
    if isinstance(text, dict):
        text = json.dumps({**table().to_json(), **text}).encode()
    path = tuning_path(1)
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    with pytest.warns(PysimWarning, match="pysim tune"):
        assert load_tuning(1) is None


@given(height=st.integers(1, 40), n=st.integers(1, 4000))
def test_the_nearest_measured_size_below_stands_for_a_layer(height, n):
    found = table().break_even(height, n)
    assert found is not None
    assert (found.height, found.n) == (4 if height >= 4 else 1, 64 if n >= 64 else 1)


def test_sizes_below_all_that_was_measured_are_not_guessed():
    rows = (BreakEven(height=4, n=64, sparsity=(0.1, 0.2, 0.3)),)
    known = Tuning(machine={}, rows=rows)
    assert known.break_even(2, 64) is None
    assert known.break_even(4, 63) is None
    assert known.break_even(4, 64) == rows[0]


def linear_model(share_kept, width=512):
    layer = nn.Linear(width, width)
    with torch.no_grad():
        layer.weight[:, round(share_kept * width) :] = 0
    return nn.Sequential(layer).eval()


def test_compress_leaves_layers_below_the_break_even_dense_without_timing_them(cache, monkeypatch):
    save_tuning(table((0.6, 0.7, 0.8)), 1)

    def refuse(*_):
        raise AssertionError("timed")

    monkeypatch.setattr(compression, "_measure", refuse)
    (choice,) = pysim.compress(linear_model(0.5), torch.randn(64, 512), block=(4, 4)).layers
    assert not choice.sparse
    assert choice.sparse_us is None
    assert choice.reason == "50 % pruned, break-even 60 to 80 % (pysim tune; not timed)"
    for arguments in ({"block": (4, 4), "use_tuning": False}, {"block": (4, 4)}):
        kept = 0.5 if "use_tuning" in arguments else 0.3  # above the break-even it is timed as ever
        with pytest.raises(AssertionError, match="timed"):
            pysim.compress(linear_model(kept), torch.randn(64, 512), **arguments)
    with pytest.raises(AssertionError, match="timed"):  # small layers are another matter
        pysim.compress(linear_model(0.5, 64), torch.randn(64, 64), block=(4, 4))
    found = pysim.compress(linear_model(0.5), torch.randn(64, 512), block=(4, 4), only_if_faster=False)
    assert found.layers[0].sparse


def test_compress_times_every_layer_where_nothing_was_tuned(cache):
    (choice,) = pysim.compress(linear_model(0.5), torch.randn(4, 512), block=(4, 4)).layers
    assert choice.sparse_us is not None
