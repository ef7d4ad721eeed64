"""One torch thread: on a busy machine torch's threads wait for each other, and these tests are small.

And a cache of their own: what ``pysim tune`` found here must not decide what they see.
"""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path))
