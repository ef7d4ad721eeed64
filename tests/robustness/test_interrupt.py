"""Ctrl-C ends what is running at once, and leaves no file half-written."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pysim.atomic import write_atomic
from pysim.training import load_tensors

# On a quiet machine all of these take well under a second; tests run beside others.
SECONDS = 2.0

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs pseudo-terminals")


class Running:
    """A process whose standard error is a terminal, as when somebody watches."""

    def __init__(self, code, *args, env=None):
        self.terminal, theirs = pty.openpty()
        command = [sys.executable, "-c", textwrap.dedent(code), *args]
        self.process = subprocess.Popen(
            command,
            stderr=theirs,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            # A shell starts what it puts into the background with interrupts ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        self.text = b""

    def wait_for(self, word):
        while word not in self.text:
            try:
                self.text += os.read(self.terminal, 1 << 16)
            except OSError:  # Linux: the other side has gone
                pytest.fail(f"ended before {word}: {self.text.decode(errors='replace')}")

    def interrupt(self):
        """Sends what Ctrl-C sends. Returns the exit status and the seconds until the end."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            while True:
                self.text += os.read(self.terminal, 1 << 16)
        except OSError:
            pass
        status = self.process.wait(timeout=60)
        self.process.stdout.close()
        os.close(self.terminal)
        return status, time.monotonic() - started


def pysim(*args, cache):
    return Running("from pysim.cli import main; main()", *args, env={"PYSIM_CACHE": str(cache)})


def all_readable(folder):
    """Whether every file is a whole checkpoint; none is a remainder of writing."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".lock"):
            load_tensors(path)
    return not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize(
    "word",
    [
        b"training, epoch 1",
        pytest.param(b"block 4x4: training", marks=pytest.mark.slow),
        pytest.param(b"timing kernels", marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_within_a_second_wherever_it_is_and_leaves_whole_files(word, tmp_path):
    args = ("run", "lenet5", "--block", "4,8", "--data", "synthetic", "--dense-epochs", "1")
    running = pysim(*args, cache=tmp_path)
    running.wait_for(word)
    status, seconds = running.interrupt()
    assert status == 130, running.text.decode(errors="replace")
    assert b"error: interrupted" in running.text
    assert b"Traceback" not in running.text
    assert all_readable(tmp_path)
    assert seconds < SECONDS


def test_ctrl_c_while_torch_is_still_being_imported_is_no_traceback(tmp_path):
    running = Running(
        """
        import os, sys
        import pysim.cli
        class Slow:
            def find_spec(self, name, path, target=None):
                if name == "torch":
                    os.write(2, b"importing")
                    import time; time.sleep(60)
        sys.meta_path.insert(0, Slow())
        pysim.cli.main(["run", "lenet5", "--block", "4"])
        """,
        env={"PYSIM_CACHE": str(tmp_path)},
    )
    running.wait_for(b"importing")
    status, seconds = running.interrupt()
    assert status == 130
    assert b"Traceback" not in running.text
    assert seconds < SECONDS


LARGE = """
    import os, threading
    import numpy as np
    from pysim import Accelerator
    from pysim.config import Dram, Memory
    from pysim.sim import simulate_layer
    from pysim.sim.timeline import list_timeline
    from pysim.workload import BlockGrid

    dram = Dram(banks=8, row_bytes=8192, t_cl=11, t_rcd=11, t_rp=11, t_rfc=128, t_refi=6240)
    memory = Memory(
        input_bytes=1 << 18,
        weight_bytes=1 << 16,
        output_bytes=1 << 18,
        bandwidth=4.0,
        mode="rowbuffer",
        dram=dram,
    )
    hw = Accelerator(rows=4, cols=4, dataflow="{dataflow}", skip="gather", memory=memory)
    side = 4096 if hw.dataflow == "ws" else 2048
    grid = BlockGrid(m=side, k=side, bh=4, bw=4)
    mask = np.random.default_rng(0).random(grid.shape) < 0.2  # 20 seconds of work and more
    def work():
        {call}
"""


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_the_event_engine_with_memory_can_be_interrupted(dataflow):
    code = LARGE.format(dataflow=dataflow, call="simulate_layer(grid, mask, 4096, hw)")
    running = Running(textwrap.dedent(code) + "os.write(2, b'started')\nwork()\n")
    running.wait_for(b"started")
    time.sleep(0.3)
    status, seconds = running.interrupt()
    assert status == -signal.SIGINT
    assert b"KeyboardInterrupt" in running.text
    assert seconds < SECONDS


def test_the_event_engine_of_another_thread_ends_with_the_main_thread():
    code = textwrap.dedent(LARGE.format(dataflow="is", call="simulate_layer(grid, mask, 4096, hw)"))
    code += textwrap.dedent(
        """
        thread = threading.Thread(target=work)
        thread.start()
        os.write(2, b"started")
        try:
            thread.join()
        except KeyboardInterrupt:
            thread.join()  # as a ThreadPoolExecutor does on its way out
            os.write(2, b"both ended")
        """
    )
    running = Running(code)
    running.wait_for(b"started")
    time.sleep(0.3)
    _, seconds = running.interrupt()
    assert b"both ended" in running.text
    assert seconds < SECONDS


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(temporary):
        temporary.write_bytes(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
