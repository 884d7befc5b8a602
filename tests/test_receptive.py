"""summary's receptive fields, and shapes, against the real thing: what gradients reach, and what a run gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minidcnn
from minidcnn import Function, Tensor, nn
from minidcnn import functional as F
from minidcnn.models import UNet
from minidcnn.nn.receptive import Axis, Field


class Unshuffle(nn.Module):
    """(N, C, H, W) -> (N, 4 C, H / 2, W / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2)


@st.composite
def layers(draw: Any, channels: int = 2) -> nn.Sequential:
    """A few random layers that keep the number of channels."""
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        kind = draw(st.sampled_from(["conv", "transposed", "max", "average", "nearest", "bilinear", "shuffle", "unshuffle", "mirror"]))
        if kind == "conv":
            made.append(nn.Conv2d(channels, channels, kernel, stride, draw(st.integers(0, 1)), dilation, bias=False))
        elif kind == "transposed":
            made.append(nn.ConvTranspose2d(channels, channels, kernel, stride, dilation=dilation, bias=False))
        elif kind == "max":
            made.append(nn.MaxPool2d(kernel, stride, dilation=dilation, ceil_mode=draw(st.booleans())))
        elif kind == "average":
            made.append(nn.AvgPool2d(kernel, stride))
        elif kind == "shuffle":
            made.extend([nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.PixelShuffle(2)])
        elif kind == "unshuffle":
            made.extend([Unshuffle(), nn.Conv2d(4 * channels, channels, 1, bias=False)])
        elif kind == "mirror":
            made.append(draw(st.sampled_from([nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d]))((2, 0, 1, 3)))
        else:
            made.append(nn.Upsample(scale_factor=stride, mode=kind))
    return nn.Sequential(*made)


@given(layers(), st.integers(9, 14), st.integers(9, 14))
def test_shapes_are_those_of_the_real_run(net: nn.Sequential, height: int, width: int) -> None:
    x = Tensor(np.random.default_rng(0).standard_normal((1, 2, height, width)).astype(np.float32))
    try:
        expected = [x := layer(x) for layer in net]
    except ValueError:
        with pytest.raises(ValueError):
            nn.summary(net, (1, 2, height, width))
        return
    rows = nn.summary(net, (1, 2, height, width)).rows
    assert [row.output_shape for row in rows] == [y.shape for y in expected]


@given(layers())
def test_receptive_fields_are_what_gradients_reach(net: nn.Sequential) -> None:
    """With positive weights, and averages for maxima, a gradient is nonzero exactly where an output looks."""
    shape = (1, 2, 60, 56)
    try:
        field = nn.summary(net, shape).rows[-1].field
    except ValueError:
        assume(False)
    assert field is not None
    seen: list[list[int]] = []
    x = Tensor(np.ones(shape, np.float32), requires_grad=True)
    y = x
    for layer in net:
        if isinstance(layer, nn.MaxPool2d):
            kernel = np.zeros((2, 2, *layer.kernel_size), np.float32)
            kernel[range(2), range(2)] = 1
            y = F.conv2d(y, Tensor(kernel), stride=layer.stride, dilation=layer.dilation)
        else:
            assume(not isinstance(layer, Unshuffle) or not any(n % 2 for n in y.shape[2:]))  # the stand-in for pooling knows no ceil_mode
            for p in layer.parameters():
                nn.init.ones_(p)
            y = layer(y)
    assume(min(y.shape[2:]) >= 10)
    at = tuple(n // 2 for n in y.shape[2:])
    for row in range(at[0], at[0] + min(len(field.rows.seen), 16)):  # one period
        for column in range(at[1], at[1] + min(len(field.columns.seen), 16)):
            g = np.zeros(y.shape, np.float32)
            g[:, :, row, column] = 1
            touched = minidcnn.grad(y, x, g, retain_graph=True)[0].numpy().any((0, 1))
            spans = [np.flatnonzero(touched.any(axis)) for axis in (1, 0)]
            if all(s.size for s in spans):  # a strided transposed convolution leaves pixels that see nothing
                assume(all(0 < s[0] and s[-1] < n - 1 for s, n in zip(spans, shape[2:], strict=True)))
                seen.append([int(s[-1] - s[0]) + 1 for s in spans])
    assume(bool(seen))
    for axis in (0, 1):
        assert max(s[axis] for s in seen) == field.size[axis]
        if not any(isinstance(layer, nn.ConvTranspose2d) for layer in net):
            up = [int(layer.scale_factor[axis]) for layer in net if isinstance(layer, nn.Upsample)]
            up += [2 for layer in net if isinstance(layer, nn.PixelShuffle)]
            down = [layer.stride[axis] for layer in net if hasattr(layer, "stride")] + [2 for layer in net if isinstance(layer, Unshuffle)]
            assert field.jump[axis] == Fraction(math.prod(down), math.prod(up))


def test_skips_take_the_larger_field_and_upsampling_brings_the_jump_back() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.pool, self.deep = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2, 2), nn.Conv2d(2, 2, (3, 5), padding=(1, 2))
            self.up, self.end = nn.ConvTranspose2d(2, 2, 2, 2), nn.Conv2d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            skip = self.near(x)
            return self.end(F.cat([skip, self.up(self.deep(self.pool(skip)))], 1))

    rows = nn.summary(Skip(), (1, 1, 8, 12)).rows
    fields = {row.name: row.field for row in rows if row.field is not None}
    assert fields["deep"].size == (8, 12) and fields["deep"].jump == (2, 2)
    assert fields["up"].size == (8, 12) and fields["up"].jump == (1, 1)
    assert fields["end"].size == (8, 12) and fields["end"].jump == (1, 1)


def test_a_checkpoint_hides_nothing() -> None:
    class Again(nn.Module):
        def __init__(self, inside: nn.Module) -> None:
            super().__init__()
            self.inside = inside

        def forward(self, x: Tensor) -> Tensor:
            return F.checkpoint(self.inside, x)

    def fields(wrap: Callable[[nn.Module], nn.Module]) -> list[Any]:
        inside = nn.Sequential(nn.Conv2d(2, 3, (3, 5)), nn.MaxPool2d((1, 2)))
        net = nn.Sequential(nn.Conv2d(1, 2, 3), wrap(inside), nn.Conv2d(3, 1, (2, 3)))
        return [(row.field.size, row.field.jump) for row in nn.summary(net, (1, 1, 14, 20)).rows if row.field]

    assert fields(Again) == fields(lambda inside: inside)
    assert fields(Again)[-1] == ((6, 12), (1, 2))


def test_resizing_changes_the_jump_and_padding_does_not() -> None:
    def last(*layers: nn.Module, size: tuple[int, int] = (12, 18)) -> Any:
        field = nn.summary(nn.Sequential(*layers), (1, 2, *size)).rows[-1].field
        assert field is not None
        return field.size, field.jump

    pool, conv = nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1)
    assert last(pool, nn.UpsamplingNearest2d(scale_factor=2)) == ((2, 2), (1, 1))
    assert last(pool, nn.UpsamplingBilinear2d(scale_factor=2), conv) == ((6, 6), (1, 1))  # 3 outputs see 3 inputs of 2 pixels
    assert last(nn.Upsample(scale_factor=(0.5, 1 / 3)), conv) == ((5, 7), (2, 3))
    assert last(nn.AdaptiveAvgPool2d((4, 9))) == ((3, 2), (3, 2))
    assert last(nn.Upsample((20, 7), mode="bilinear"), size=(12, 19))[1] == (Fraction(12, 20), Fraction(19, 7))
    assert last(nn.ReflectionPad2d(1), conv, nn.ReplicationPad2d((0, 1, 2, 0)), conv) == ((5, 5), (1, 1))


def test_sub_pixels_change_the_jump() -> None:
    def fields(*layers: nn.Module) -> list[Any]:
        return [(row.field.size, row.field.jump) for row in nn.summary(nn.Sequential(*layers), (2, 3, 12, 18)).rows if row.field]

    half = Fraction(1, 2)
    shuffled = fields(nn.Conv2d(3, 4, (3, 5)), nn.PixelShuffle(2), nn.Conv2d(1, 2, (3, 4)))
    assert shuffled == [((3, 5), (1, 1)), ((3, 5), (half, half)), ((4, 7), (half, half))]
    assert fields(nn.Conv2d(3, 1, (3, 5)), Unshuffle(), nn.Conv2d(4, 2, (2, 3))) == [((3, 5), (1, 1)), ((4, 6), (2, 2)), ((6, 10), (2, 2))]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [(11, 13), (5, 6)])
@pytest.mark.parametrize("padding", [((2, 2), (2, 2)), ((3, 1), (0, 4)), ((1, -1), (-2, 2))])
def test_the_modes_of_padding_shift_alike(mode: str, padding: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int]) -> None:
    """A window of 5 on a padded image, beside the image itself and beside the same of zeros."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.end = nn.Conv2d(1, 1, 5, padding=(2, 2)), nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            rows, columns = padding
            y = F.pad(x, (*columns, *rows), "constant" if mode == "zeros" else mode)
            return self.end(F.conv2d(y, self.conv.weight)[:, :, : x.shape[2] - 4, : x.shape[3] - 4] + self.conv(x)[:, :, 2:-2, 2:-2])

    field = nn.summary(Beside(), (1, 1, *size)).rows[-1].field
    assert field is not None
    assert field.size == tuple(5 + abs(before) for before, _ in padding) and field.jump == (1, 1)


@pytest.mark.parametrize("mode", ["replicate", "circular"])
def test_a_border_as_wide_as_the_image_is_one(mode: str) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mirrored = nn.Conv2d(1, 1, (5, 3), padding=(2, 1), padding_mode=mode)
            self.zeros = nn.Conv2d(1, 1, (5, 3), padding=(2, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.mirrored(x) + self.zeros(x))

    for size in ((2, 1), (3, 2)):
        rows = nn.summary(nn.Sequential(Both(), nn.Conv2d(1, 1, 1)), (1, 1, *size)).rows
        assert rows[-1].field is not None and rows[-1].field.size == (5, 3)


@pytest.mark.parametrize("mode", ["replicate", "circular"])
@pytest.mark.parametrize("padding", [(1, 0, 3, 0), (0, 1, 0, 3), (1, 1, 3, 3)])
def test_a_border_as_wide_as_the_image_may_be_on_one_side(mode: str, padding: tuple[int, ...]) -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, padding, mode) + F.pad(x, padding)

    rows = nn.summary(nn.Sequential(Both(), nn.Conv2d(1, 1, 1)), (1, 1, 3, 1)).rows
    assert rows[-1].field is not None and rows[-1].field.size == (1, 1)


def test_a_unet_that_interpolates_has_the_jump_of_its_input() -> None:
    rows = nn.summary(UNet(1, 2, base=2, depth=2, padding="same", upsample="bilinear"), (1, 1, 21, 30)).rows
    assert [r.field.jump for r in rows if r.field and r.type == "UpsamplingBilinear2d"] == [(2, 2), (1, 1)]
    assert rows[-1].field is not None and rows[-1].field.jump == (1, 1)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_unpooling_brings_the_jump_back_also_where_pooling_rounded(ceil_mode: bool) -> None:
    class Unpool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.unpool = nn.MaxPool2d(2, ceil_mode=ceil_mode, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y, indices = self.pool(x)
            return self.unpool(y, indices, output_size=x.shape)

    for size in ((7, 9), (2, 3), (3, 2)):
        rows = nn.summary(Unpool(), (1, 1, *size)).rows
        assert [row.output_shape for row in rows] == [(1, 1, *((n + ceil_mode) // 2 for n in size)), (1, 1, *size)]
        assert [(r.field.size, r.field.jump) for r in rows if r.field] == [((2, 2), (2, 2)), ((2, 2), (1, 1))]


class Cut(nn.Module):
    """(N, C, H, W) without its first 2 rows and 3 columns, in one of the ways to write it."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x)


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "slices": lambda x: x[:, :, 2:, 3:],
    "dots": lambda x: x[..., 2:, 3:],
    "dots within": lambda x: x[:, ..., 2:, 3:],
    "dots behind": lambda x: x[:, :, 2:, 3:, ...],
    "a new axis": lambda x: x[:, None, :, 2:, 3:][:, 0],
    "channels": lambda x: x[:, [0, 1], 2:, 3:],
    "crop": lambda x: F.crop(x, 2, 3, x.shape[2] - 2, x.shape[3] - 3),
    "center_crop": lambda x: F.center_crop(F.pad(x, (0, 3, 0, 2)), x.shape[2:])[..., 1:-1, 2:-1],
    "pad": lambda x: F.pad(x, (-3, 0, -2, 0)),
    "pad one axis": lambda x: F.pad(x, (-3, 0, 1, 0))[..., 3:, :],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_crop_shifts_what_is_seen(way: Callable[[Tensor], Tensor]) -> None:
    """Beside the uncropped image a window of 3 sees 2 rows and 3 columns more."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.cut, self.end = nn.Conv2d(2, 2, 3, padding=1), Cut(way), nn.Conv2d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.near(x)
            return self.end(self.cut(y) + y[:, :, :-2, :-3])

    field = nn.summary(Beside(), (1, 2, 9, 12)).rows[-1].field
    assert field is not None and (field.size, field.jump) == ((5, 6), (1, 1))


def test_columns_of_windows_see_what_convolutions_see() -> None:
    class Columns(nn.Module):
        def __init__(self, back: bool) -> None:
            super().__init__()
            self.wide, self.end, self.back = nn.Conv2d(1, 6, 1), nn.Conv2d(1 if back else 6, 1, (2, 3)), back

        def forward(self, x: Tensor) -> Tensor:
            if self.back:  # each pixel becomes 2 x 3
                return self.end(F.fold(F.flatten(self.wide(x), 2), (2 * x.shape[2], 3 * x.shape[3]), (2, 3), stride=(2, 3)))
            columns = F.unfold(x, (3, 2), stride=(2, 3))
            return self.end(F.fold(columns, ((x.shape[2] - 1) // 2, (x.shape[3] + 1) // 3), 1))

    for back, size, jump in ((False, (5, 8), (2, 3)), (True, (2, 2), (Fraction(1, 2), Fraction(1, 3)))):
        field = nn.summary(Columns(back), (1, 1, 9, 14)).rows[-1].field
        assert field is not None and (field.size, field.jump) == (size, jump)


def test_each_output_of_a_function_sees_what_its_inputs_see() -> None:
    @dataclass(frozen=True)
    class Both(Function):
        differentiable: ClassVar[int] = 2

        def forward(self, x: Any) -> Any:
            return x + 1, x + 2, x + 3

    class Second(nn.Module):
        def __init__(self, which: int) -> None:
            super().__init__()
            self.conv, self.end, self.which = nn.Conv2d(1, 1, (3, 2)), nn.Conv2d(1, 1, (2, 4)), which

        def forward(self, x: Tensor) -> Tensor:
            return self.end(Both().outputs(self.conv(x))[self.which])

    fields = [nn.summary(Second(which), (1, 1, 9, 14)).rows[-1].field for which in range(3)]
    assert [field and field.size for field in fields] == [(4, 5), (4, 5), None]


def test_of_joined_branches_the_farther_seeing_one_counts() -> None:
    near, far = Axis(((0, 0),), 1), Axis(((0, 4),), 2)
    assert near.join(far).size == far.join(near).size == 5
    assert Field().join(Field(whole=True)).whole and Field(whole=True).join(Field()).whole
