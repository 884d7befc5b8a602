"""Image classifiers, and what makes fully convolutional networks of them."""

from __future__ import annotations

import copy
import math
from itertools import count

from .. import functional as F
from .. import nn
from ..nn import init
from ..tensor import Tensor, not_a_tensor
from ..window import pair
from .common import positive, probability
from .geometry import size_behind


class Classifier(nn.Module):
    """(N, in_channels, H, W) -> (N, classes) scores: features, a mean to a fixed size, linear layers; named as torchvision's classifiers.

    `features`, `avgpool` and `classifier` are set by the subclass. Images of any size from `smallest` pixels on work.
    ValueError for settings out of range, for smaller images and for those of other channels; TypeError for what is no Tensor.
    """

    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential

    def __init__(self, classes: int, in_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        for what, number in (("classes", classes), ("in_channels", in_channels), ("width", width)):
            positive(type(self).__name__, what, number)
        probability(type(self).__name__, "dropout", dropout)
        self.classes, self.in_channels = classes, in_channels

    @property
    def smallest(self) -> int:
        """The least height and width that leave a pixel for the last pooling."""
        return next(n for n in count(1) if size_behind(self.features, n))

    def forward(self, input: Tensor) -> Tensor:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise not_a_tensor(name, input)
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            raise ValueError(f"{name}: input must be (N, {self.in_channels}, H, W), got shape {input.shape}")
        if not all(size_behind(self.features, n) for n in input.shape[2:]):
            h, w = input.shape[2:]
            raise ValueError(f"{name}: an image of {h}x{w} is too small; height and width must be at least {self.smallest}")
        maps = self.avgpool(self.features(input))
        scores: Tensor = self.classifier(F.flatten(maps, 1))
        return scores


def linear_layers(before: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """The three linear layers of VGG and CaffeNet, names 0, 3 and 6: before -> hidden -> hidden -> classes."""
    return nn.Sequential(
        nn.Linear(before, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


def convolutionalize(classifier: nn.Module) -> nn.Sequential:
    """The classifier as a fully convolutional network, with copies of its weights: (N, C, H, W) -> (N, classes, H', W').

    A linear layer on a k x k map is a convolution with a k x k kernel, and those behind it have 1 x 1 kernels (Shelhamer, Long & Darrell,
    2017, section 3.1), so that each pixel of the heat map is the classifier's answer on a crop of the image, the crops being the
    distance of the features' strides apart. Exactly so if no layer pads: a crop has zeros where the larger image goes on.

    Names stay: features.N and classifier.N. `classifier` has `features`, perhaps an `avgpool`, and `classifier` as torchvision's, or is
    a Sequential with a Flatten in it. ValueError if it is neither, or its first linear layer does not see square maps.
    """
    head = getattr(classifier, "classifier", None)
    if isinstance(getattr(classifier, "features", None), nn.Sequential) and isinstance(head, nn.Sequential):
        features, layers = list(classifier.features), list(head)
        pooled = getattr(getattr(classifier, "avgpool", None), "output_size", None)
    elif isinstance(classifier, nn.Sequential) and any(isinstance(layer, nn.Flatten) for layer in classifier):
        at = next(i for i, layer in enumerate(classifier) if isinstance(layer, nn.Flatten))
        features, layers, pooled = list(classifier[:at]), list(classifier[at + 1 :]), None
        if features and isinstance(features[-1], nn.AdaptiveAvgPool2d):
            pooled = features.pop().output_size
    else:
        raise ValueError(
            f"convolutionalize: {type(classifier).__name__} must have Sequentials `features` and `classifier`, or be a Sequential with a Flatten"
        )
    convs = [layer for feature in features for layer in feature.modules() if isinstance(layer, nn.Conv2d)]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not convs or not linears:
        raise ValueError("convolutionalize: the classifier must have a convolution among its features and a linear layer behind them")
    channels = convs[-1].out_channels
    side = math.isqrt(linears[0].in_features // channels)
    if linears[0].in_features != channels * side * side or (
        pooled is not None and pair(pooled, "convolutionalize: output_size") != (side, side)
    ):
        raise ValueError(
            f"convolutionalize: the first linear layer takes {linears[0].in_features} numbers, which are no square map of {channels} channels"
        )
    converted = [
        _as_conv(layer, side if layer is linears[0] else 1) if isinstance(layer, nn.Linear) else _on_maps(layer) for layer in layers
    ]
    return nn.Sequential({"features": nn.Sequential(*map(copy.deepcopy, features)), "classifier": nn.Sequential(*converted)})


def _on_maps(layer: nn.Module) -> nn.Module:
    """A copy that does to (N, C, H, W) what the layer does to (N, C): their last axis, over which a softmax may go, is the channels'."""
    layer = copy.deepcopy(layer)
    if isinstance(layer, nn.Softmax | nn.LogSoftmax) and layer.dim == -1:
        layer.dim = 1
    return layer


def _as_conv(linear: nn.Linear, side: int) -> nn.Conv2d:
    """The same products as a convolution: weight (O, C side side) as (O, C, side, side)."""
    with init.skipped():
        conv = nn.Conv2d(linear.in_features // side**2, linear.out_features, side, bias=linear.bias is not None)
    for name, p in linear.named_parameters():
        setattr(conv, name, nn.Parameter.empty(getattr(conv, name).shape, p.dtype).requires_grad_(p.requires_grad))
    conv.to(linear.weight.backend)
    conv.load_state_dict({name: p._array.reshape(getattr(conv, name).shape) for name, p in linear.named_parameters()})
    conv.train(linear.training)
    return conv
