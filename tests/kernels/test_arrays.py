"""What the kernels take for a float32 array: plain tensors through torch's C interface, and all others."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pysim.errors import ShapeError
from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.workload import BlockGrid

PLAN = SpmmPlan(BsrMatrix.from_dense(np.arange(16).reshape(4, 4), BlockGrid(m=4, k=4, bh=2, bw=2)))
X = torch.arange(8, dtype=torch.float32).reshape(4, 2)
EXPECTED = torch.arange(16, dtype=torch.float32).reshape(4, 4) @ X


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "x",
    [
        X,
        nn.Parameter(X.clone()),
        X.clone().requires_grad_(),
        X.clone().as_subclass(Subclass),
        torch.cat([torch.zeros(3, 2), X])[3:],
        torch.cat([X, X], dim=1)[:, :2],
        torch.complex(torch.zeros(4, 2), -X).conj().imag.resolve_neg(),
    ],
)
def test_tensors_of_every_kind_are_read(x):
    y = PLAN(x)
    assert isinstance(y, torch.Tensor)
    assert not y.requires_grad
    assert torch.equal(y, EXPECTED)


def test_a_lazily_negated_tensor_is_refused_rather_than_read_with_the_wrong_sign():
    x = torch.complex(torch.zeros(4, 2), -X).conj().imag
    assert x.is_neg()
    with pytest.raises((ShapeError, RuntimeError)):
        PLAN(x)


def test_a_result_may_be_resized_and_is_of_the_default_kind():
    with torch.inference_mode():
        assert PLAN(X).is_inference()
    y = PLAN(X)
    assert y.dtype == torch.float32
    assert y.resize_(9, 9).shape == (9, 9)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert PLAN(X).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


def test_without_the_c_interface_tensors_are_read_all_the_same():
    """torch before 2.10 does not have it."""
    code = """
import torch
del torch.Tensor.__dlpack_c_exchange_api__
import tests.kernels.test_arrays as t
for x in (t.X, t.nn.Parameter(t.X.clone()), t.torch.cat([t.X, t.X], dim=1)[:, :2]):
    assert torch.equal(t.PLAN(x), t.EXPECTED)
out = torch.empty(4, 2)
assert t.PLAN(t.X, out) is out and torch.equal(out, t.EXPECTED)
print("same")
"""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch does not have it")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr


def test_the_output_may_be_of_the_other_library():
    out = np.empty((4, 2), np.float32)
    assert PLAN(X, out) is out
    np.testing.assert_array_equal(out, EXPECTED.numpy())
