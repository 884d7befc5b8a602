"""AlexNet (Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012), in two layouts."""

from __future__ import annotations

from .. import nn
from .classifier import Classifier, linear_layers
from .common import he


class AlexNet(Classifier):
    """(N, in_channels, H, W) -> (N, classes): torchvision's layout and names, 61,100,840 parameters for 1000 classes; made for 224x224.

    The one-column network of Krizhevsky ("One weird trick for parallelizing convolutional neural networks", 2014): 64, 192, 384, 256, 256
    channels for width=64, no groups, no normalisation. padded=False leaves out all padding, for which convolutionalize is exact.
    Errors as of Classifier.
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        dropout: float = 0.5,
        hidden: int | None = None,
        padded: bool = True,
    ) -> None:
        super().__init__(classes, in_channels, width, dropout)
        hidden = 64 * width if hidden is None else hidden
        pad = int(padded)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 11, stride=4, padding=2 * pad),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(width, 3 * width, 5, padding=2 * pad),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(3 * width, 6 * width, 3, padding=pad),
            nn.ReLU(),
            nn.Conv2d(6 * width, 4 * width, 3, padding=pad),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=pad),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * 36, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
        he(self)


class CaffeNet(Classifier):
    """(N, in_channels, H, W) -> (N, classes): AlexNet as Caffe has it, 60,965,224 parameters for 1000 classes; made for 227x227.

    Two groups in the second, fourth and fifth convolution, as in the paper (section 3.2), and local response normalisation (3.3) behind
    the pooling instead of before it; poolings round up. 96, 256, 384, 384, 256 channels for width=96, which must be a multiple of 6.
    padded=False leaves out all padding, for which convolutionalize is exact. ValueError for another width, else as Classifier.
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        width: int = 96,
        dropout: float = 0.5,
        hidden: int | None = None,
        padded: bool = True,
    ) -> None:
        super().__init__(classes, in_channels, width, dropout)
        self.features = caffenet_features(in_channels, width, 0, padded)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = linear_layers(width // 3 * 8 * 36, width // 3 * 128 if hidden is None else hidden, classes, dropout)
        he(self)


def caffenet_features(in_channels: int, width: int, pad: int, padded: bool = True) -> nn.Sequential:
    """The convolutions of CaffeNet, `pad` pixels around the image. ValueError unless 6 divides the width."""
    if width % 6:
        raise ValueError(f"CaffeNet: width must be a multiple of 6 (channels are 3 : 8 : 12, in two groups), got {width}")
    unit, by = width // 3, int(padded)
    pool = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
    norm = [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) for _ in range(2)]
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 11, stride=4, padding=pad),
        nn.ReLU(),
        pool[0],
        norm[0],
        nn.Conv2d(width, 8 * unit, 5, padding=2 * by, groups=2),
        nn.ReLU(),
        pool[1],
        norm[1],
        nn.Conv2d(8 * unit, 12 * unit, 3, padding=by),
        nn.ReLU(),
        nn.Conv2d(12 * unit, 12 * unit, 3, padding=by, groups=2),
        nn.ReLU(),
        nn.Conv2d(12 * unit, 8 * unit, 3, padding=by, groups=2),
        nn.ReLU(),
        pool[2],
    )
