"""SegNet (Badrinarayanan, Kendall & Cipolla, PAMI 2017) and its Bayesian form (Kendall, Badrinarayanan & Cipolla, BMVC 2017)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

from .. import functional as F
from .. import nn
from ..autograd import no_grad
from ..nn import init
from ..nn.module import evaluating
from ..tensor import Tensor
from .common import he, positive, probability
from .segmenter import Segmenter
from .vgg import GROWTH, STAGES, VGG, vgg_features


class _SegNet(Segmenter):
    """(N, in_channels, H, W) -> (N, classes, H, W): poolings that keep where their maxima were, and unpoolings that put them back there.

    Poolings round up, and each unpooling is told the size before its pooling: 360x480 goes by 45x60, 23x30 and 12x15 and back. With
    bayesian=True dropout stands behind the deepest poolings and the first stages of the decoder, and monte_carlo keeps it on.
    ValueError for a width below 1 and a dropout outside [0, 1), else as Segmenter.
    """

    features: nn.Sequential
    decoder: nn.ModuleList
    deep: ClassVar[int]  # the number of poolings, and of decoder stages, that have dropout behind them

    def __init__(self, in_channels: int, classes: int, width: int, bayesian: bool, dropout: float, eps: float) -> None:
        super().__init__(in_channels, classes, width=width, bayesian=bayesian, dropout=dropout, eps=eps)
        positive(type(self).__name__, "width", width)
        probability(type(self).__name__, "dropout", dropout)
        self.bayesian = bayesian
        self.unpool = nn.MaxUnpool2d(2)
        if bayesian:
            self.dropout = nn.Dropout(dropout)

    def _through(self, x: Tensor) -> Tensor:
        """Down, keeping indices and sizes, and up again."""
        kept: list[tuple[Tensor, tuple[int, ...]]] = []
        deep, pools = self.deep if self.bayesian else 0, len(self.decoder)
        layers = list(self.features)
        ends = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        for first, end in pairwise([0, *ends]):
            x, indices, size = self.stage(partial(self._down, self.features[first:end]), x)
            kept.append((indices, size))
            x = self.dropout(x) if len(kept) > pools - deep else x
        for i, level in enumerate(self.decoder):
            indices, size = kept.pop()
            go_up = partial(self._up, level, size)
            x = self.stage(go_up, x, indices) if kept else go_up(x, indices)  # backward begins with the last: it is kept anyway
            x = self.dropout(x) if i < deep else x
        return x

    @staticmethod
    def _down(level: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The pooled map, where its maxima were, and the size before the pooling."""
        x = level[:-1](x)
        pooled, indices = level[-1](x)
        return pooled, indices, x.shape[2:]

    def _up(self, level: nn.Module, size: tuple[int, ...], x: Tensor, indices: Tensor) -> Tensor:
        above: Tensor = level(self.unpool(x, indices, size))
        return above

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        return self._through(input)

    def monte_carlo(self, input: Tensor, samples: int = 40) -> tuple[Tensor, Tensor]:
        """Mean and variance, (N, classes, H, W) each, of the class probabilities over `samples` passes with dropout on.

        The mean is the prediction, the variance the model's uncertainty of it (Bayesian SegNet, section 3). Batch norm uses its running
        statistics; no gradients are recorded; the network's mode is restored. ValueError without bayesian=True, or for samples < 1.
        """
        name = type(self).__name__
        if not self.bayesian:
            raise ValueError(f"{name}: monte_carlo samples dropout, of which this network has none; build it with bayesian=True")
        positive(name, "samples", samples)
        with evaluating(self), no_grad():
            self.dropout.train()
            mean = F.softmax(self(input), 1)
            squares = mean * 0.0
            for i in range(2, samples + 1):  # Welford's running mean, and sum of squared distances to it
                step = F.softmax(self(input), 1) - mean
                mean = mean + step / i
                squares = squares + step * step * ((i - 1) / i)
            return mean, squares / samples


class SegNet(_SegNet):
    """SegNet: the 13 convolutions of VGG16 with batch norm, and 13 that mirror them; 29,449,355 parameters for 11 classes.

    (N, in_channels, H, W) -> (N, classes, H, W) for any size. `features` is named as VGG16's with norm="batch" (load_trunk takes its
    weights); the last convolution scores the classes, without batch norm and ReLU. width=64: channels of the first stage.
    bayesian=True: dropout behind the three deepest poolings and the three first decoder stages. eps is batch norm's, as the authors
    set it. Weights are He's. ValueError for settings out of range and images of other channels, TypeError for what is no Tensor.
    """

    name = "segnet"
    deep = 3

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 11,
        width: int = 64,
        bayesian: bool = False,
        dropout: float = 0.5,
        eps: float = 1e-9,
    ) -> None:
        super().__init__(in_channels, classes, width, bayesian, dropout, eps)
        with init.skipped():
            self.features = vgg_features(16, in_channels, width, "batch", eps=eps, ceil_mode=True, return_indices=True)
            self.decoder = nn.ModuleList()
            for stage in reversed(range(5)):
                channels = GROWTH[stage] * width
                after = [channels] * (STAGES[16][stage] - 1) + [GROWTH[stage - 1] * width if stage else classes]
                layers: list[nn.Module] = []
                for c in after:
                    layers += [nn.Conv2d(channels, c, 3, padding=1), nn.BatchNorm2d(c, eps=eps), nn.ReLU()]
                self.decoder.append(nn.Sequential(*layers if stage else layers[:-2]))
        he(self)

    def load_trunk(self, classifier: VGG) -> SegNet:
        """Take the convolutions of a VGG16, with or without batch norm. Returns this network.

        ValueError if it has other layers or another width, TypeError for what is no such network; nothing has been changed then.
        """
        if not isinstance(getattr(classifier, "features", None), nn.Sequential):
            raise TypeError(f"load_trunk: {type(self).__name__} takes the weights of a VGG16, got {type(classifier).__name__}")
        state: dict[str, Any] = {k: v for k, v in classifier.state_dict().items() if k.startswith("features.")}
        ours, theirs = ([i for i, layer in enumerate(net.features) if isinstance(layer, nn.Conv2d)] for net in (self, classifier))
        if len(ours) != len(theirs):
            raise ValueError(
                f"load_trunk: {type(classifier).__name__} has {len(theirs)} convolutions, {type(self).__name__} has {len(ours)}"
            )
        if ours != theirs:  # no batch norm there: its layers are counted differently
            state = {
                f"features.{i}.{kind}": state[f"features.{j}.{kind}"]
                for i, j in zip(ours, theirs, strict=True)
                for kind in ("weight", "bias")
            }
        self.load_state_dict(state, strict=False)
        return self


class SegNetBasic(_SegNet):
    """SegNet-Basic: four 7x7 convolutions down and four up; 1,416,587 parameters for 11 classes.

    (N, in_channels, H, W) -> (N, classes, H, W) for any size. The image is normalised over its channels first; every convolution has
    batch norm, those of the encoder a ReLU too; a 1x1 convolution scores the classes. width=64: channels of all layers. bayesian=True:
    dropout behind the two deepest poolings and the two first decoder stages. eps is batch norm's, as the authors set it. Weights are He's.
    Errors as of SegNet.
    """

    name = "segnet_basic"
    deep = 2

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 11,
        width: int = 64,
        bayesian: bool = False,
        dropout: float = 0.5,
        eps: float = 1e-9,
    ) -> None:
        super().__init__(in_channels, classes, width, bayesian, dropout, eps)
        with init.skipped():
            self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
            encoder: list[nn.Module] = []
            for i in range(4):
                encoder += [nn.Conv2d(width if i else in_channels, width, 7, padding=3), nn.BatchNorm2d(width, eps=eps), nn.ReLU()]
                encoder.append(nn.MaxPool2d(2, ceil_mode=True, return_indices=True))
            self.features = nn.Sequential(*encoder)
            self.decoder = nn.ModuleList(
                [nn.Sequential(nn.Conv2d(width, width, 7, padding=3), nn.BatchNorm2d(width, eps=eps)) for _ in range(4)]
            )
            self.classifier = nn.Conv2d(width, classes, 1)
        he(self)

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        scores: Tensor = self.classifier(self._through(self.norm(input)))
        return scores
