"""Ctrl-C ends a run of the cycle engine, in whatever thread it is."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pysim import Accelerator, simulate_gemm
from pysim.config import Memory

# Each would take many seconds: 2**27 cycles of one PE; 1.2e9 cycles of a channel at which the array waits.
STEPPING = Accelerator(rows=1, cols=1)
STALLING = Accelerator(
    rows=1,
    cols=1,
    memory=Memory(input_bytes=2**20, weight_bytes=2**20, output_bytes=2**20, bandwidth=1e-5),
)
runs = pytest.mark.parametrize(
    ("machine", "side"), [(STEPPING, 512), (STALLING, 64)], ids=["stepping", "stalling"]
)


@pytest.fixture(autouse=True)
def _python_handles_interrupts():
    """A shell starts what it puts into the background with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def step(machine, side):
    w = np.ones((side, side), np.int8)
    return simulate_gemm(w, w, block=(1, 1), accelerator=machine, engine="cycle")


class Alarm:
    """Calls ``ring`` after a while, and knows how long ago that was."""

    def __init__(self, ring):
        self.ring, self.rang = ring, None
        self.timer = threading.Timer(0.3, self.run)
        self.timer.start()

    def run(self):
        self.rang = time.monotonic()
        self.ring()

    def seconds_ago(self):
        self.timer.join()
        return time.monotonic() - self.rang


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@runs
def test_a_run_in_the_main_thread_ends_within_a_second(machine, side):
    alarm = Alarm(interrupt)
    with pytest.raises(KeyboardInterrupt):
        step(machine, side)
    assert alarm.seconds_ago() < 1


@runs
def test_runs_in_several_threads_end_with_the_main_thread_that_waits_for_them(machine, side):
    """Leaving the pool's block waits for its threads; queued runs end as well."""
    found = []

    def run():
        with ThreadPoolExecutor(2) as pool:
            started = [pool.submit(step, machine, side) for _ in range(4)]
            found.extend([Alarm(interrupt), started])
            started[0].result()

    with pytest.raises(KeyboardInterrupt):
        run()
    alarm, started = found
    assert alarm.seconds_ago() < 1
    assert [type(run.exception()) for run in started] == [KeyboardInterrupt] * 4


def test_what_a_signal_handler_raises_ends_the_run():
    def handle(_signal, _frame):
        raise TimeoutError("enough")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        Alarm(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(TimeoutError, match="enough"):
            step(STEPPING, 512)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_raises_nothing_changes_nothing():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    try:
        machine = Accelerator(rows=1, cols=1)
        alone = step(machine, 128)
        timer = threading.Timer(0.001, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        assert step(machine, 128) == alone
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_runs_after_an_interrupt_and_beside_other_exceptions_are_left_alone():
    machine = Accelerator(rows=2, cols=2)
    with ThreadPoolExecutor(1) as pool:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert pool.submit(step, machine, 8).result().macs == 512
        try:
            raise ValueError
        except ValueError:
            assert pool.submit(step, machine, 8).result().macs == 512
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert step(machine, 8).macs == 512  # What the main thread does while it cleans up.
