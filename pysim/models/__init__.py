"""The networks pysim knows, in one visible table, and the trained weights that ship with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pysim.errors import ModelError
from pysim.models.lenet import LeNet5, LeNet300
from pysim.models.mlp import Mlp
from pysim.models.mobilenet import SmallMobileNet
from pysim.models.resnet import CifarResNet
from pysim.models.user import build_user_model, is_user_model, user_model_digest
from pysim.models.vgg import Vgg16
from pysim.models.vit import SmallViT
from pysim.models.wide_resnet import WideResNet

__all__ = [
    "MODELS",
    "InputShape",
    "build_model",
    "is_user_model",
    "pretrained_path",
    "user_model_digest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """One image as the network sees it, and the number of classes it tells apart."""

    channels: int
    height: int
    width: int
    num_classes: int


MODELS: dict[str, Callable[[InputShape], nn.Module]] = {
    "resnet20": lambda s: CifarResNet(20, s.channels, s.num_classes),
    "resnet32": lambda s: CifarResNet(32, s.channels, s.num_classes),
    "resnet56": lambda s: CifarResNet(56, s.channels, s.num_classes),
    "vgg16": lambda s: Vgg16(s.channels, s.num_classes),
    "wrn16-4": lambda s: WideResNet(16, 4, s.channels, s.num_classes),
    "mobilenet": lambda s: SmallMobileNet(s.channels, s.num_classes),
    "vit": lambda s: SmallViT(s.channels, s.height, s.width, s.num_classes),
    "lenet300": lambda s: LeNet300(s.channels * s.height * s.width, s.num_classes),
    "lenet5": lambda s: LeNet5(s.channels, s.height, s.width, s.num_classes),
    "mlp": lambda s: Mlp(s.channels * s.height * s.width, s.num_classes),
}

_PRETRAINED = Path(__file__).parent / "pretrained"


def build_model(name: str, shape: InputShape) -> nn.Module:
    """Builds the named network with fresh weights (seed it with ``torch.manual_seed``).

    A name of the form ``module:factory`` is anyone's model, see ``pysim.models.user``.

    Raises:
        ModelError: The name is unknown, or the images are too small for the network.
    """
    if is_user_model(name):
        return build_user_model(name)
    if name not in MODELS:
        raise ModelError(
            f"model: expected one of {', '.join(MODELS)}, got {name!r}",
            hint="A model of your own is named module:factory, as in mypkg.models:build.",
        )
    return MODELS[name](shape)


def pretrained_path(name: str, dataset: str) -> Path | None:
    """The dense checkpoint shipped for this network and data set, if there is one.

    The weights were trained on all 60,000 Fashion-MNIST images; the embedded 12,000 are a part of those.
    """
    if not dataset.startswith("fashion-mnist"):
        return None
    path = _PRETRAINED / f"{name}_fashion_mnist.safetensors"
    return path if path.is_file() else None
