"""FCN (Shelhamer, Long & Darrell, "Fully convolutional networks for semantic segmentation", PAMI 2017), as the published networks."""

from __future__ import annotations

from itertools import pairwise, zip_longest
from typing import Any, ClassVar, Self

from .. import functional as F
from .. import nn
from ..nn import init
from ..tensor import Tensor
from .alexnet import caffenet_features
from .classifier import Classifier
from .common import he, positive, probability, trained
from .geometry import Placement, size_behind
from .segmenter import Segmenter
from .vgg import vgg_features


class FCN(Segmenter):
    """(N, in_channels, H, W) -> (N, classes, H, W), for images of any size: a classifier made convolutional, its scores upsampled.

    What the networks share. `features` and `classifier` are the classifier's, without its last layer, and named as VGG's; `score_fr`
    scores their map, and transposed convolutions with a bilinear filter bring the scores to the image's resolution, with `skips` in two or
    three steps, adding the scores of shallower maps (section 4.2). Whatever lies over the image's edge is cropped, by `offsets`, which
    follow from where the layers place their pixels (see geometry.py). As published: `pad` pixels around the image, poolings that round up,
    score layers that start at zero, fixed dense (C, C, K, K) upsampling without bias; learn_upsampling=True trains it, as the CVPR paper does.
    A classifier's weights come in by load_trunk, a coarser FCN's by load_coarser or `train_fcn.py --start`; without them the weights are He's.

    width: channels of the first stage (the paper's by default; hidden layers grow with it). fc_kernel=1 with pad=1 makes a light network
    for small images: the first layer of the classifier sees one pixel of its map, and nearly nothing is computed outside the image.
    ValueError for settings out of range, for a pad and fc_kernel with which the output would not cover the image, and for images of other channels.
    """

    upsampling: ClassVar[tuple[tuple[str, int, int], ...]]  # name, kernel and stride of each step; behind all but the last comes a skip
    skips: ClassVar[tuple[int, ...]] = ()  # poolings, counted from 1, whose scores are added, the deepest first
    scales: ClassVar[dict[int, float]] = {}  # what the maps of the skips are multiplied by, if anything

    def __init__(self, in_channels: int, classes: int, hidden: int, features: nn.Sequential, **options: Any) -> None:
        super().__init__(in_channels, classes, **options)
        name = type(self).__name__
        probability(name, "dropout", options["dropout"])
        positive(name, "fc_kernel", options["fc_kernel"])
        with init.skipped():  # one draw for each weight: below
            self.features = features
            convs = [layer for layer in features if isinstance(layer, nn.Conv2d)]
            self.classifier = nn.Sequential(
                nn.Conv2d(convs[-1].out_channels, hidden, options["fc_kernel"]),
                nn.ReLU(),
                nn.Dropout(options["dropout"]),
                nn.Conv2d(hidden, hidden, 1),
                nn.ReLU(),
                nn.Dropout(options["dropout"]),
            )
            self.score_fr = nn.Conv2d(hidden, classes, 1)
            self.pools = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
            for skip in self.skips:
                channels = next(c for c in reversed(convs) if c in list(features)[: self.pools[skip - 1]]).out_channels
                if skip in self.scales:
                    self.add_module(f"scale_pool{skip}", Scale(channels, self.scales[skip]))
                self.add_module(f"score_pool{skip}", nn.Conv2d(channels, classes, 1))
            for step, kernel, stride in self.upsampling:
                up = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=False)
                init.bilinear_(up.weight)
                self.add_module(step, up.requires_grad_(options["learn_upsampling"]))
        self.reset_parameters()
        self.offsets = self._offsets()
        if not self._covers():
            first, more = features[0], options["pad"]
            while not self._covers():
                more += 1
                first.padding = (more, more)
            raise ValueError(
                f"{name}: with pad={options['pad']} and fc_kernel={options['fc_kernel']} the output does not cover the whole image; "
                f"use pad={more} or more, or a smaller fc_kernel"
            )

    def reset_parameters(self) -> None:
        """He's weights in the trunk, score layers zero, bilinear filters. Frozen parameters are left alone."""
        he(self)
        for score in [self.score_fr, *(getattr(self, f"score_pool{skip}") for skip in self.skips)]:
            trained(score.weight, init.zeros_)
        for step, *_ in self.upsampling:
            trained(getattr(self, step).weight, init.bilinear_)

    # -- geometry --------------------------------------------------------------------------------------------------------------

    def _offsets(self) -> tuple[int, ...]:
        """Where each skip's map, and at last the output, is cropped to match what it is added to, and the image.

        A negative number means that the upsampled map is cropped instead, by that much.
        """
        layers = list(self.features)
        placement = Placement().through([*layers, *self.classifier])
        offsets = []
        for (step, *_), skip in zip_longest(self.upsampling, self.skips):
            placement = placement.through([getattr(self, step)])
            if skip is None:
                offsets.append(placement.offset(Placement()))
            else:
                pooled = Placement().through(layers[: self.pools[skip - 1] + 1])
                offsets.append(pooled.offset(placement))
                placement = placement if offsets[-1] >= 0 else pooled
        return tuple(offsets)

    def _covers(self) -> bool:
        """Whether the output covers every image. 32 more pixels are 1 more behind the last pooling and 32 more at last: 32 sizes tell."""
        layers, offsets = list(self.features), self._offsets()
        for n in range(1, 33):
            size = size_behind([*layers, *self.classifier], n)
            if size < 1:
                return False
            for (step, *_), skip, offset in zip_longest(self.upsampling, self.skips, offsets):
                size = size_behind([getattr(self, step)], size)
                if skip is not None:
                    size = min(size - max(-offset, 0), size_behind(layers[: self.pools[skip - 1] + 1], n) - max(offset, 0))
            if offsets[-1] < 0 or size < n + offsets[-1]:
                return False
        return True

    # -- computing -------------------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        height, width = self.check(input)
        x, maps = input, {}
        for number, (first, end) in enumerate(pairwise([0, *(i + 1 for i in self.pools)]), 1):
            x = maps[number] = self.stage(self.features[first:end], x)
        x = self.score_fr(self.stage(self.classifier, x))
        for (step, *_), skip, offset in zip_longest(self.upsampling, self.skips, self.offsets):
            x = getattr(self, step)(x)
            if skip is not None:
                x = self._add(x, maps.pop(skip), skip, offset)
        first = self.offsets[-1]
        return x[:, :, first : first + height, first : first + width]

    def _add(self, x: Tensor, map: Tensor, skip: int, offset: int) -> Tensor:
        """Upsampled scores plus the scores of a shallower map, where both exist."""
        if skip in self.scales:
            map = getattr(self, f"scale_pool{skip}")(map)
        scores: Tensor = getattr(self, f"score_pool{skip}")(map)
        (a, b), (c, d) = ((max(-offset, 0), x.shape[2:]), (max(offset, 0), scores.shape[2:]))
        h, w = (min(n - a, m - c) for n, m in zip(b, d, strict=True))
        return x[:, :, a : a + h, a : a + w] + scores[:, :, c : c + h, c : c + w]

    # -- weights from elsewhere ----------------------------------------------------------------------------------------------------

    def load_trunk(self, classifier: Classifier) -> Self:
        """Take the weights of a classifier (VGG16, or CaffeNet for FCN-AlexNet), all but its last layer. Returns this network.

        ValueError if it has other layers or another width, TypeError for what is no network; nothing has been changed then.
        """
        if not isinstance(classifier, nn.Module):
            raise TypeError(f"load_trunk: {type(self).__name__} takes the weights of a classifier, got {type(classifier).__name__}")
        theirs = classifier.state_dict()
        state = {}
        for key, value in self.state_dict().items():
            if key.startswith(("features.", "classifier.")):
                if key not in theirs:
                    raise ValueError(f"load_trunk: {type(classifier).__name__} has no {key}, which {type(self).__name__} needs")
                same = theirs[key].size == value.size and theirs[key].shape[:1] == value.shape[:1]
                state[key] = theirs[key].reshape(value.shape) if same else theirs[key]  # (O, C k k) of a linear layer as (O, C, k, k)
        self.load_state_dict(state, strict=False)
        return self

    def load_coarser(self, coarser: FCN) -> Self:
        """Take all weights that a coarser FCN has as well: FCN-16s is trained from FCN-32s, and FCN-8s from FCN-16s (section 4.3).

        Layers of its own keep theirs, score layers that begin at zero and bilinear upsampling, so that the network begins near the coarser one,
        unless that has learned another upsampling (learn_upsampling). Returns this network.
        ValueError for networks of another width or other classes, TypeError for one that is no FCN; nothing has been changed then.
        """
        if not isinstance(coarser, FCN):
            raise TypeError(f"load_coarser: {type(self).__name__} takes the weights of a coarser FCN, got {type(coarser).__name__}")
        self.load_state_dict(coarser.state_dict(), strict=False)
        return self

    def parameter_groups(self, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Weights; and biases at twice the rate without decay, as in the published solver files. What is frozen is left out."""
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in trained if not name.endswith("bias")], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for name, p in trained if name.endswith("bias")], "lr": 2 * lr, "weight_decay": 0.0},
        ]


class _VGG16FCN(FCN):
    """VGG16 as the trunk: 64, 128, 256, 512, 512 channels and 4096 hidden ones for width=64."""

    def __init__(
        self,
        classes: int = 21,
        in_channels: int = 3,
        width: int = 64,
        pad: int = 100,
        fc_kernel: int = 7,
        dropout: float = 0.5,
        learn_upsampling: bool = False,
    ) -> None:
        positive(type(self).__name__, "width", width)
        with init.skipped():
            features = vgg_features(16, in_channels, width, pad=pad, ceil_mode=True)
        more = {"width": width, "pad": pad, "fc_kernel": fc_kernel, "dropout": dropout, "learn_upsampling": learn_upsampling}
        super().__init__(in_channels, classes, 64 * width, features, **more)


class FCN32s(_VGG16FCN):
    """FCN-32s: one upsampling by 32. 136,152,917 parameters for 21 classes, 134,346,581 of them learned. Errors as of FCN."""

    name = "fcn32s"
    upsampling = (("upscore", 64, 32),)


class FCN16s(_VGG16FCN):
    """FCN-16s: by 2, plus the scores of pool4, by 16. 134,815,994 parameters for 21 classes, 134,357,354 of them learned. Errors as of FCN."""

    name = "fcn16s"
    coarser = ("fcn32s",)
    upsampling = (("upscore2", 4, 2), ("upscore16", 32, 16))
    skips = (4,)


class FCN8s(_VGG16FCN):
    """FCN-8s: by 2, plus pool4, by 2, plus pool3, by 8. 134,489,759 parameters for 21 classes, 134,362,751 of them learned. Errors as of FCN."""

    name = "fcn8s"
    coarser: ClassVar[tuple[str, ...]] = ("fcn32s", "fcn16s")
    upsampling = (("upscore2", 4, 2), ("upscore_pool4", 4, 2), ("upscore8", 16, 8))
    skips = (4, 3)


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one go: pool4 and pool3 are multiplied by 0.01 and 0.0001 before their scores, by 768 more frozen numbers.

    Errors as of FCN.
    """

    name = "fcn8s_at_once"
    coarser = ()
    scales: ClassVar[dict[int, float]] = {4: 0.01, 3: 0.0001}


class FCNAlexNet(FCN):
    """FCN-AlexNet: CaffeNet as the trunk, one upsampling by 32. 58,704,590 parameters for 21 classes, 56,954,261 of them learned.

    96, 256, 384, 384, 256 channels and 4096 hidden ones for width=96, which must be a multiple of 6.
    ValueError for another width, else errors as of FCN.
    """

    name = "fcn_alexnet"
    upsampling = (("upscore", 63, 32),)

    def __init__(
        self,
        classes: int = 21,
        in_channels: int = 3,
        width: int = 96,
        pad: int = 100,
        fc_kernel: int = 6,
        dropout: float = 0.5,
        learn_upsampling: bool = False,
    ) -> None:
        positive("FCNAlexNet", "width", width)
        with init.skipped():
            features = caffenet_features(in_channels, width, pad)
        more = {"width": width, "pad": pad, "fc_kernel": fc_kernel, "dropout": dropout, "learn_upsampling": learn_upsampling}
        super().__init__(in_channels, classes, 128 * (width // 3), features, **more)


class Scale(nn.Module):
    """(N, C, H, W) -> the same shape: each channel times a frozen number, `weight` (C,)."""

    weight: nn.Parameter

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter.empty((channels,))
        self.weight.requires_grad_(False)
        init.constant_(self.weight, value)

    def forward(self, input: Tensor) -> Tensor:
        return F.mul(input, F.reshape(self.weight, (-1, 1, 1)))

    def extra_repr(self) -> str:
        return f"{self.weight.size}"
