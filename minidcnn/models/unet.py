"""U-Net (Ronneberger, Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015)."""

from __future__ import annotations

from functools import partial

from .. import functional as F
from .. import nn
from ..nn import init
from ..tensor import Tensor
from .common import he, one_of, positive, probability
from .segmenter import Segmenter


class UNet(Segmenter):
    """(N, in_channels, H, W) -> (N, classes, H - 2 margin, W - 2 margin): `depth` times two convolutions and a 2x2 pooling, then back up.

    Going up, each level doubles the resolution and halves the channels, puts the map of the same level on the way down in front, and
    convolves the two twice. As in the paper: padding="valid" (572x572 -> 388x388, margin 92, the maps cropped to their centres by 4, 16,
    40 and 88 pixels a side), no normalisation, 2x2 up-convolutions, weights from N(0, 2 / fan_in) (section 3), base=64 channels that double
    with each level: 31,030,658 parameters for 1 channel and 2 classes.

    padding="same" keeps the image's size and takes any size from 2^depth pixels on: where pooling dropped an odd row or column, zeros
    replace it on the way up. norm="batch" puts batch norm behind every 3x3 convolution, which then has no bias. upsample="bilinear"
    interpolates with aligned corners instead of the up-convolutions, and halves the channels in the convolutions before.

    dropout: the probability at the end of the contracting path, behind its last two levels; the paper gives no number, the authors'
    network file has 0.5. ValueError for arguments out of range and for images that do not fit (see output_size).
    """

    name = "unet"

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        base: int = 64,
        padding: str = "valid",
        norm: str | None = None,
        upsample: str = "transpose",
        depth: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, classes, base=base, padding=padding, norm=norm, upsample=upsample, depth=depth, dropout=dropout)
        positive("UNet", "base", base)
        positive("UNet", "depth", depth)
        one_of("UNet", "padding", padding, ("valid", "same"))
        one_of("UNet", "norm", norm, (None, "batch"))
        one_of("UNet", "upsample", upsample, ("transpose", "bilinear"))
        probability("UNet", "dropout", dropout)
        self.padding, self.depth = padding, depth
        step = 1 << depth
        if padding == "valid":
            self.margin = self.crops[-1] + 4
            rule = f"{step} k + {-4 % step}" if depth > 2 else f"multiples of {step}"
            self.needs = f"{rule}, at least {self._fitting(1)}"
        else:
            self.needs = f"at least {step} pixels"
        channels = [base * (1 << level) for level in range(depth + 1)]
        bilinear = upsample == "bilinear"

        with init.skipped():  # one draw for each weight: below
            self.pool = nn.MaxPool2d(2)
            self.encoder = nn.ModuleList()
            for level, c in enumerate(channels):
                after = c // 2 if bilinear and level == depth else c
                drop = dropout if level >= depth - 1 else 0.0
                self.encoder.append(_double(channels[level - 1] if level else in_channels, after, after, padding, norm, drop))
            self.upsample, self.decoder = nn.ModuleList(), nn.ModuleList()
            for level in reversed(range(depth)):
                c, below = channels[level], channels[level + 1]
                self.upsample.append(nn.UpsamplingBilinear2d(scale_factor=2) if bilinear else nn.ConvTranspose2d(below, c, 2, stride=2))
                self.decoder.append(_double(2 * c, c, c // 2 if bilinear and level else c, padding, norm))
            self.head = nn.Conv2d(base, classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights from N(0, 2 / fan_in), fan_in the incoming nodes of one neuron (section 3): one tap a channel in an up-convolution."""
        he(self)

    @property
    def crops(self) -> tuple[int, ...]:
        """Pixels that the maps of the way down lose per side when they are joined, the lowest level first; all 0 with padding="same".

        Two levels' convolutions, down and up, cost 2 pixels a side each, at half the resolution: 4; and each level doubles that and adds 8.
        """
        crops = [4 if self.padding == "valid" else 0]
        while len(crops) < self.depth:
            crops.append(2 * crops[-1] + 8 if self.padding == "valid" else 0)
        return tuple(crops)

    def takes(self, n: int) -> bool:
        if self.padding == "same":
            return n >= 1 << self.depth
        for _ in range(self.depth):
            n -= 4
            if n < 2 or n % 2:
                return False
            n //= 2
        n -= 4
        for _ in range(self.depth):
            n = 2 * n - 4
        return n >= 1  # 2 n - 4 < n below 4: had it been too small on the way, it would be now

    def _fitting(self, n: int) -> int:
        if self.padding == "same":  # smaller images work too, but multiples lose nothing in pooling
            return -(-n >> self.depth) << self.depth
        return super()._fitting(n)

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        x: Tensor = self.stage(self.encoder[0], input)
        maps = []
        for level in self.encoder[1:]:
            maps.append(x)
            x = self.stage(partial(self._down, level), x)
        for up, level, map in zip(self.upsample, self.decoder, reversed(maps), strict=True):
            go_up = partial(self._up, up, level)
            x = (
                go_up(map, x) if level is self.decoder[-1] else self.stage(go_up, map, x)
            )  # backward begins with the last: it is kept anyway
        scores: Tensor = self.head(x)
        return scores

    def _down(self, level: nn.Module, x: Tensor) -> Tensor:
        below: Tensor = level(self.pool(x))
        return below

    def _up(self, up: nn.Module, level: nn.Module, map: Tensor, x: Tensor) -> Tensor:
        above: Tensor = level(self._join(map, up(x)))
        return above

    def _join(self, map: Tensor, x: Tensor) -> Tensor:
        """The map of the way down, then x, as channels: the map cropped to x (valid), or x filled up to the map (same)."""
        if self.padding == "valid":
            map = F.center_crop(map, x.shape[2:])
        else:
            rows, columns = (a - b for a, b in zip(map.shape[2:], x.shape[2:], strict=True))
            if rows or columns:
                x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.cat([map, x], 1)


def _double(before: int, between: int, after: int, padding: str, norm: str | None, dropout: float = 0.0) -> nn.Sequential:
    """Two 3x3 convolutions, each with its normalisation and ReLU."""
    layers: list[nn.Module] = []
    for i, o in ((before, between), (between, after)):
        layers.append(nn.Conv2d(i, o, 3, padding=0 if padding == "valid" else 1, bias=norm is None))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(o))
        layers.append(nn.ReLU())
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
