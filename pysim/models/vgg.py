"""VGG-16 for small images (Simonyan and Zisserman, ICLR 2015, configuration D, with batch norm).

As it is built for CIFAR: the five stages of convolutions, then one classifier in place of three layers of
4,096. Images too small for all five poolings keep their last pixel.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16(nn.Module):
    """13 convolutions of 3 x 3 and a classifier.

    Args:
        in_channels: Channels of the image.
        num_classes: Outputs.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        stages = []
        width = in_channels
        for channels in _STAGES:
            layers: list[nn.Module] = []
            for count in channels:
                layers += [
                    nn.Conv2d(width, count, 3, padding=1, bias=False),
                    nn.BatchNorm2d(count),
                    nn.ReLU(),
                ]
                width = count
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes)."""
        for stage in self.stages:
            x = stage(x)
            if min(x.shape[2:]) > 1:
                x = max_pool2d(x, 2)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
