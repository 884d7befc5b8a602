"""VGG (Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015), with torchvision's names."""

from __future__ import annotations

from typing import ClassVar

from .. import nn
from ..nn import init
from .classifier import Classifier, linear_layers
from .common import he, one_of

# Table 1 of the paper, columns A, B, D and E: convolutions per stage. A stage has 1, 2, 4, 8, 8 times `width` channels.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
GROWTH = (1, 2, 4, 8, 8)


class VGG(Classifier):
    """(N, in_channels, H, W) -> (N, classes): 3x3 convolutions in five stages, each ended by a 2x2 pooling; made for 224x224.

    The subclasses VGG11, VGG13, VGG16 and VGG19 say how many layers have weights. width=64: channels of the first stage; `hidden`, the
    linear layers, has 64 width unless said otherwise. norm="batch" puts batch norm behind each convolution. padded=False leaves out all
    padding, for which convolutionalize is exact. Initial weights are He's, with which the deep ones train without the paper's detour over
    the shallow ones. ValueError as Classifier, and for another norm; TypeError for VGG itself, which has no layers.
    """

    layers: ClassVar[int]

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        norm: str | None = None,
        dropout: float = 0.5,
        hidden: int | None = None,
        padded: bool = True,
    ) -> None:
        if not hasattr(self, "layers"):
            raise TypeError("VGG: how many layers it has is not said; use VGG11, VGG13, VGG16 or VGG19")
        super().__init__(classes, in_channels, width, dropout)
        one_of(type(self).__name__, "norm", norm, (None, "batch"))
        with init.skipped():
            self.features = vgg_features(self.layers, in_channels, width, norm, pad=int(padded), padding=int(padded))
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            self.classifier = linear_layers(8 * width * 49, 64 * width if hidden is None else hidden, classes, dropout)
        he(self)


class VGG11(VGG):
    """Column A: 132,863,336 parameters for 1000 classes."""

    layers = 11


class VGG13(VGG):
    """Column B: 133,047,848 parameters for 1000 classes."""

    layers = 13


class VGG16(VGG):
    """Column D, the trunk of FCN and SegNet: 138,357,544 parameters for 1000 classes."""

    layers = 16


class VGG19(VGG):
    """Column E: 143,667,240 parameters for 1000 classes."""

    layers = 19


def vgg_features(
    layers: int,
    in_channels: int,
    width: int,
    norm: str | None = None,
    pad: int = 1,
    padding: int = 1,
    eps: float = 1e-5,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Sequential:
    """The convolutions of a VGG with `layers` layers; `pad` pixels around the image in the first convolution, `padding` in the others."""
    found: list[nn.Module] = []
    before = in_channels
    for convs, growth in zip(STAGES[layers], GROWTH, strict=True):
        for _ in range(convs):
            found.append(nn.Conv2d(before, growth * width, 3, padding=padding if found else pad))
            before = growth * width
            if norm == "batch":
                found.append(nn.BatchNorm2d(before, eps=eps))
            found.append(nn.ReLU())
        found.append(nn.MaxPool2d(2, ceil_mode=ceil_mode, return_indices=return_indices))
    return nn.Sequential(*found)
