"""One object used by many threads, and by forked and spawned processes."""

import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

from pysim.sim import simulate_layer
from pysim.sparse import BsrLinear
from tests.robustness.shared_layer import GRID, MACHINES, MASK, RNG, both_engines


def test_threads_may_share_machines_masks_and_operands():
    expected = [both_engines(hw) for hw in MACHINES]
    at_once = threading.Barrier(6)

    def all_of_them(_):
        at_once.wait()
        return [both_engines(hw) for _ in range(3) for hw in MACHINES]

    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(all_of_them, range(6)):
            assert found == expected * 3


def test_threads_may_share_a_sparse_layer_forward_and_backward():
    torch.manual_seed(0)
    dense = torch.nn.Linear(64, 48)
    with torch.no_grad():
        dense.weight.copy_(torch.randint(-4, 5, (48, 64)))
        dense.bias.copy_(torch.randint(-4, 5, (48,)))
    keep = RNG.random((1, 12, 16)) < 0.4
    layer = BsrLinear.from_dense(dense, (4, 4), keep)
    inputs = [torch.randint(-4, 5, (7 + i, 64)).float() for i in range(8)]

    def passes(x):
        x = x.clone().requires_grad_()
        y = layer(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        return y.detach(), gradient

    expected = [passes(x) for x in inputs]
    with ThreadPoolExecutor(len(inputs)) as pool:
        for _ in range(40):
            for (y, gradient), (one, other) in zip(pool.map(passes, inputs), expected, strict=True):
                assert torch.equal(y, one)
                assert torch.equal(gradient, other)


def test_presets_may_be_read_first_by_many_threads_at_once():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            from concurrent.futures import ThreadPoolExecutor
            from threading import Barrier
            from pysim.config import PRESETS, load_hardware
            at_once = Barrier(8)
            def read(i):
                at_once.wait()
                return [load_hardware(name).accelerator == PRESETS[name] for name in PRESETS]
            with ThreadPoolExecutor(8) as pool:
                assert all(all(found) for found in pool.map(read, range(8)))
            """),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_results_and_machines_survive_pickling():
    for hw in MACHINES:
        assert pickle.loads(pickle.dumps(hw)) == hw
        result = simulate_layer(GRID, MASK, 30, hw)
        assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_count_what_their_parent_counts(method):
    """fork in the middle of other threads' work; spawn with everything pickled."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not there on this system")
    expected = [both_engines(hw) for hw in MACHINES]
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            both_engines(MACHINES[0])

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(both_engines, MACHINES, timeout=120)) == expected
    finally:
        stop.set()
        thread.join()
