"""Which images the networks take: sizes by computing shapes, by computing numbers, and the errors that name sizes which fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, models, nn, no_grad
from minidcnn.models import Segmenter
from minidcnn.models.segmenter import smallest_and_period
from minidcnn.nn import init

ANY_SIZE: dict[str, Callable[[], Segmenter]] = {
    "fcn32s": lambda: models.FCN32s(3, width=1),
    "fcn16s": lambda: models.FCN16s(3, width=1),
    "fcn8s": lambda: models.FCN8s(3, width=1),
    "fcn8s_at_once": lambda: models.FCN8sAtOnce(3, width=1),
    "fcn_alexnet": lambda: models.FCNAlexNet(3, width=6),
    "fcn32s-light": lambda: models.FCN32s(3, width=1, pad=1, fc_kernel=1),
    "fcn8s-light": lambda: models.FCN8s(3, width=1, pad=1, fc_kernel=1),
    "segnet": lambda: models.SegNet(3, 3, width=1),
    "segnet_basic": lambda: models.SegNetBasic(3, 3, width=1),
}


def output_shape(network: Segmenter, height: int, width: int) -> tuple[int, ...]:
    """The shape that forward() returns on the kernels that work out shapes only."""
    found = []
    with network.register_forward_hook(lambda module, inputs, output: found.append(output.shape)):
        nn.summary(network, (1, network.in_channels, height, width))
    shape: tuple[int, ...] = found[0]
    return shape


@pytest.mark.parametrize("name", ANY_SIZE)
def test_every_size_from_1_to_150_comes_back(name: str) -> None:
    """Heights and widths are different numbers, so that all from 1 to 150 pass through both axes."""
    network = ANY_SIZE[name]()
    for n in range(1, 151):
        height, width = n, (n * 37) % 151
        assert network.output_size((height, width)) == network.suitable_size((height, width)) == (height, width)
        assert output_shape(network, height, width) == (1, 3, height, width)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_small_and_odd_images_give_finite_scores(name: str) -> None:
    network = ANY_SIZE[name]().eval()
    rng = np.random.default_rng(0)
    with no_grad():
        for size in ((1, 1), (1, 33), (13, 2), (31, 32), (50, 37)):
            scores = network(Tensor(rng.standard_normal((2, 3, *size)).astype(np.float32)))
            assert scores.shape == (2, 3, *size) and scores.dtype == np.float32 and np.isfinite(scores.numpy()).all()


def test_segnet_at_the_camvid_size_goes_down_to_12x15_and_back() -> None:
    with init.skipped():
        rows = nn.summary(models.SegNet(), (1, 3, 360, 480)).rows
    pooled = [row.output_shape[2:] for row in rows if row.type == "MaxPool2d"]
    unpooled = [row.output_shape[2:] for row in rows if row.type == "MaxUnpool2d"]
    assert pooled == [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
    assert unpooled == [(23, 30), (45, 60), (90, 120), (180, 240), (360, 480)]
    assert rows[-1].output_shape == (1, 11, 360, 480)


def test_segnet_puts_maxima_back_where_they_were() -> None:
    """Each unpooling gets the indices of its own pooling: behind it, nothing is left outside the places of the maxima."""
    network = models.SegNet(2, 3, width=2).eval()
    kept: list[Tensor] = []
    unpooled: list[tuple[Tensor, Tensor]] = []
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda module, inputs, output: kept.append(output[1]))
    network.unpool.register_forward_hook(lambda module, inputs, output: unpooled.append((inputs[1], output)))
    network(Tensor(np.random.default_rng(0).standard_normal((1, 2, 37, 22)).astype(np.float32)))
    assert len(kept) == len(unpooled) == 5
    for indices, (used, output) in zip(reversed(kept), unpooled, strict=True):
        assert used is indices
        planes = output.numpy().reshape(output.shape[1], -1)
        for plane, at in zip(planes, used.numpy().reshape(output.shape[1], -1), strict=True):
            assert set(np.flatnonzero(plane)) <= set(at)


# -- U-Net ---------------------------------------------------------------------------------------------------------------------------


def test_the_papers_unet() -> None:
    with init.skipped():
        network = models.UNet()
        assert output_shape(network, 572, 572) == (1, 2, 388, 388)
    assert network.crops == (4, 16, 40, 88)
    assert network.margin == 92 and network.output_size((572, 188)) == (388, 4)


def test_valid_unet_takes_16_k_plus_12_from_188_on() -> None:
    network = models.UNet(1, 2, base=1)
    assert [n for n in range(1, 400) if network.takes(n)] == list(range(188, 400, 16))
    for j in range(7):
        height, width = 188 + 16 * j, 188 + 16 * (3 * j % 7)
        assert output_shape(network, height, width) == (1, 2, height - 184, width - 184)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_valid_unets_of_other_depths(depth: int) -> None:
    """What `takes`, `crops` and `margin` say agrees with running the layers: odd poolings and empty maps are the errors."""
    network = models.UNet(1, 2, base=1, depth=depth)
    cropped: list[int] = []
    join = network._join

    def spy(map: Tensor, x: Tensor) -> Tensor:
        cropped.append((map.shape[2] - x.shape[2]) // 2)
        return join(map, x)

    network._join = spy  # type: ignore[method-assign]
    for n in range(1, 20 * 2**depth):
        size, fits = n, True
        for _ in range(depth):
            size -= 4
            fits = fits and size > 0 and size % 2 == 0
            size //= 2
        size -= 4
        for _ in range(depth):
            fits = fits and size > 0
            size = 2 * size - 4
        fits = fits and size > 0
        assert network.takes(n) == fits
        if fits:
            assert n - 2 * network.margin == size
    n = network.suitable_size((30, 1))[0]
    assert n - 2 * network.margin >= 30
    assert output_shape(network, n, network.suitable_size((30, 1))[1])[2] == n - 2 * network.margin
    assert tuple(cropped) == network.crops


@pytest.mark.parametrize("upsample", ["transpose", "bilinear"])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_padded_unet_keeps_every_size_from_16_on(upsample: str, norm: str | None) -> None:
    network = models.UNet(2, 3, base=1, padding="same", norm=norm, upsample=upsample)
    assert network.margin == 0 and network.crops == (0, 0, 0, 0)
    for n in range(16, 60):
        assert output_shape(network, n, 16 + (n * 7) % 44) == (1, 3, n, 16 + (n * 7) % 44)
    network.eval()
    scores = network(Tensor(np.random.default_rng(0).standard_normal((2, 2, 37, 50)).astype(np.float32)))
    assert scores.shape == (2, 3, 37, 50) and np.isfinite(scores.numpy()).all()


def test_suitable_sizes() -> None:
    valid, same = models.UNet(1, 2, base=1), models.UNet(1, 2, base=1, padding="same", depth=3)
    assert valid.suitable_size((388, 389)) == (572, 588)
    assert valid.suitable_size((1, 4)) == (188, 188)
    assert same.suitable_size((1, 17)) == (8, 24)
    assert same.suitable_size((24, 8)) == (24, 8)
    with pytest.raises(ValueError, match="UNet: size must be at least 1"):
        valid.suitable_size((0, 3))
    assert smallest_and_period(lambda n: valid.suitable_size((n, 1))[0], valid.margin) == (188, 16)
    assert smallest_and_period(lambda n: same.suitable_size((1, n))[1], same.margin) == (8, 8)
    anything = models.FCN8s(3, width=1)
    assert smallest_and_period(lambda n: anything.suitable_size((1, n))[1], 0) == (1, 1)


@pytest.mark.parametrize(
    "options, size, message",
    [
        (
            {},
            (570, 600),
            "UNet: an image of 570x600 does not fit: height and width must be 16 k + 12, at least 188; the nearest sizes that fit are 556x588 and 572x604",
        ),
        ({}, (572, 600), "the nearest sizes that fit are 572x588 and 572x604"),
        ({}, (96, 128), "the nearest size that fits is 188x188"),
        ({"depth": 1}, (21, 17), "height and width must be multiples of 2, at least 18; the nearest size that fits is 22x18"),
        ({"padding": "same"}, (15, 64), "height and width must be at least 16 pixels; the nearest size that fits is 16x64"),
        ({"padding": "same"}, (700, 3), "the nearest size that fits is 700x16"),
        ({"padding": "same"}, (0, 40), "the nearest size that fits is 16x40"),
    ],
)
def test_sizes_that_do_not_fit_are_answered_with_some_that_do(options: dict[str, Any], size: tuple[int, int], message: str) -> None:
    network = models.UNet(1, 2, base=1, **options)
    for attempt in (lambda: network.output_size(size), lambda: network(Tensor(np.zeros((1, 1, *size), np.float32)))):
        with pytest.raises(ValueError) as error:
            attempt()
        assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fcn8s", "segnet", "segnet_basic"])
def test_inputs_of_another_shape_are_refused(name: str) -> None:
    network = ANY_SIZE[name]()
    for shape in ((3, 32, 32), (1, 4, 32, 32), (1, 3, 32)):
        with pytest.raises(ValueError, match=r"input must be \(N, 3, H, W\), got shape \("):
            network(Tensor(np.zeros(shape, np.float32)))
    with pytest.raises(TypeError, match="input must be a Tensor, got ndarray"):
        network(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(
        ValueError, match="an image of 0x32 does not fit: height and width must be at least 1 pixel; the nearest size that fits is 1x32"
    ):
        network(Tensor(np.zeros((1, 3, 0, 32), np.float32)))


@pytest.mark.parametrize("name", [*ANY_SIZE, "unet"])
def test_an_empty_batch_gives_an_empty_batch(name: str) -> None:
    network = ANY_SIZE[name]() if name in ANY_SIZE else models.UNet(3, 3, base=1, padding="same")
    assert network.eval()(Tensor(np.zeros((0, 3, 20, 17), np.float32))).shape == (0, 3, 20, 17)


# -- classifiers -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, smallest",
    [
        (models.VGG11, 32),
        (models.VGG19, 32),
        (lambda c, width: models.AlexNet(c, width=width), 63),
        (lambda c, width: models.CaffeNet(c, width=6), 39),
    ],
)
def test_classifiers_take_any_image_from_their_smallest_on(make: Callable[..., models.Classifier], smallest: int) -> None:
    network = make(3, width=1).eval()
    assert network.smallest == smallest
    for size in ((smallest, smallest + 3), (100, smallest)):
        assert network(Tensor(np.zeros((2, 3, *size), np.float32))).shape == (2, 3)
    with pytest.raises(ValueError, match=f"an image of {smallest - 1}x90 is too small; height and width must be at least {smallest}"):
        network(Tensor(np.zeros((2, 3, smallest - 1, 90), np.float32)))
    with pytest.raises(ValueError, match=r"input must be \(N, 3, H, W\), got shape \(2, 1, 90, 90\)"):
        network(Tensor(np.zeros((2, 1, 90, 90), np.float32)))
