"""Theorems T19 to T21, on what the layers of a network add up to: receptive fields, and the offsets and sizes of FCN and U-Net."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from theorems import Array, Line, conv_t, row

from minidcnn import Tensor, grad, nn
from minidcnn import functional as F
from minidcnn.models import FCN8s, FCN16s, FCN32s, FCNAlexNet, UNet
from minidcnn.models.geometry import Placement, size_behind
from minidcnn.models.vgg import vgg_features
from minidcnn.window import Window

# -- receptive fields, FCN, U-Net -------------------------------------------------------------------------------------------------------


@st.composite
def stacks(draw: st.DrawFn) -> list[Line]:
    """One to three windows, one after the other."""
    return [
        Line(draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2)))
        for _ in range(draw(st.integers(1, 3)))
    ]


def field(stack: list[Line]) -> tuple[int, Fraction, int]:
    """(size, centre of output 0, jump) of the receptive field."""
    size, start, jump = 1, Fraction(0), 1
    for line in stack:
        size += (line.span - 1) * jump
        start += (Fraction(line.span - 1, 2) - line.p) * jump
        jump *= line.s
    return size, start, jump


def down(stack: list[Line], x: Tensor) -> Tensor:
    for line in stack:
        x = F.conv2d(x, row(np.ones(line.k)), stride=(1, line.s), padding=(0, line.p), dilation=(1, line.d))
    return x


def reached(v: Array) -> tuple[int, int]:
    """First and last number that is not 0."""
    where = np.flatnonzero(v)
    return int(where[0]), int(where[-1])


@given(stack=stacks())
def test_t19_receptive_fields(stack: list[Line]) -> None:
    """r += (K - 1) j, start += ((K - 1)/2 - p) j, j *= s: what an output in the middle of the image depends on."""
    size, start, jump = field(stack)
    n = 4 * size + 8 * jump + 40
    x = row(np.zeros(n))
    x.requires_grad_()
    y = down(stack, x)
    middle = y.shape[3] // 2
    (g,) = grad(y[0, 0, 0, middle], x)
    first, last = reached(g.numpy()[0, 0, 0])
    assert last - first + 1 == size
    assert Fraction(first + last, 2) == start + middle * jump


def test_t19_vgg16() -> None:
    vgg = [*([Line(3, 1, 1)] * 2 + [Line(2, 2)]) * 2, *([Line(3, 1, 1)] * 3 + [Line(2, 2)]) * 3]
    assert (field(vgg)[0], field(vgg)[2]) == (212, 32)
    assert field([*vgg, Line(7)])[0] == 404


@given(stack=stacks(), more=st.integers(0, 3))
def test_t20_offsets_follow_from_where_windows_put_their_pixels(stack: list[Line], more: int) -> None:
    """Down, b <- (b + p - (K - 1)/2) / s; up, b <- b s + (K - 1)/2 - p: the distance from what a coarse pixel sees to what it paints."""
    _, _, jump = field(stack)
    kernel, p = 2 * jump, more
    n = 4 * field(stack)[0] + 12 * jump + 40
    x = row(np.zeros(n))
    x.requires_grad_()
    y = down(stack, x)
    middle = y.shape[3] // 2
    (sees,) = grad(y[0, 0, 0, middle], x)
    unit = np.zeros(y.shape[3])
    unit[middle] = 1
    paints = conv_t(unit, np.ones(kernel), jump, p)
    place = Placement()
    for line in stack:
        place = place.window(line.window, 1)
    up = place.transposed(Window((1, kernel), (1, jump), (0, p)), 1)
    assert up.scale == 1
    assert up.shift == Fraction(sum(reached(paints)), 2) - Fraction(sum(reached(sees.numpy()[0, 0, 0])), 2)


@given(pad=st.integers(81, 130))
def test_t20_fcn_crops(pad: int) -> None:
    """The last offset is pad - 81, - 73 and - 69 for FCN-32s, -16s and -8s; those of the skips, 5 and 9, do not depend on pad."""
    layers = list(vgg_features(16, 1, 1, pad=pad, ceil_mode=True))
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    score = Placement().through(layers).window(Window((7, 7)))
    by2, by8, by16, by32 = (Window((2 * s, 2 * s), (s, s)) for s in (2, 8, 16, 32))
    pool4, pool3 = (Placement().through(layers[: pools[i] + 1]) for i in (3, 2))
    assert score.transposed(by32).offset(Placement()) == pad - 81
    assert pool4.offset(score.transposed(by2)) == 5
    assert score.transposed(by2).transposed(by16).offset(Placement()) == pad - 73
    assert pool3.offset(score.transposed(by2).transposed(by2)) == 9
    assert score.transposed(by2).transposed(by2).transposed(by8).offset(Placement()) == pad - 69


def test_t20_the_published_offsets() -> None:
    networks = ((FCN32s, (19,)), (FCN16s, (5, 27)), (FCN8s, (5, 9, 31)))
    for network, offsets in networks:
        assert network(classes=2, in_channels=1, width=1).offsets == offsets
    assert FCNAlexNet(classes=2, in_channels=1, width=6).offsets == (18,)
    layers = list(vgg_features(16, 1, 1, pad=100, ceil_mode=True))
    score = Placement().through(layers).window(Window((7, 7)))
    assert (score.scale, score.shift) == (Fraction(1, 32), Fraction(-25, 64))
    assert [float(Placement().through(layers[:n]).shift) for n in (1, 5)] == [99, 49.25]  # behind conv1_1 and pool1


@given(n=st.integers(1, 1024))
def test_t20_padding_by_100_and_rounding_up_cover_every_image(n: int) -> None:
    layers = [*vgg_features(16, 1, 1, pad=100, ceil_mode=True), nn.Conv2d(1, 1, 7), nn.ConvTranspose2d(1, 1, 64, 32)]
    assert size_behind(layers, n) >= n + 19


def test_t20_rounding_down_does_not() -> None:
    """12 of every 32 sizes miss the last pixels, and below 26 no pixel is left to score: 397 of 1024."""
    layers = [*vgg_features(16, 1, 1, pad=100, ceil_mode=False), nn.Conv2d(1, 1, 7), nn.ConvTranspose2d(1, 1, 64, 32)]
    missed = [n for n in range(1, 1025) if size_behind(layers, n) < n + 19]
    assert missed == [n for n in range(1, 1025) if n < 26 or (n + 198) % 32 >= 20]
    assert len(missed) == 397


@given(n=st.integers(1, 700))
@example(n=572)
@example(n=188)
@example(n=172)
def test_t21_unet_without_padding(n: int) -> None:
    """No pooling drops a pixel and something is left over iff n = 12 (mod 16) and n >= 188; then n - 184 pixels come out."""
    size, maps, fits = n, [], True
    for _ in range(4):
        size -= 4
        maps.append(size)
        fits = fits and size > 0 and size % 2 == 0
        size //= 2
    size -= 4
    crops = []
    for map in reversed(maps):
        size *= 2
        crops.append((map - size) // 2)
        size -= 4
    fits = fits and size > 0
    assert fits == (n % 16 == 12 and n >= 188) == UNet(base=1).takes(n)
    if fits:
        assert size == n - 184 and crops == [4, 16, 40, 88] == list(UNet(base=1).crops)


def test_t21_on_the_network_itself() -> None:
    y = UNet(in_channels=1, classes=2, base=1)(Tensor(np.zeros((1, 1, 188, 204), np.float32)))
    assert y.shape == (1, 2, 4, 20) and 572 - 184 == 388
