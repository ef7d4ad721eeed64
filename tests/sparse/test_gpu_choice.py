"""Which GPU may be used and what is said where none may; compress on a model that is on a GPU."""

import copy

import pytest
import torch
from torch import nn

import pysim
from pysim.errors import ConfigError, ShapeError
from pysim.sparse import BsrLinear, CudaDevice, CudaStatus, compression, cuda_status
from pysim.sparse.gpu import EMULATED, math_for, usable_device

HOPPER = CudaDevice(name="H100", capability=(9, 0), processors=132, shared_bytes=232448)
VOLTA = CudaDevice(name="V100", capability=(7, 0), processors=80, shared_bytes=98304)


def status(*devices, built=True, text="here"):
    return CudaStatus(built=built, devices=devices, text=text)


@pytest.mark.parametrize(
    ("device", "found", "message"),
    [
        ("cuda", status(built=False), "expected a build with CUDA"),
        ("cuda", status(text="driver version is insufficient (error 35)"), r"got none: driver .*error 35"),
        ("cuda:1", status(HOPPER), "expected a device below 1, got cuda:1"),
        ("cuda:0", status(VOLTA), r"expected compute capability 8.0 or newer, got 7.0 \(V100\)"),
        ("cuda:1", status(HOPPER, VOLTA), r"got 7.0"),
        ("meta", status(HOPPER), "expected cuda, got meta"),
    ],
)
def test_an_unusable_gpu_is_an_error_that_says_why(device, found, message):
    with pytest.raises(ConfigError, match=message):
        usable_device(torch.device(device), found)


def test_a_usable_gpu_is_found_by_index():
    assert usable_device(torch.device("cuda"), status(HOPPER, VOLTA)) == HOPPER
    assert usable_device(torch.device("cuda:1"), status(VOLTA, HOPPER)) == HOPPER
    assert usable_device(torch.device("cpu"), status(built=False)) == EMULATED


def test_status_never_fails_and_asking_for_a_gpu_that_is_not_here_does():
    found = cuda_status()
    assert found.text
    if found.devices:
        pytest.skip("a GPU is here")
    with pytest.raises(ConfigError, match="CUDA: expected"):
        usable_device(torch.device("cuda"))


def test_a_launch_without_a_driver_is_an_error_not_a_crash():
    if cuda_status().devices:
        pytest.skip("a GPU is here")
    layer = BsrLinear.from_dense(nn.Linear(8, 8), block=(4, 4))
    plan = pysim.sparse.gpu.GpuPlan(
        layer.grid,
        [(layer.row_ptr[0].numpy(), layer.col_idx.numpy())],
        math="f32",
        device=torch.device("cpu"),
    )
    packed, x, y = plan.pack(layer.values), torch.zeros(2, 8), torch.zeros(2, 8)
    memory = pysim.sparse.gpu._memory
    with pytest.raises(RuntimeError, match="CUDA: expected"):
        plan._plan.run(
            device=0,
            stream=0,
            image=memory(plan._image),
            weights=memory(packed.weights),
            x=memory(x),
            source=(8, 2, 1, 8, *(0,) * 14),
            y=memory(y),
            y_strides=(1, 8),
            bias=None,
            workspace=None,
            relu=False,
        )


def test_float32_multiplies_exactly_unless_torch_allows_tf32():
    assert math_for(torch.float32, allow_tf32=False) == "f32"
    assert math_for(torch.float32, allow_tf32=True) == "tf32"
    assert math_for(torch.float16, allow_tf32=True) == "f16"
    with pytest.raises(ShapeError, match=r"float32, float16 or bfloat16, got torch.float64"):
        math_for(torch.float64, allow_tf32=False)


def test_compress_keeps_the_type_of_a_model_and_cuts_its_blocks_in_float32(monkeypatch):
    """With float16 on the CPU in the place of a GPU: all but the device is the same path."""
    monkeypatch.setitem(compression._DTYPES, "cpu", (torch.float16,))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).half()
    with torch.no_grad():
        model[0].weight[:, 16:] = 0
    found = pysim.compress(model, torch.randn(3, 64).half(), only_if_faster=False)
    layer = found.model[0]
    assert isinstance(layer, BsrLinear)
    assert layer.values.dtype == layer.bias.dtype == torch.float16
    torch.testing.assert_close(layer.weight, model[0].weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(layer.to_dense().weight, model[0].weight, rtol=0, atol=0)
    copy.deepcopy(layer)
