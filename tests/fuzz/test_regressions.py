"""No file makes a reader do more than raise an error of pysim's; what fuzzing once found stays found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import REGRESSIONS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on address space")
def test_every_reader_survives_its_past_findings_and_new_mutations_in_little_memory():
    """In a process of its own, whose memory is limited: a reader that believes a header would fail."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.replay"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_every_kept_finding_belongs_to_a_target():
    assert {path.name for path in REGRESSIONS.iterdir() if path.is_dir()} <= set(TARGETS)
