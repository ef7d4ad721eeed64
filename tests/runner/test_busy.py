"""The share of the cores that other programs take, from hand-made counters and from a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pysim.runner.busy import CoreUse, core_use, cores_used_by_others


def test_others_have_what_is_busy_and_not_our_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    before = CoreUse(busy=100.0, own=10.0, total=200.0)
    # 10 s on two cores: 15 core-seconds busy, 5 of them ours.
    after = CoreUse(busy=115.0, own=15.0, total=220.0)
    assert cores_used_by_others(before, after) == pytest.approx(1.0)


def test_ticks_that_round_in_our_favour_are_not_less_than_nobody():
    before = CoreUse(busy=0.0, own=0.0, total=1.0)
    assert cores_used_by_others(before, CoreUse(busy=1.0, own=1.1, total=2.0)) == 0.0


def test_what_the_system_does_not_say_is_unknown(tmp_path):
    some = CoreUse(busy=0.0, own=0.0, total=1.0)
    assert core_use(tmp_path / "absent") is None
    assert cores_used_by_others(None, some) is None
    assert cores_used_by_others(some, some) is None


def test_only_the_cores_of_this_process_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    tick = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  999 0 0 0 0 0 0 0 0 0\n"
        f"cpu0 {900 * tick} 0 0 0 0 0 0 0 0 0\n"
        f"cpu1 {1 * tick} {2 * tick} {3 * tick} {40 * tick} {5 * tick} {6 * tick} {7 * tick} {8 * tick} 1 1\n"
        "intr 1 2 3\n"
    )
    use = core_use(stat)
    assert use is not None
    assert (use.busy, use.total) == (1 + 2 + 3 + 6 + 7 + 8, 72)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_a_program_beside_us_is_seen():
    spin = "while True: pass"
    before = core_use()
    beside = subprocess.Popen([sys.executable, "-c", spin])
    try:
        time.sleep(1.0)
        after = core_use()
    finally:
        beside.kill()
        beside.wait()
    load = cores_used_by_others(before, after)
    assert load is not None
    assert load > 0.3
