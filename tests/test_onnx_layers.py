"""Each function and layer as ONNX, in onnxruntime: over geometries that Hypothesis draws, and at other sizes than those exported."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from operator import ge
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_files import agree

import minidcnn
from minidcnn import Function, Tensor, nn
from minidcnn import functional as F
from minidcnn.functional.pad import border
from minidcnn.functional.resize import Resample, nearest
from minidcnn.interop import ExportError, export_onnx
from minidcnn.interop.onnx.writer import BUILDERS
from minidcnn.testing import Conv, Pool, convs, pools, seeds, tie_free

Array = np.ndarray[Any, Any]
some = settings(max_examples=12)
dtypes = st.sampled_from([np.dtype(np.float32), np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)])


def normal(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- convolution --------------------------------------------------------------------------------------------------------------


@some
@given(convs(), seeds, dtypes, st.booleans())
def test_conv2d(case: Conv, seed: int, dtype: Any, biased: bool) -> None:
    assume(case.batch)
    w, bias = (Tensor(normal(shape, seed + i, dtype)) for i, shape in enumerate((case.w, (case.outputs,))))
    agree(lambda x: F.conv2d(x, w, bias if biased else None, **case.options), normal(case.x, seed, dtype), dynamic=())


@some
@given(convs(), seeds, dtypes, st.booleans(), st.data())
def test_conv_transpose2d(case: Conv, seed: int, dtype: Any, biased: bool, data: st.DataObject) -> None:
    """Output padding too; where the dilation is larger than the stride it may reach the stride, but not in onnxruntime."""
    assume(case.batch and (dtype != np.float64 or case.groups == 1))  # onnx's reference knows no groups here
    limits = map(max, case.window.stride, case.window.dilation)
    extra = tuple(data.draw(st.integers(0, limit - 1)) for limit in limits)
    assume(min(case.window.image_size(case.y[2:], extra)) > 0 and min(case.window.image_size(case.y[2:])) > 0)
    w, bias = (Tensor(normal(shape, seed + i, dtype)) for i, shape in enumerate((case.w, (case.channels,))))

    def network(y: Tensor) -> Tensor:
        return F.conv_transpose2d(y, w, bias if biased else None, output_padding=extra, **case.options)

    with pytest.raises(ExportError, match="reaches the stride") if any(map(ge, extra, case.window.stride)) else nullcontext():
        agree(network, normal(case.y, seed, dtype), dynamic=())


# -- pooling ------------------------------------------------------------------------------------------------------------------


@some
@given(pools(), seeds)
def test_max_pool2d_and_its_indices(case: Pool, seed: int) -> None:
    assume(case.batch)
    agree(lambda x: F.max_pool2d(x, **case.options, return_indices=True), tie_free(case.x, seed, np.float32), dynamic=())


def test_of_equal_maxima_the_first_wins() -> None:
    x = np.zeros((1, 2, 5, 7), np.float32)
    x[0, 1, 2:, 3:] = 1
    agree(lambda x: F.max_pool2d(x, (2, 3), (2, 2), return_indices=True), x)


@some
@given(pools(), seeds, st.sampled_from([np.float32, np.float16, np.float64]))
def test_max_unpool2d_adds_where_indices_repeat(case: Pool, seed: int, dtype: Any) -> None:
    assume(case.batch)

    def there_and_back(x: Tensor) -> Tensor:
        y, indices = F.max_pool2d(x, **case.options, return_indices=True)
        window = case.window
        size = tuple(max(m, n) for m, n in zip(window.image_size((y.shape[2], y.shape[3])), case.size, strict=True))
        assume(
            all(
                abs(a - b) < s
                for a, b, s in zip(size, window._replace(dilation=(1, 1)).image_size(y.shape[2:]), window.stride, strict=True)
            )
        )
        return F.max_unpool2d(y, indices, window.kernel, window.stride, window.padding, size)

    agree(there_and_back, tie_free(case.x, seed, dtype), dynamic=())


def test_unpooling_takes_indices_as_an_input() -> None:
    y = normal((2, 3, 2, 4))
    indices = np.random.default_rng(0).integers(0, 4 * 8, y.shape)
    exported = agree(nn.MaxUnpool2d(2), y, indices, others=[(y[:1, :, :1, :3], indices[:1, :, :1, :3] % 12)])
    assert exported.open == ("batch", "height", "width") and exported.inputs[1][2] == "int64"


def test_unpooling_at_winners_of_a_constant() -> None:
    constant = normal((2, 3, 4, 6), 5)

    def network(x: Tensor) -> Tensor:
        _, indices = F.max_pool2d(Tensor(constant), 2, return_indices=True)
        return F.max_unpool2d(F.exp(x), indices, 2)

    assert agree(network, normal((2, 3, 2, 3))).open == ()


def test_images_without_a_batch() -> None:
    def there_and_back(x: Tensor) -> Any:
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        return {"pooled": y, "where": indices, "back": F.max_unpool2d(y, indices, 2, output_size=x.shape[1:])}

    exported = agree(there_and_back, normal((3, 5, 6)), others=[(normal((3, 8, 5), 1),)])
    assert [name for name, *_ in exported.outputs] == ["pooled", "where", "back"] and exported.open == ("height", "width")


@some
@given(pools(dilated=False), seeds, st.booleans(), st.sampled_from([None, None, 3, -2]), dtypes)
def test_avg_pool2d(case: Pool, seed: int, include: bool, divisor: int | None, dtype: Any) -> None:
    assume(case.batch)
    options = {key: value for key, value in case.options.items() if key != "dilation"}
    agree(
        lambda x: F.avg_pool2d(x, **options, count_include_pad=include, divisor_override=divisor), normal(case.x, seed, dtype), dynamic=()
    )


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool2d_at_other_sizes(include: bool, ceil: bool) -> None:
    """What windows at the border hold is counted while the model runs, but for padding that hanging windows have less of."""
    layer = nn.AvgPool2d((3, 4), (2, 3), (1, 2), ceil_mode=ceil, count_include_pad=include)
    known = include and ceil
    others = [(normal((1, 3, 8, 11), 1),), (normal((3, 3, 9, 14), 2),)]
    exported = agree(layer, normal((2, 3, 7, 9)), others=[] if known else others)
    assert exported.open == (("batch",) if known else ("batch", "height", "width"))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_padding_may_be_taken_into_the_average_behind_it(ceil: bool, include: bool, tmp_path: Path) -> None:
    """As onnxruntime does it, several versions wrongly unless padding counts, and many not with as much padding as there are taps."""
    layer = nn.AvgPool2d((3, 4), (2, 3), (1, 2), ceil_mode=ceil, count_include_pad=include)
    export_onnx(layer, Tensor(np.ones((2, 3, 7, 9), np.float32)), tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    numbers = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    for node in (node for node in graph.node if node.op_type == "AveragePool"):
        assert {a.name: a.i for a in node.attribute}["count_include_pad"] == 1
    for node in (node for node in graph.node if node.op_type == "Pad"):
        assert (numbers[node.input[1]][[2, 3, 6, 7]] < [3, 4, 3, 4]).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 9), (None, 2), (5, 7), (6, 11)])
def test_adaptive_avg_pool2d(size: Any) -> None:
    exported = agree(nn.AdaptiveAvgPool2d(size), normal((2, 3, 5, 7)), others=[(normal((1, 3, 8, 4), 1),), (normal((3, 3, 3, 13), 2),)])
    assert exported.open == ("batch", "height", "width")


# -- resizing and padding -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 19)] * 2), st.sampled_from(["nearest", "bilinear", "aligned"]), dtypes
)
def test_interpolate_to_any_size(size: Any, wanted: Any, mode: str, dtype: Any) -> None:
    options = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": mode == "aligned"}
    agree(lambda x: F.interpolate(x, wanted, **options), normal((2, 3, *size), 0, dtype), dynamic=())


@settings(max_examples=15)
@given(st.tuples(*[st.integers(2, 9)] * 2), st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 1.9, 2.0, 3.0, 4.1])] * 2), st.booleans())
def test_interpolate_by_any_factor(size: Any, factor: Any, smooth: bool) -> None:
    options = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    agree(lambda x: F.interpolate(x, scale_factor=factor, **options), normal((1, 2, *size)), dynamic=())


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "aligned"])
@pytest.mark.parametrize("to", [2, 3, (1, 3), (0.5, 1.5), (7, 12), "same"])
def test_resizing_at_other_sizes(mode: str, to: Any) -> None:
    """By a factor, to a fixed size and to the size of another value: whatever the size of the image."""
    options = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": mode == "aligned"}

    def resize(x: Tensor) -> Tensor:
        if to == "same":
            return F.interpolate(x[:, :, 1::2, :-1], x.shape[2:], **options)
        by = {"size": to} if to == (7, 12) else {"scale_factor": to}
        return F.interpolate(x, **by, **options)

    exported = agree(resize, normal((2, 3, 6, 8)), others=[(normal((1, 3, 4, 10), 1),), (normal((3, 3, 14, 6), 2),)])
    assert exported.open == ("batch", "height", "width")


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "aligned"])
@pytest.mark.parametrize("by", [1.5, (0.75, 2.5)])
@pytest.mark.parametrize("recompute", [True, False])
def test_rounded_sizes_stay_open(mode: str, by: Any, recompute: bool) -> None:
    """A size that is so many times the image's, rounded down: by `recompute_scale_factor`, and where the network computed it itself."""
    options = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": mode == "aligned"}
    rows, columns = by if isinstance(by, tuple) else (by, by)

    def resize(x: Tensor) -> Tensor:
        if recompute:
            return F.interpolate(x, scale_factor=by, recompute_scale_factor=True, **options)
        return F.interpolate(x, (int(x.shape[2] * rows), int(x.shape[3] * columns)), **options)

    exported = agree(resize, normal((2, 3, 7, 9)), others=[(normal((1, 3, 13, 5), 1),), (normal((3, 3, 10, 17), 2),)])
    assert exported.open == ("batch", "height", "width")


def test_nearest_takes_the_pixels_of_float32_also_where_1_by_the_factor_rounds_down() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    assert not np.array_equal(F.interpolate(Tensor(x), scale_factor=(41, 47)).numpy(), x.repeat(41, 2).repeat(47, 3))
    for dynamic in ((), ("height", "width")):
        agree(lambda x: F.interpolate(x, scale_factor=(41, 47)), x, dynamic=dynamic)


def test_a_factor_taken_from_another_axis_fixes_it() -> None:
    """As many pixels come out at each width, and not the same ones."""
    exported = agree(
        lambda x: F.interpolate(x, scale_factor=(1.5 + 1 / (9 + x.shape[3]), 1)), normal((2, 3, 6, 8)), others=[(normal((1, 3, 6, 8)),)]
    )
    assert exported.open == ("batch",)


def test_the_adjoint_of_a_resizing_is_a_matrix() -> None:
    def network(x: Tensor) -> Tensor:
        rows, columns = nearest(3, x.shape[2]), border(x.shape[3] - 3, 2, 1, "reflect")
        return Resample(rows.transposed, columns.transposed)(x)

    others = [(normal((3, 3, 5, 7), 1),)]
    assert agree(network, normal((2, 3, 5, 7)), others=others).open == ("batch",)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("widths", [(1, 2, 0, 3), (0, 1, 2, 0), (-1, 2, 1, -2), (-1, -1, 0, -1), (3, -2, -2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_pad(mode: str, widths: Any, dtype: str) -> None:
    value = 1.5 if mode == "constant" else None
    others = [(normal((1, 3, 8, 7), 1, dtype),)]
    plain = mode == "constant" or min(widths) >= 0  # else positions are stored in the file
    exported = agree(lambda x: F.pad(x, widths, mode, value), normal((2, 3, 5, 6), 0, dtype), others=others if plain else ())
    assert exported.open == ("batch", "height", "width") or not plain


def test_padding_layers_and_padded_convolutions() -> None:
    minidcnn.manual_seed(1)
    layers = [
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.ReflectionPad2d((1, 2, 0, 1)),
        nn.Conv2d(3, 4, (3, 2), padding="same", padding_mode="circular", dilation=(1, 2)),
        nn.Conv2d(4, 6, (2, 3), padding="same", groups=2),
        nn.Conv2d(6, 2, 3, padding=(2, 1), padding_mode="replicate", bias=False, stride=(2, 1)),
        nn.ConstantPad2d(1, -0.5),
        nn.ReplicationPad2d((0, 1, 2, 0)),
        nn.CircularPad2d((1, 1, 0, 2)),
    ]
    exported = agree(nn.Sequential(*layers), normal((2, 3, 7, 9)), others=[(normal((1, 3, 12, 8), 1),)])
    assert exported.open == ("batch", "height", "width")


# -- layers -------------------------------------------------------------------------------------------------------------------


def batch_norm(**options: Any) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(6, **options)
    for i, tensor in enumerate([layer.weight, layer.bias, layer.running_mean, layer.running_var]):
        if tensor is not None:
            tensor.data = np.random.default_rng(i).random(6) + 0.3
    return layer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": lambda: nn.Softmax(1),
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "dropout": nn.Dropout,
    "dropout2d": nn.Dropout2d,
    "identity": nn.Identity,
    "flatten": nn.Flatten,
    "pixel_shuffle": lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)),
    "upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    "nearest": lambda: nn.UpsamplingNearest2d(scale_factor=2),
    "aligned": lambda: nn.UpsamplingBilinear2d(scale_factor=(3, 2)),
    "batch_norm": batch_norm,
    "without weights": lambda: batch_norm(affine=False),
    "without statistics": lambda: batch_norm(track_running_stats=False),
    "batch statistics and relu": lambda: nn.Sequential(batch_norm(track_running_stats=False), nn.ReLU()),
    "small eps": lambda: batch_norm(eps=1e-9),
    "local_response_norm": lambda: nn.LocalResponseNorm(5, alpha=0.3, beta=0.7, k=2.0),
    "an even number of channels": lambda: nn.LocalResponseNorm(4, alpha=0.3),
    "convolution": lambda: nn.Conv2d(6, 9, (3, 2), (2, 1), (1, 2), (1, 2), 3),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, (3, 2), (2, 3), (1, 0), (1, 2)),
    "linear": lambda: nn.Linear(8, 5),
    "pooling": lambda: nn.Sequential(nn.MaxPool2d((2, 3), padding=(1, 1), ceil_mode=True), nn.AvgPool2d(2, 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, dtype: str) -> None:
    """float16 images meet float32 weights, as in training."""
    minidcnn.manual_seed(2)
    layer = LAYERS[name]().to("float64" if dtype == "float64" else "float32")
    fixed = name == "linear"
    more = [(normal((3, 6, 4, 8), 1, dtype),), *([] if fixed else [(normal((1, 6, 7, 5), 2, dtype),)])]
    exported = agree(layer, normal((2, 6, 5, 8), 0, dtype), others=more)
    assert set(exported.open) >= {"batch", "height"} and ("width" in exported.open) == (not fixed)


def test_linear_layers_are_gemm(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
    exported = agree(model, normal((4, 6)), others=[(normal((1, 6), 1),)])
    export_onnx(model, (4, 6), tmp_path / "a.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node] == ["Gemm", "Add", "Tanh", "Gemm"]
    assert str(exported) == "input (batch, 6) float32 -> output (batch, 3) float32; batch may have any size that the model takes"


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: (x + 2) * x - x / 3 + (-x) / (x * x + 1) + 0.3 * x / 4,
    "powers": lambda x: F.pow(x, 2) + F.pow(F.abs(x) + 0.1, 1.5) + F.pow(F.abs(x) + 0.5, x),
    "exponentials": lambda x: F.exp(x) + F.log(F.abs(x) + 1) + F.sqrt(F.abs(x)),
    "log1p": lambda x: F.log1p(F.abs(x) * 1e-5),
    "limits": lambda x: F.clamp(x, -0.5, 0.7) + F.clamp(x, max=0.1) + F.maximum(x, -x * 0.5) - F.minimum(x, 0.2),
    "broadcasts": lambda x: x + x[:, :, :1] * x[:1, 0] + F.broadcast_to(x[:1], x.shape) * 2,
    "a small broadcast": lambda x: F.exp(F.broadcast_to(x[:, :1], x.shape)),
    "sums": lambda x: (F.sum(x, (2, 3)), F.sum(x), F.mean(x, 1), F.mean(x, (2, 3), keepdim=True), F.var(x, (2, 3), correction=0)),
    "a mean of everything": lambda x: x - F.mean(x),
    "extrema": lambda x: (F.amax(x, (2, 3)), F.amin(x, 1, keepdim=True), F.logsumexp(x, (1, 3)), F.logsumexp(x * 500, 1)),
    "crops": lambda x: (
        x[:, :, 1:-1, 2:],
        x[..., ::2],
        x[:, 1],
        x[0, :, -1],
        x[:, None, :, :1],
        F.center_crop(x, x[:, :, 2:, 2:].shape[2:]),
        x[:, :, -2],
    ),
    "arrays as indices": lambda x: (x[:, [2, 0, 1, 1]], x[:, np.array([True, False, True, False])]),
    "flips": lambda x: F.flip(x, (2, 3)) + x,
    "axes": lambda x: (
        F.permute(x, (0, 2, 3, 1)),
        F.transpose(x, 1, 2),
        F.unsqueeze(x, 1),
        F.squeeze(x[:, :1], 1),
        F.reshape(x, (-1, 2, 2, x.shape[2], x.shape[3])),
    ),
    "joins": lambda x: (F.cat([x, x * 2], 1), F.stack([x, -x], 2), *F.split(x, 3, 1)),
    "products": lambda x: F.matmul(x, F.transpose(x, 2, 3)),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "the same twice": lambda x: (x * 2, x, x),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, dtype: str) -> None:
    exported = agree(FUNCTIONS[name], normal((2, 4, 4, 5), 0, dtype), others=[(normal((3, 4, 7, 8), 1, dtype),)])
    assert exported.open == ("batch", "height", "width")


def test_functions_without_a_form_are_known() -> None:
    """A new function needs a builder, or a place in this list."""
    kinds, found = [Function], set()
    while kinds:
        found.add(kind := kinds.pop())
        kinds += kind.__subclasses__()
    training = {"Dropout", "Checkpoint", "BatchNormGrad", "BatchNormReLUGrad", "ReLUGate", "LeakyGate", "Conv2dWeight"}
    adjoints = {"SumTo", "Place", "Gather", "AvgPool2dAdjoint", "PoolGather", "PoolScatter"}
    losses = {"CrossEntropy", "CrossEntropyGrad", "Softplus", "Expm1", "AtClass", "ClassSums", "PickClass", "PlaceClass", "Quotient"}
    columns = {"Im2col", "Col2im"}  # unfold and fold, which no layer uses
    without = {kind.__name__ for kind in found - set(BUILDERS) if kind.__module__.startswith("minidcnn.functional.")}
    assert without == training | adjoints | losses | columns | {"Elementwise"}
