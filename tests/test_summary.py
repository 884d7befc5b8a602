"""summary: shapes as they are, parameters and multiply-adds by hand, the table."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn
from minidcnn import functional as F
from minidcnn.backend import kernels_of, random_state, use_kernels
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


class Products(nn.Module):
    """Matrix products of its own: (2, 3, 4) -> (2, 3, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.ones((5, 4), np.float32))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)  # (2, 3, 5)
        y = y @ F.transpose(y, 1, 2) @ y  # (2, 3, 3) and (2, 3, 5)
        return y @ Tensor(np.ones((5, 6), np.float32)) + (y @ Tensor(np.ones(5, np.float32)))[..., None]


def test_matrix_products_count_wherever_they_are_and_none_is_computed() -> None:
    result = nn.summary(Products(), (2, 3, 4))
    assert result.rows[-1].output_shape == (2, 3, 6)
    assert result.multiply_adds == 2 * (3 * 5 * 4 + 3 * 3 * 5 + 3 * 5 * 3 + 3 * 6 * 5 + 3 * 5)
    huge = nn.summary(nn.Linear(64, 32, bias=False), (10**9, 64))
    assert huge.rows[0].output_shape == (10**9, 32) and huge.multiply_adds == 10**9 * 64 * 32


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
