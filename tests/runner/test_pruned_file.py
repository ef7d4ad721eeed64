"""A pruned network's file holds what it says, runs as it is, and a wrong one is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pysim.config import Accelerator
from pysim.data import load_dataset
from pysim.errors import ConfigError, DataError, ShapeError
from pysim.pruning import PruneConfig, bsr_matrices, pack_bits, unpack_bits
from pysim.runner import PruneRunConfig, RunConfig, prune, run
from pysim.runner.networks import fresh_model
from pysim.sparse import to_torch_bsr
from pysim.training import load_pruned, load_tensors, save_tensors

DATA = "synthetic:1x8x8"


@given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9))))
def test_packed_bits_round_trip_and_an_eighth_of_the_bytes(mask):
    bits = pack_bits(mask)
    assert len(bits) == -(-mask.size // 8)
    assert (unpack_bits(bits, mask.shape) == mask).all()
    with pytest.raises(ValueError, match="expected uint8"):
        unpack_bits(np.append(bits, np.uint8(0)), mask.shape)
    if mask.size % 8:
        with pytest.raises(ValueError, match="expected zeros"):
            unpack_bits(bits | np.uint8(1), mask.shape)


@pytest.fixture
def written(tiny, tmp_path):
    out = tmp_path / "pruned.safetensors"
    masks = PruneConfig(block=(2, 2), sparsity=0.6, scope="erk", score="l2")
    result = prune(
        PruneRunConfig(
            model=tiny, blocks=((2, 2),), prune=masks, data=DATA, dense_epochs=1, out=out, seeds=(3,)
        )
    )
    return tiny, out, result.trials[0]


def settings(model, path, **changes):
    return RunConfig(
        **{
            "model": model,
            "blocks": (),
            "accelerator": Accelerator(rows=4, cols=4),
            "data": DATA,
            "checkpoint": path,
            "measure": False,
            **changes,
        }
    )


def test_a_file_tells_its_whole_history(written):
    model, out, trial = written
    network = fresh_model(model, load_dataset(DATA), 0)
    file = load_pruned(out, model, network)
    assert sum(mask.blocks_kept for mask in file.masks.values()) == trial.blocks_kept
    assert (file.prune.block, file.prune.score, file.prune.scope, file.prune.seed) == ((2, 2), "l2", "erk", 3)
    assert file.facts["seed"] == 3
    assert file.facts["accuracy"] == trial.accuracy
    assert file.facts["data"]["sha256"] == load_dataset(DATA).fingerprint()
    assert file.facts["history"][0]["sparsity"] == 0.6
    assert set(file.facts["versions"]) == {"pysim", "python", "torch", "numpy", "safetensors"}


def test_a_run_takes_the_files_masks_and_trains_nothing(written, monkeypatch):
    model, out, trial = written
    work = []
    result = run(settings(model, out), lambda what, done, total: work.append(what))
    assert not [what for what in work if "training" in what]
    (block,) = result.runs
    assert block.block == (2, 2)
    assert block.accuracy.pruned == block.accuracy.before_finetune == trial.accuracy
    assert block.accuracy.dense == trial.dense
    assert sum(x.blocks_kept for x in block.layers if x.pruned) == trial.blocks_kept
    assert all(check.passed for check in block.checks)
    with pytest.raises(ConfigError, match=r"block: expected \(2, 2\)"):
        run(settings(model, out, blocks=((4, 4),)))


def test_a_files_weights_leave_as_block_sparse_matrices(written):
    model, out, trial = written
    network = fresh_model(model, load_dataset(DATA), 0)
    matrices = bsr_matrices(network, load_pruned(out, model, network).masks)
    assert sum(m.nnz_blocks for parts in matrices.values() for m in parts) == trial.blocks_kept
    (linear,) = matrices["6.weight"]
    assert np.array_equal(linear.to_dense(), network[6].weight.detach().numpy())
    assert np.array_equal(to_torch_bsr(linear).to_dense().numpy(), linear.to_dense())


@pytest.mark.parametrize("method", ["one-shot", "gradual", "imp-finetune", "lr-rewind"])
def test_a_pruned_network_is_pruned_further_and_nothing_grows_back(written, method, tmp_path):
    model, first, _ = written
    out = tmp_path / f"{method}.safetensors"
    masks = PruneConfig(block=(2, 2), sparsity=0.8)
    config = PruneRunConfig(
        model=model,
        blocks=((2, 2),),
        prune=masks,
        data=DATA,
        method=method,
        checkpoint=first,
        out=out,
        dense_epochs=1,
        level_rate=0.5,
    )
    trial = prune(config).trials[0]
    # Levels of 50 % are behind it already: 75 % and 80 % remain.
    assert len(trial.levels) == (2 if "imp" in method or "lr" in method else 1)
    network = fresh_model(model, load_dataset(DATA), 0)
    before, after = load_pruned(first, model, network).masks, load_pruned(out, model, network).masks
    assert sum(m.blocks_kept for m in after.values()) < sum(m.blocks_kept for m in before.values())
    for name, mask in after.items():
        assert not (mask.keep & ~before[name].keep).any()
    with pytest.raises(ConfigError, match="do not grow back"):
        prune(replace(config, prune=replace(masks, sparsity=0.3), method="one-shot"))
    with pytest.raises(ShapeError, match=r"in blocks of 1 x 1, got .* in blocks of 2 x 2"):
        prune(replace(config, blocks=((1, 1),), method="one-shot"))


def test_an_empty_layer_still_runs(tiny, tmp_path):
    out = tmp_path / "empty.safetensors"
    masks = PruneConfig(block=(8, 4), sparsity=0.95, scope="global")
    config = PruneRunConfig(model=tiny, blocks=((8, 4),), prune=masks, data=DATA, dense_epochs=1, out=out)
    trial = prune(config).trials[0]
    assert trial.empty
    result = run(settings(tiny, out, measure=True, threads=1))
    assert all(check.passed for check in result.runs[0].checks)


def test_a_pruned_file_is_not_a_dense_checkpoint_nor_the_other_way_round(written, tmp_path):
    model, _, _ = written
    dense = tmp_path / "dense.safetensors"
    network = fresh_model(model, load_dataset(DATA), 0)
    save_tensors(dense, dict(network.state_dict()), {})
    with pytest.raises(ConfigError, match="holds no masks"):
        run(settings(model, dense))
    with pytest.raises(DataError, match="without masks"):
        load_pruned(dense, model, network)


def changed(note, **changes):
    return note | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, n: (t, n | {"layout": "hwio"}), "a layout of kh,kw,cin, kernel, oihw, got 'hwio'"),
        (lambda t, n: (t, n | {"layout": "oihw"}), "layout 'oihw' in its settings, got 'kh,kw,cin'"),
        (
            lambda t, n: (t, n | {"layout": "oihw", "prune": n["prune"] | {"layout": "oihw"}}),
            "expected the order oihw, got kh,kw,cin",
        ),
        (
            lambda t, n: (t, n | {"layout": "kernel", "prune": n["prune"] | {"layout": "kernel"}}),
            "expected whole kernels, got some positions of one",
        ),
        (
            lambda t, n: (t, n | {"masks": {k: v | {"order": "x"} for k, v in n["masks"].items()}}),
            "expected order kh,kw,cin or oihw, got 'x'",
        ),
        (lambda t, n: (t, n | {"model": "resnet20"}), "expected model"),
        (lambda t, n: (t, n | {"schema": 2}), "expected schema 1"),
        (lambda t, n: (t, n | {"masks": {}}), "masks cannot be read"),
        (lambda t, n: (t, n | {"masks": 5}), "masks cannot be read"),
        (lambda t, n: (t, with_grid(n, m=10**12)), "masks cannot be read"),
        (lambda t, n: (t, with_grid(n, m=True)), "masks cannot be read"),
        (lambda t, n: (t, with_grid(n, bh=1, bw=4)), "block"),
        (lambda t, n: (t, with_grid(n, m=4, k=72)), "mask of 3.weight"),
        (lambda t, n: ({k: v for k, v in t.items() if k != "mask.3.weight"}, n), "masks cannot be read"),
        (lambda t, n: (t | {"mask.3.weight": t["mask.3.weight"][:-1]}, n), "expected uint8"),
        (lambda t, n: (t | {"mask.3.weight": t["mask.3.weight"].float()}, n), "expected uint8"),
        (lambda t, n: (t | {"3.weight": torch.ones(8, 4, 3, 3)}, n), "expected zeros"),
        (lambda t, n: (t | {"3.weight": torch.ones(8, 4, 3, 2)}, n), "3.weight: expected"),
        (lambda t, n: (t | {"more": torch.ones(1)}, n), "unexpected tensor"),
        (lambda t, n: (t, n | {"prune": n["prune"] | {"score": "l3"}}), "score: expected one of"),
        (lambda t, n: (t, n | {"prune": n["prune"] | {"block": [2.0, 2]}}), "block of integers"),
        (lambda t, n: (t, n | {"prune": {}}), "expected the settings"),
        (lambda t, n: (t, n | {"facts": []}), "expected facts"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(written, change, message):
    model, out, _ = written
    tensors, note = load_tensors(out)
    save_tensors(out, *change(tensors, note))
    with pytest.raises(DataError, match=message):
        load_pruned(out, model, fresh_model(model, load_dataset(DATA), 0))


def with_grid(note, **changes):
    masks = note["masks"]
    return note | {"masks": masks | {"3.weight": masks["3.weight"] | changes}}


def test_a_flipped_bit_is_noticed(written):
    model, out, _ = written
    content = bytearray(out.read_bytes())
    content[-20] ^= 4
    out.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        run(settings(model, out))
