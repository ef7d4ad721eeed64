"""The thread pool: fork, several callers at once, and nothing touched outside the arrays."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockGrid


def _python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    return done.stdout


def test_a_forked_child_computes_with_threads_of_its_own():
    """fork copies the pool's memory and none of its threads: a child that waited for them would hang."""
    out = _python(
        """
        import os, sys, threading
        import numpy as np
        from pysim.sparse import BsrMatrix, SpmmPlan
        from pysim.workload import BlockGrid

        rng = np.random.default_rng(0)
        w = rng.standard_normal((256, 256)).astype(np.float32)
        x = rng.standard_normal((256, 200)).astype(np.float32)
        plan = SpmmPlan(BsrMatrix.from_dense(w, BlockGrid(m=256, k=256, bh=4, bw=4)), threads=3)
        expected = plan(x).tobytes()

        stop = threading.Event()
        def busy():
            while not stop.is_set():
                plan(x)
        thread = threading.Thread(target=busy)  # so that some forks happen in the middle of a product
        thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(plan(x).tobytes() == expected for _ in range(3)) else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
        assert plan(x).tobytes() == expected
        print("parent and children agree")
        """
    )
    assert out.strip() == "parent and children agree"


def test_one_plan_may_be_used_by_many_python_threads_at_once(isa):
    rng = np.random.default_rng(0)
    grid = BlockGrid(m=128, k=144, positions=9, bh=4, bw=4)
    w = rng.integers(-8, 9, (128, 144)).astype(np.float32)
    matrix = BsrMatrix.from_dense(w, grid)
    spmm = SpmmPlan(matrix, isa=isa, threads=3)
    conv = ConvPlan([matrix], kernel_size=(3, 3), padding=(1, 1), isa=isa, threads=2)
    columns = [rng.integers(-8, 9, (144, 90 + i)).astype(np.float32) for i in range(6)]
    images = [rng.integers(-8, 9, (2, 16, 9 + i, 11)).astype(np.float32) for i in range(6)]
    jobs = [(spmm, x, spmm(x)) for x in columns] + [(conv, x, conv(x)) for x in images]

    def repeat(job):
        plan, x, expected = job
        return all((plan(x) == expected).all() for _ in range(20))

    with ThreadPoolExecutor(len(jobs)) as pool:
        assert all(pool.map(repeat, jobs))


GUARDED = """
import ctypes, mmap, sys
import numpy as np
from pysim.sparse import BsrMatrix, ConvPlan, SpmmPlan
from pysim.workload import BlockGrid

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
kept = []

def guarded(shape, at_end):
    # An array that begins at the start or stops at the end of the only pages that may be touched.
    size = 4 * int(np.prod(shape))
    pages = -(-size // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), PAGE, 0) == 0, ctypes.get_errno()
    offset = (pages - 1) * PAGE - size if at_end else PAGE
    return np.frombuffer(memory, np.float32, size // 4, offset).reshape(shape)

isa = sys.argv[1]
rng = np.random.default_rng(0)
for m, k in ((1, 1), (5, 9), (8, 33)):
    w = rng.integers(-8, 9, (m, k)).astype(np.float32)
    matrix = BsrMatrix.from_dense(w, BlockGrid(m=m, k=k, bh=4, bw=3))
    plan = SpmmPlan(matrix, isa=isa, threads=2, trainable=True)
    for n in range(1, 70):
        for at_end in (False, True):
            x, y = guarded((k, n), at_end), guarded((m, n), at_end)
            x[:] = rng.integers(-8, 9, x.shape)
            plan(x, y)
            assert (y == w @ x).all()
            plan.weight_gradient(y, x)
            kept.clear()
grid = BlockGrid(m=6, k=45, positions=9, bh=4, bw=4)
w = rng.integers(-8, 9, (6, 45)).astype(np.float32)
for stride in (1, 2):
    plan = ConvPlan(
        [BsrMatrix.from_dense(w, grid)],
        kernel_size=(3, 3), padding=(1, 1), stride=(stride, stride), isa=isa,
    )
    for width in range(1, 40):
        for at_end in (False, True):
            x = guarded((2, 5, 3, width), at_end)
            x[:] = rng.integers(-8, 9, x.shape)
            plan(x, guarded((2, 6, -(-3 // stride), -(-width // stride)), at_end))
            kept.clear()
print("stayed inside")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect and anonymous mappings")
def test_nothing_is_read_or_written_outside_the_arrays(isa):
    """The arrays lie against pages that may not be touched; a stray access kills the child."""
    assert _python(GUARDED, isa).strip() == "stayed inside"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on address space")
def test_memory_that_a_worker_cannot_have_is_an_error_in_the_caller():
    """Each thread takes a workspace of its own; an exception that left a worker would end the process."""
    out = _python(
        """
        import os
        import resource
        import numpy as np
        from pysim.sparse import BsrMatrix, ConvPlan
        from pysim.workload import BlockGrid

        # 8 planes of 4001 x 4001 around images of one pixel: half a gigabyte for each thread.
        grid = BlockGrid(m=16, k=72, positions=9, bh=4, bw=4)
        matrix = BsrMatrix.from_dense(np.ones((16, 72), np.float32), grid)
        plan = ConvPlan(
            [matrix], kernel_size=(3, 3), dilation=(2000, 2000), padding=(2000, 2000), threads=2
        )
        small = ConvPlan([matrix], kernel_size=(3, 3), padding=(1, 1), threads=2)
        x = np.ones((128, 8, 1, 1), np.float32)
        expected = small(x)  # starts torch's threads
        in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))
        def recovers():
            try:
                plan(x)
            except MemoryError:
                return bool((small(x) == expected).all())
            return False

        print(recovers())  # on torch's threads
        child = os.fork()
        if child == 0:
            os._exit(0 if recovers() else 1)  # on threads of its own
        print(os.waitpid(child, 0)[1])
        """
    )
    assert out.split() == ["True", "0"]


def test_threads_are_not_started_for_work_that_is_not_worth_them():
    out = _python(
        """
        import os
        import numpy as np
        from pysim.sparse import BsrMatrix, SpmmPlan
        from pysim.workload import BlockGrid

        def multiply(side):
            grid = BlockGrid(m=side, k=side, bh=4, bw=4)
            matrix = BsrMatrix.from_dense(np.ones((side, side), np.float32), grid)
            before = len(os.listdir("/proc/self/task"))
            SpmmPlan(matrix, threads=3)(np.ones((side, 64), np.float32))
            return len(os.listdir("/proc/self/task")) - before

        print(multiply(8), multiply(256))
        """
    )
    assert out.split() == ["0", "2"]


def test_without_torch_the_kernels_have_threads_of_their_own():
    out = _python(
        """
        import os, sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from pysim import _core

        side, n = 256, 190
        rng = np.random.default_rng(0)
        w = rng.integers(-8, 9, (side, side)).astype(np.float32)
        blocks = np.ascontiguousarray(w.reshape(side // 4, 4, side // 4, 4).swapaxes(1, 2).reshape(-1, 4, 4))
        row_ptr = np.arange(0, len(blocks) + 1, side // 4)
        col_idx = np.tile(np.arange(side // 4, dtype=np.int32), side // 4)
        plans = [
            _core.SpmmPlan((side, side, 1, 4, 4), row_ptr, col_idx, blocks, isa="", threads=threads)
            for threads in (1, 2, 3)
        ]

        def multiply(seed):
            x = np.random.default_rng(seed).integers(-8, 9, (side, n)).astype(np.float32)
            y = np.empty((side, n), np.float32)
            plans[seed % 3].run(x, y)
            return bool((y == w @ x).all())

        before = len(os.listdir("/proc/self/task"))
        print(multiply(2), len(os.listdir("/proc/self/task")) - before)
        with ThreadPoolExecutor(4) as pool:
            print(all(pool.map(multiply, range(100))))
        assert "torch" not in sys.modules
        """
    )
    assert out.split() == ["True", "2", "True"]
