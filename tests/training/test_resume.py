"""Whatever interrupts training, the same command ends in the same bits, or says clearly why it cannot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pysim.data.synthetic import make_synthetic
from pysim.errors import ConfigError, DataError
from pysim.pruning import PruneConfig, kept_count
from pysim.training import (
    GROWING,
    Batches,
    Snapshot,
    StateWarning,
    StepHook,
    TrainConfig,
    exclusive_state,
    load_tensors,
    save_tensors,
    train,
)


@pytest.fixture(scope="module")
def batches():
    return Batches(make_synthetic(train=96, test=50), crop_pad=2)


def tiny() -> nn.Module:
    """Batch norm has statistics, dropout draws random numbers, one parameter is never reached."""
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(72, 10),
    )
    model.unused = nn.Parameter(torch.ones(3))
    return model


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


class InterruptedRunError(Exception):
    pass


def stop_after(step):
    def progress(what, done, total):
        if done == step:
            raise InterruptedRunError

    return progress


CONFIG = TrainConfig(epochs=3, batch_size=16, peak_lr=0.05)  # 18 steps
PRUNE = PruneConfig(block=(2, 2), sparsity=0.7)


@pytest.fixture(scope="module")
def uninterrupted(batches):
    results = {}
    for name in (None, *GROWING):
        model = tiny()
        hook = StepHook() if name is None else GROWING[name](PRUNE)
        losses = train(model, batches, CONFIG, hook=hook)
        results[name] = (model, hook, losses)
    return results


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from([None, *GROWING]),
    stops=st.lists(st.integers(1, 18), min_size=1, max_size=3),
    every=st.integers(1, 7),
)
def test_stopped_anywhere_and_started_again_ends_in_the_same_bits(
    batches, uninterrupted, tmp_path_factory, method, stops, every
):
    state = tmp_path_factory.mktemp("run") / "state"

    def go(progress):
        model = tiny()
        hook = StepHook() if method is None else GROWING[method](PRUNE)
        train(model, batches, CONFIG, hook=hook, state_path=state, save_every=every, progress=progress)
        return model, hook

    for stop in sorted(set(stops)):
        with pytest.raises(InterruptedRunError):
            go(stop_after(stop))
    model, hook = go(lambda *_: None)
    whole, whole_hook, _ = uninterrupted[method]
    assert states_equal(model, whole)
    if method is not None:
        for name, mask in hook.block_masks.items():
            assert (mask.keep == whole_hook.block_masks[name].keep).all()
    assert list(state.parent.iterdir()) == []


def test_a_snapshot_survives_an_interruption_and_a_later_start_repeats_the_schedule_from_there(
    batches, tmp_path
):
    whole, snapshot = tiny(), Snapshot(7)
    train(whole, batches, CONFIG, hook=snapshot)
    again = Snapshot(7)
    with pytest.raises(InterruptedRunError):
        train(
            tiny(),
            batches,
            CONFIG,
            hook=again,
            state_path=tmp_path / "s",
            save_every=9,
            progress=stop_after(10),
        )
    again = Snapshot(7)
    train(tiny(), batches, CONFIG, hook=again, state_path=tmp_path / "s")
    assert set(again.tensors) == set(whole.state_dict())
    assert all(torch.equal(tensor, snapshot.tensors[name]) for name, tensor in again.tensors.items())
    # From step 7 the second epoch's remaining five and the third's six steps follow.
    steps = []
    late = tiny()
    late.load_state_dict(snapshot.tensors)
    train(late, batches, CONFIG, start_step=7, progress=lambda what, done, total: steps.append((done, total)))
    assert steps == [(done, 18) for done in range(8, 19)]
    with pytest.raises(ConfigError, match="first step from 0 to 17"):
        train(late, batches, CONFIG, start_step=18)


def test_masks_reach_the_asked_sparsity_while_training(uninterrupted):
    for name in GROWING:
        model, hook, _ = uninterrupted[name]
        (mask,) = hook.block_masks.values()
        assert mask.blocks_kept == kept_count(mask.blocks_total, 0.7), name
        weight = model[3].weight
        assert not weight[~hook.masks["3.weight"]].any()


def test_gradual_pruning_never_grows_back_and_rigl_keeps_its_count(batches):
    for method in ("gradual", "rigl"):
        hook, seen = GROWING[method](PRUNE), []

        def note(what, done, total, hook=hook, seen=seen):
            seen.extend(mask.keep.copy() for mask in hook.block_masks.values())

        train(tiny(), batches, CONFIG, hook=hook, progress=note)
        if method == "gradual":
            assert all(not (b & ~a).any() for a, b in pairwise(seen))
            assert seen[0].sum() > seen[-1].sum()
        else:
            assert len({keep.sum() for keep in seen}) == 1
            assert len({keep.tobytes() for keep in seen}) > 1


def test_ac_dc_lifts_its_masks_in_between(batches):
    hook, kept = GROWING["ac-dc"](PRUNE), []
    train(
        tiny(),
        batches,
        CONFIG,
        hook=hook,
        progress=lambda *_: kept.append(sum(m.blocks_kept for m in hook.block_masks.values())),
    )
    total = next(iter(hook.block_masks.values())).blocks_total
    assert total in kept
    assert kept[-1] == kept_count(total, 0.7)
    assert sum(a != b for a, b in pairwise(kept)) >= 3


def interrupted_state(batches, tmp_path, stop=15):
    state = tmp_path / "state"
    with pytest.raises(InterruptedRunError):
        train(tiny(), batches, CONFIG, state_path=state, save_every=5, progress=stop_after(stop))
    return state


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "absent"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(batches, tmp_path, uninterrupted, damage):
    state = interrupted_state(batches, tmp_path)
    content = bytearray(state.read_bytes())
    if damage == "truncated":
        state.write_bytes(content[:-100])
    elif damage == "flipped bit":
        content[-1000] ^= 1
        state.write_bytes(content)
    else:
        state.unlink()
    model = tiny()
    if damage == "absent":  # a kill between the two renames
        train(model, batches, CONFIG, state_path=state)
    else:
        with pytest.warns(StateWarning, match=r"going on from .*state\.previous"):
            train(model, batches, CONFIG, state_path=state)
    assert states_equal(model, uninterrupted[None][0])


def test_two_damaged_states_are_an_error_with_a_way_out(batches, tmp_path):
    state = interrupted_state(batches, tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(DataError, match="not a readable") as caught:
        train(tiny(), batches, CONFIG, state_path=state)
    assert "--restart" in caught.value.hint


def test_a_state_of_other_data_is_refused(batches, tmp_path):
    state = interrupted_state(batches, tmp_path)
    with pytest.raises(DataError, match="other settings"):
        train(tiny(), batches, CONFIG, state_path=state, identity="other data")


def test_a_hostile_state_is_a_data_error(batches, tmp_path):
    state = interrupted_state(batches, tmp_path)
    tensors, note = load_tensors(state)
    (tmp_path / "state.previous").unlink()
    for change in ({"step": 10**9}, {"step": "3"}, {"seen": -1}):
        save_tensors(state, tensors, note | change)
        with pytest.raises(DataError, match="expected a step"):
            train(tiny(), batches, CONFIG, state_path=state)
    for extra in ({"hook.x": torch.ones(3)}, {"momentum.y": torch.ones(3)}):
        save_tensors(state, tensors | extra, note)
        with pytest.raises(DataError, match=r"cannot be read|unexpected"):
            train(tiny(), batches, CONFIG, hook=GROWING["gradual"](PRUNE), state_path=state)
    save_tensors(state, {n: t for n, t in tensors.items() if n != "random"}, note)
    with pytest.raises(DataError, match="'random' is missing"):
        train(tiny(), batches, CONFIG, state_path=state)


def test_a_full_disk_is_a_clear_error_and_the_last_state_stays(tmp_path):
    """The system itself refuses: files may not grow beyond a few bytes."""
    out = tmp_path / "net.safetensors"
    code = (
        "import resource, sys; from pysim.cli import main\n"
        "if len(sys.argv) > 2: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "main(['train', 'lenet5', '--data', 'synthetic', '--epochs', '1', '--out', sys.argv[1]])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out), "full"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "cannot save itself" in done.stderr
    assert "Make room" in done.stderr
    assert list(tmp_path.iterdir()) == []


def trained(out, *options):
    code = "import torch; torch.set_num_threads(1); from pysim.cli import main; main()"
    command = ["train", "lenet5", "--data", "synthetic", "--epochs", "2", "--out", str(out), "--json"]
    return [sys.executable, "-c", code, *command, *options]


def test_kill_9_and_the_same_command_again_give_the_same_file(tmp_path):
    whole = tmp_path / "whole.safetensors"
    subprocess.run(trained(whole), check=True, capture_output=True)
    out = tmp_path / "killed" / "net.safetensors"
    state = out.with_name("net.safetensors.state")
    for saves in (2, 5):
        process = subprocess.Popen(trained(out, "--save-every", "1"), stdout=subprocess.DEVNULL)
        seen = set()
        while len(seen) < saves and process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                seen.add(state.stat().st_mtime_ns)
            time.sleep(0.001)
        assert process.poll() is None, "finished before it was killed"
        os.kill(process.pid, signal.SIGKILL)  # most likely while the next state is being written
        process.wait()
        assert not out.exists()
    done = subprocess.run(trained(out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()
    # A kill may leave a half-written temporary file, which nothing reads.
    left = {p.name for p in out.parent.iterdir() if not p.name.endswith(".tmp")}
    assert left == {out.name}


def test_a_full_disk_at_the_very_end_loses_no_training(tmp_path, monkeypatch):
    from pysim.runner import train_dense as call

    module = sys.modules["pysim.runner.train_dense"]

    def full_disk(path, tensors, note):
        raise OSError(28, "No space left on device")

    out = tmp_path / "net.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(module, "save_tensors", full_disk)
        with pytest.raises(OSError, match="No space"):
            call("lenet300", "synthetic:1x8x8", epochs=1, seed=0, out=out)
    steps = []
    call("lenet300", "synthetic:1x8x8", epochs=1, seed=0, out=out, progress=lambda w, d, t: steps.append(w))
    assert not [what for what in steps if "training" in what]
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_two_processes_that_train_the_same_do_not_share_a_state(tmp_path):
    with exclusive_state(tmp_path / "state") as mine, exclusive_state(tmp_path / "state") as other:
        assert (mine, other) == (tmp_path / "state", None)
    with exclusive_state(tmp_path / "state") as again:
        assert again is not None


def test_restart_forgets_the_saved_state(tmp_path):
    out = tmp_path / "net.safetensors"
    state = tmp_path / "net.safetensors.state"
    state.write_bytes(b"rubbish")
    done = subprocess.run(trained(out), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--restart" in done.stderr
    done = subprocess.run(trained(out, "--restart"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "lenet5"
