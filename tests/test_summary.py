"""summary: shapes as they are, parameters and multiply-adds by hand, receptive fields against what gradients see."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minidcnn
from minidcnn import Tensor, nn
from minidcnn import functional as F
from minidcnn.backend import kernels_of, random_state, use_kernels
from minidcnn.models import UNet
from minidcnn.nn.shapes import ShapeKernels


def trunk() -> nn.Sequential:
    """The convolutions and pools of VGG16."""
    layers: list[nn.Module] = []
    channels = 3
    for repeats, out in ((2, 4), (2, 8), (3, 16), (3, 32), (3, 32)):
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, out, 3, padding=1)]
            channels = out
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers)


def test_vgg16_has_the_published_receptive_fields() -> None:
    result = nn.summary(nn.Sequential(*trunk(), nn.Conv2d(32, 8, 7)), (1, 3, 250, 230))
    pool5, fc6 = result.rows[-2], result.rows[-1]
    assert pool5.field is not None and fc6.field is not None
    assert pool5.field.size == (212, 212) and pool5.field.jump == (32, 32)
    assert fc6.field.size == (404, 404) and fc6.field.jump == (32, 32)
    assert pool5.output_shape == (1, 32, 8, 8)


def test_numbers_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), groups=2), nn.ConvTranspose2d(6, 5, (2, 3), stride=2), nn.Flatten(), nn.Linear(5 * 6 * 11, 7)
    )
    net[1].requires_grad_(False)
    result = nn.summary(net, (2, 4, 7, 6))
    shapes = [row.output_shape for row in result.rows]
    assert shapes == [(2, 6, 3, 5), (2, 5, 6, 11), (2, 330), (2, 7)]
    products = [2 * 6 * 3 * 5 * 2 * 6, 2 * 6 * 3 * 5 * 5 * 6, 0, 2 * 330 * 7]
    assert [row.multiply_adds for row in result.rows] == products and result.multiply_adds == sum(products)
    parameters = [6 * 2 * 6 + 6, 6 * 5 * 6 + 5, 0, 330 * 7 + 7]
    assert [row.parameters for row in result.rows] == parameters and result.parameters == sum(parameters)
    assert result.trainable == sum(parameters) - parameters[1]
    assert result.parameter_bytes == 4 * sum(parameters)
    assert [row.output_bytes for row in result.rows] == [4 * math.prod(s) for s in shapes]
    assert result.output_bytes == sum(row.output_bytes for row in result.rows)
    assert [row.type for row in result.rows] == ["Conv2d", "ConvTranspose2d", "Flatten", "Linear"]


def test_rows_come_in_order_of_execution_and_shared_parameters_count_once() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(2, 2, (1, 3))
            self.first = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Identity())
            self.never = nn.Linear(3, 3)
            self.scale = nn.Parameter(np.ones((2, 1, 1), np.float32))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.second(self.first(x))) * self.scale

    result = nn.summary(Backwards(), (1, 2, 4, 9))
    assert [row.name for row in result.rows] == ["first.0", "first.1", "second", "second", "Backwards"]
    assert [row.parameters for row in result.rows] == [6, 0, 14, 0, 2]
    assert result.parameters == 6 + 14 + 2 + 12
    assert [row.field.size for row in result.rows if row.field] == [(1, 1), (1, 1), (1, 3), (1, 5), (1, 5)]


def test_functions_called_outside_layers_are_counted_where_they_are_called() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.inner(x), Tensor(np.ones((4, 3, 2, 3), np.float32)), stride=2)

    result = nn.summary(nn.Sequential(Functional()), (1, 2, 6, 9))
    assert [(row.name, row.multiply_adds) for row in result.rows] == [("0.inner", 6 * 9 * 6), ("0", 3 * 4 * 4 * 18)]
    assert result.rows[1].field is not None and result.rows[1].field.size == (2, 3)


def test_nothing_is_changed_and_nothing_computed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Identity(), nn.MaxPool2d(2), nn.Conv2d(64, 512, 3))
    net[1].eval()
    before, modes, state = net.state_dict(), [m.training for m in net.modules()], random_state()
    result = nn.summary(net, (4, 3, 20_000, 30_000))  # 600 GB of activations
    assert result.rows[0].output_bytes == 4 * 64 * 20_000 * 30_000 * 4
    assert result.rows[0].multiply_adds == 4 * 64 * 20_000 * 30_000 * 27
    assert modes == [m.training for m in net.modules()] and state == random_state()
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(not m._hooks and not m._pre_hooks for m in net.modules())
    assert kernels_of(np.zeros(1)).name != "shapes"


def test_a_size_that_does_not_fit_raises_the_layers_own_error_and_leaves_no_hooks() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3))
    with pytest.raises(ValueError, match="conv2d: weight expects 5 input channels, got 4"):
        nn.summary(net, (1, 3, 8, 9))
    for wrong, message in (
        ((1, 3, -8, 9), "summary: input_size must be at least 0, got -8"),
        ((None, 3, 8, 9), r"summary: input_size must be an int or a sequence of ints, got \(None, 3, 8, 9\)"),
        ([(1, 3, 8, 9), (1, 3, 8.0, 9)], r"summary: input_size must be an int or a sequence of ints, got \(1, 3, 8.0, 9\)"),
        (None, "summary: input_size must be an int or a sequence of ints, got None"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            nn.summary(net, wrong)  # type: ignore[arg-type]
    assert net.training and all(not m._hooks and not m._pre_hooks for m in net.modules()) and kernels_of(np.zeros(1)).name != "shapes"


def test_sizes_may_come_from_numpy() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    wanted = str(nn.summary(net, (1, 3, 8, 9)))
    for size in (np.array([1, 3, 8, 9]), [np.array([1, 3, 8, 9])], (np.int64(1), 3, 8, 9)):
        assert str(nn.summary(net, size)) == wanted


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            pooled, _ = self.pool(x)
            return {"a": pooled, "b": [self.conv(y)]}

    result = nn.summary(Two().double(), [(1, 2, 4, 6), (1, 2, 3, 5)])
    assert [row.output_shape for row in result.rows] == [(1, 2, 2, 3), (1, 3, 3, 5)]
    assert result.rows[0].output_bytes == 12 * (8 + 8) and result.rows[1].output_bytes == 45 * 8


def test_the_table() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, (3, 5), stride=(2, 1)), nn.Flatten(), nn.Linear(8 * 15 * 26, 2))
    assert str(nn.summary(net, (1, 3, 32, 30))).split("\n") == [
        "Sequential on 1 x 3 x 32 x 30",
        "------------------------------------------------------------------------",
        "Layer  Type     Output           Parameters  Multiply-adds   Sees   Jump",
        "------------------------------------------------------------------------",
        "0      Conv2d   1 x 8 x 15 x 26         368       140.40 k  3 x 5  2 x 1",
        "1      Flatten  1 x 3120                  -              -    all      -",
        "2      Linear   1 x 2                 6,242         6.24 k    all      -",
        "------------------------------------------------------------------------",
        "parameters 6,610 (6,610 trainable, 25.8 KiB), multiply-adds 146.64 k, outputs 24.4 KiB, kept for backward 12.2 KiB",
    ]


# -- shapes and receptive fields against the real thing ------------------------------------------------------------------------------


@st.composite
def layers(draw: Any, channels: int = 2) -> nn.Sequential:
    """A few random layers that keep the number of channels."""
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        kind = draw(st.sampled_from(["conv", "transposed", "max", "average", "nearest", "bilinear"]))
        if kind == "conv":
            made.append(nn.Conv2d(channels, channels, kernel, stride, draw(st.integers(0, 1)), dilation, bias=False))
        elif kind == "transposed":
            made.append(nn.ConvTranspose2d(channels, channels, kernel, stride, dilation=dilation, bias=False))
        elif kind == "max":
            made.append(nn.MaxPool2d(kernel, stride, dilation=dilation, ceil_mode=draw(st.booleans())))
        elif kind == "average":
            made.append(nn.AvgPool2d(kernel, stride))
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
            down = [layer.stride[axis] for layer in net if not isinstance(layer, nn.Upsample)]
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


def test_buffers_that_forward_changes_are_as_before() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", Tensor([3]))
            self.register_buffer("largest", Tensor([2.0, 5.0]))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.largest = F.maximum(self.largest, F.amax(x.detach(), (0, 2, 3)))
            return x

    net = Counts()
    calls, largest = net.calls, net.largest
    x = Tensor([1.0], requires_grad=True)
    y = x * calls
    nn.summary(net, (1, 2, 3, 4))
    y.backward()  # nothing has changed
    assert net.calls is calls and net.largest is largest
    assert (calls.numpy().tolist(), largest.numpy().tolist()) == ([3], [2.0, 5.0])
    net(Tensor(np.ones((1, 2, 3, 4), np.float32)))
    assert net.calls is calls and calls.numpy().tolist() == [4]


def test_a_mean_over_all_pixels_sees_the_whole_image() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    field = nn.summary(nn.Sequential(nn.Conv2d(1, 1, 3), Mean()), (1, 1, 7, 9)).rows[-1].field
    assert field is not None and field.whole


def test_a_fractional_jump_is_printed_as_a_fraction() -> None:
    result = nn.summary(nn.Sequential(nn.ConvTranspose2d(1, 1, 3, (3, 2))), (1, 1, 4, 5))
    assert result.rows[0].field is not None and result.rows[0].field.jump == (Fraction(1, 3), Fraction(1, 2))
    assert "1/3 x 1/2" in str(result)


def test_shape_kernels_have_the_shapes_and_dtypes_of_the_reference() -> None:
    rng = np.random.default_rng(0)

    def both(f: Any) -> None:
        results = []
        for which in (ShapeKernels(np), "reference"):
            with use_kernels(which):
                y = f()
                results.append([(t.shape, t.dtype) for t in (y if isinstance(y, tuple) else (y,))])
        assert results[0] == results[1]

    for dtype in ("float32", "float64"):
        x, w = Tensor(rng.standard_normal((2, 4, 7, 6)).astype(dtype)), Tensor(rng.standard_normal((6, 2, 3, 2)).astype(dtype))
        both(lambda x=x, w=w: F.conv2d(x, w, None, (2, 1), 1, 1, 2))
        both(lambda x=x, w=w: F.conv_transpose2d(F.cat([x, x[:, :2]], 1), w, None, 2, 1, 1, 2))
        both(lambda x=x: F.max_pool2d(x, 2, return_indices=True, ceil_mode=True))
        both(lambda x=x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(7, 6)))
        both(lambda x=x: F.avg_pool2d(x, (3, 2), 1))
        both(lambda x=x: F.fold(F.unfold(x, 2), (7, 6), 2))
        both(lambda x=x: (x.sum(1), x.mean((0, 2), True), x.sum(), F.exp(x) * 2 + x[:, :1], x > 0.5))
        both(lambda x=x: F.where(x > 0, x, 0.0) + F.var(x, (2, 3), keepdim=True))
        both(lambda x=x: F.matmul(x, F.transpose(x, 2, 3)))
