"""Devices and bfloat16: nothing is left behind on the CPU, and what is not there is refused with a reason."""

from __future__ import annotations

import pytest
import torch

from pysim.cli import main
from pysim.data.synthetic import make_synthetic
from pysim.errors import ConfigError
from pysim.models import InputShape, build_model
from pysim.training import (
    Batches,
    TrainConfig,
    check_bf16,
    evaluate,
    find_device,
    has_bf16,
    reestimate_batch_norm,
    train,
)

CPU = torch.device("cpu")
DATA = make_synthetic(train=96, test=50)


def resnet():
    torch.manual_seed(0)
    height, width = DATA.image_size
    return build_model(
        "resnet20", InputShape(channels=DATA.channels, height=height, width=width, num_classes=10)
    )


def test_every_tensor_of_a_step_is_on_the_device_of_the_data():
    """On torch's device without values a mix of devices is an error, and so is asking for a number.

    So training gets to the first loss that it prints, after all steps of the epoch, and testing to the first
    count of hits.
    """
    batches = Batches(DATA, crop_pad=2, device=torch.device("meta"))
    model = resnet()
    masks = {name: p > 0 for name, p in model.named_parameters() if p.ndim == 4}
    steps = []
    with pytest.raises(RuntimeError, match="item"):
        train(
            model,
            batches,
            TrainConfig(epochs=1, batch_size=32),
            masks=masks,
            progress=lambda what, done, total: steps.append(done),
        )
    assert steps == [1, 2, 3]
    with pytest.raises(RuntimeError, match="item"):
        evaluate(resnet(), batches)
    images, labels = next(batches.test(8))
    assert (images.device.type, labels.device.type) == ("meta", "meta")


def test_after_training_and_testing_the_network_is_on_the_cpu():
    batches = Batches(DATA, crop_pad=2)
    model = resnet()
    train(model, batches, TrainConfig(epochs=1, batch_size=32))
    reestimate_batch_norm(model, batches)
    evaluate(model, batches)
    assert {tensor.device for tensor in model.state_dict().values()} == {CPU}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_trained(capsys, tmp_path):
    with pytest.raises(ConfigError, match="expected a GPU for cuda"):
        find_device("cuda")
    out = str(tmp_path / "w.safetensors")
    for command in (
        ["prune", "lenet5", "--block", "4", "--device", "cuda"],
        ["experiment", "finetune", "--device", "cuda", "--out", out],
        ["train", "lenet5", "--device", "cuda", "--out", out],
    ):
        with pytest.raises(SystemExit) as left:
            main(command)
        assert left.value.code == 2
        error = capsys.readouterr().err
        assert "expected a GPU for cuda" in error
        assert "Leave out --device" in error


def test_an_unknown_device_is_named():
    with pytest.raises(ConfigError, match="expected one of cpu, cuda, got 'tpu'"):
        find_device("tpu")


def test_a_processor_without_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(ConfigError, match="expected a cpu that multiplies bfloat16"):
        check_bf16(CPU)
    with pytest.raises(ConfigError, match="bfloat16"):
        train(resnet(), Batches(DATA, crop_pad=2), TrainConfig(epochs=1, bf16=True))


@pytest.mark.skipif(not has_bf16(CPU), reason="this processor has no bfloat16")
def test_bfloat16_computes_otherwise_but_keeps_weights_in_float32():
    batches = Batches(DATA, crop_pad=2)
    losses = {}
    for bf16 in (False, True):
        model = resnet()
        (losses[bf16],) = train(model, batches, TrainConfig(epochs=1, batch_size=32, bf16=bf16))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    # bfloat16 has 8 bits: losses of the same three steps agree to a few of its units, and not to the bit.
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=16 * 2**-8)
