"""Corners of the graph that ONNX files hold: what looks the same at the size exported and is something else at others, and odd numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_files import Of, agree, answers

from minidcnn import Tensor, nn
from minidcnn import functional as F
from minidcnn.interop import ExportError, export_onnx
from minidcnn.interop.onnx.graph import Graph
from minidcnn.interop.onnx.resize import _plainest

Array = np.ndarray[Any, Any]
ALL = ("batch", "height", "width")


def images(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


WEIGHT, BIAS = Tensor(images(3, 2, 3, 2, seed=3)), Tensor(images(2, seed=4))

# What depends on the height in a way that a graph cannot follow, at the size exported like something that it can.
BY_HEIGHT: dict[str, Callable[[Tensor], Any]] = {
    "what it is divided by": lambda x: x / x.shape[2],
    "a slope": lambda x: F.leaky_relu(x, 0.1 if x.shape[2] % 2 else 0.3),
    "output padding": lambda x: F.conv_transpose2d(x, WEIGHT, stride=2, output_padding=x.shape[2] % 2),
    "what is padded with": lambda x: F.pad(x, (1, 0, 0, 2), value=float(x.shape[2])),
    "padding before": lambda x: F.pad(x, (0, 0, 1 + x.shape[2] % 2, 0)),
    "positions": lambda x: x[:, [0, x.shape[2] % 3]],
    "a step": lambda x: x[:, :, :: 1 + x.shape[2] % 2],
    "a bias": lambda x: F.conv2d(x, F.transpose(WEIGHT, 0, 1), BIAS if x.shape[2] % 2 else None),
    "the order of results": lambda x: (F.exp(x), x * 2) if x.shape[2] % 2 else (x * 2, F.exp(x)),
    "which result it is": lambda x: [F.exp(x), x * 2][:: 1 if x.shape[2] % 2 else -1],
    "the number of results": lambda x: (x * 2,) * (1 + x.shape[2] % 2),
    "the number of means": lambda x: F.adaptive_avg_pool2d(x, (1 + x.shape[2] // 2, 3)),
}


@pytest.mark.parametrize("name", BY_HEIGHT)
def test_what_depends_on_the_height_fixes_it(name: str) -> None:
    others = [(images(3, 3, 4, 8, seed=1),), (images(1, 3, 4, 7, seed=2),)]
    assert agree(BY_HEIGHT[name], images(2, 3, 4, 5), others=others).open == ("batch", "width")


def changed_in_place(x: Tensor) -> Tensor:
    y = x * 2
    before = y - 1
    y += 0.5
    return y * before


FOLLOWED: dict[str, Callable[[Tensor], Any]] = {
    "resized to what the example is": lambda x: F.interpolate(x, (6, 6), mode="bilinear", align_corners=False),
    "resized by eighths": lambda x: F.interpolate(x, scale_factor=(1.125, 1.0625), mode="bilinear", align_corners=False),
    "the height of another": lambda x: F.interpolate(x[:, :, 1::2], x.shape[2:]),
    "height by width": lambda x: F.matmul(x, F.transpose(x, 2, 3)),
    "padded to the height of another, by one row above": lambda x: F.pad(x[:, :, 1::2], (0, 0, 1, (x.shape[2] + 1) // 2 - 1)),
    "a sum over as many elements as it is divided by, here": lambda x: F.sum(x, (2, 3)) / 36,
    "limits that are 0": lambda x: F.clamp(x, 0, 0.5) + F.clamp(x, max=0),
    "new axes and numbers": lambda x: (x[1:, 0, None], x[:, None, 1, None, :, -1], x[:, :, None, ::2, 1]),
    "what is changed in place": changed_in_place,
    "not a number": lambda x: F.maximum(x, Tensor(np.array([[[0.5]], [[np.nan]], [[-0.5]]], np.float32))),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_square_example_is_followed_to_any_size(name: str) -> None:
    exported = agree(FOLLOWED[name], images(2, 3, 6, 6), others=[(images(3, 3, 8, 5, seed=1),), (images(4, 3, 5, 11, seed=2),)])
    assert exported.open == ALL
    assert exported.inputs[0][1] == ("batch", 3, "height", "width")


@pytest.mark.parametrize("rounded", [0, 1, 3])
def test_sizes_between_halves_are_followed_where_all_sizes_are_odd(rounded: int) -> None:
    """Half of an odd number and a half more, or one and a half more."""

    def network(x: Tensor) -> Tensor:
        if not x.shape[2] % 2 or not x.shape[3] % 2:
            raise ValueError("not odd")
        return F.interpolate(x, ((x.shape[2] + rounded) // 2, (x.shape[3] + rounded) // 2), mode="bilinear", align_corners=True)

    exported = agree(network, images(2, 3, 5, 7), others=[(images(1, 3, 11, 5, seed=1),), (images(3, 3, 3, 9, seed=2),)])
    assert exported.open == ALL


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 16])
def test_the_plainest_factor_makes_every_size(parts: int) -> None:
    for wanted in (Fraction(k, parts) for k in range(1, 3 * parts)):
        for lengths in ((2, 4), (1, 2, 3), (5, 6, 9, 16), tuple(range(3, 70))):
            sizes = [(n, int(n * wanted)) for n in lengths]
            found = _plainest(sizes)
            assert found is not None and found.denominator <= wanted.denominator
            assert [(n, int(n * found)) for n in lengths] == sizes
    assert _plainest([(2, 2), (4, 5)]) == Fraction(5, 4) and _plainest([(2, 3), (4, 5)]) is None


def test_a_cube_of_an_example_has_three_sizes() -> None:
    exported = agree(lambda x: F.permute(x[:, :, 1:], (3, 0, 1, 2)), images(4, 4, 4, 4), others=[(images(2, 4, 5, 7, seed=1),)])
    assert exported.outputs[0][1] == ("width", "batch", 4, "output_3")


def test_five_axes_have_a_batch() -> None:
    exported = agree(F.exp, images(2, 3, 2, 1, 4), others=[(images(5, 3, 2, 1, 4, seed=1),)])
    assert exported.inputs[0][1] == ("batch", 3, 2, 1, 4)


# -- numbers ------------------------------------------------------------------------------------------------------------------


def test_functions_of_positive_numbers_are_exported_without_a_warning() -> None:
    """Numbers are made up to see what a network does at other sizes: nobody needs to hear that they have no root."""
    positive = np.abs(images(2, 3, 4, 5)) + 1
    exported = agree(
        lambda x: F.log(x) + F.sqrt(x) + F.pow(x, 1.5) + F.log1p(-1 / x), positive, others=[(np.ones((1, 3, 7, 6), np.float32) * 2,)]
    )
    assert exported.open == ALL


def test_the_logarithm_of_nearly_1_is_as_exact_as_ours(tmp_path: Path) -> None:
    x = np.array([0, 1e-30, -1e-30, 1e-12, 3e-8, -3e-8, 1e-7, 2e-4, 0.5, -0.5, 7, 1e30, np.inf, -1], np.float32)
    export_onnx(Of(F.log1p), Tensor(np.ones_like(x)), tmp_path / "a.onnx")
    [theirs] = answers((tmp_path / "a.onnx").read_bytes(), x)
    np.testing.assert_allclose(theirs[:-1], np.log1p(x[:-1].astype(np.float64)), rtol=3e-7)
    assert theirs[-1] == -np.inf


def test_a_sum_over_several_numbers_is_no_mean_though_one_of_them_is_their_count() -> None:
    agree(lambda x: F.sum(x, (2, 3)) / Tensor(np.array([20, 2, 3], np.float32)), images(2, 3, 4, 5), dynamic=())


def test_an_example_is_never_changed(tmp_path: Path) -> None:
    def network(x: Tensor) -> Tensor:
        x += 1
        return x * 2

    example = Tensor(images(2, 3))
    with pytest.raises(RuntimeError, match="make a new tensor: y = x \\+ 1, not x \\+= 1"):
        export_onnx(Of(network), example, tmp_path / "a.onnx")
    np.testing.assert_array_equal(example.numpy(), images(2, 3))


def test_a_factor_keeps_its_digits_where_images_are_float16() -> None:
    agree(lambda x: x * 0.3, images(2, 3, 4, 5, dtype="float16"), tolerance=0)


def test_a_matrix_that_is_computed_is_taken_as_it_is() -> None:
    x, y = images(4, 6), images(6, 3, seed=1)
    agree(lambda x, y: F.matmul(x, F.exp(y)), x, y, dynamic=())
    agree(lambda x, y: F.matmul(x, F.transpose(F.exp(y), 0, 1)), x, images(3, 6, seed=1), dynamic=())


@pytest.mark.parametrize("other", ["running_mean", "running_var"])
def test_statistics_beside_a_shared_weight_are_those_that_are_used(other: str) -> None:
    first, second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    second.weight = first.weight
    getattr(second, other).data = np.array([0.5, 2, 3])
    agree(nn.Sequential(first, nn.ReLU(), second), images(2, 3, 4, 5), others=[(images(1, 3, 7, 6),)])


def test_constants_of_the_same_bytes_stay_apart() -> None:
    graph = Graph()
    names = [graph.array(np.zeros(shape, dtype)) for dtype in (np.int64, np.float64, np.uint64) for shape in ((), (1,), (1, 1))]
    assert len(set(names)) == 9 and graph.array(np.zeros((1,))) == names[4] and graph.bytes == 72


@pytest.mark.parametrize(
    ("options", "padded"),
    [
        ({"kernel_size": (2, 3), "padding": (1, 1)}, False),
        ({"kernel_size": (3, 5), "stride": (2, 4), "padding": (1, 1), "ceil_mode": True}, False),
        ({"kernel_size": (3, 4), "stride": (2, 4), "padding": (1, 1), "ceil_mode": True}, True),
        ({"kernel_size": (2, 3), "stride": (2, 2), "padding": (1, 0), "ceil_mode": True}, True),
        ({"kernel_size": (2, 1), "stride": (1, 3), "ceil_mode": True}, True),
        ({"kernel_size": (2, 3), "stride": (1, 2), "padding": (2, 0), "dilation": (3, 1)}, True),  # as much padding as there are taps
    ],
    ids=str,
)
def test_poolings_are_padded_before_where_a_window_might_begin_behind_the_image(
    options: dict[str, Any], padded: bool, tmp_path: Path
) -> None:
    """Which several versions of onnxruntime count; and where all taps may lie on padding, which they refuse."""
    layer = nn.MaxPool2d(**options)
    agree(layer, images(2, 3, 7, 9), others=[(images(1, 3, 8, 10),), (images(1, 3, 6, 11),)])
    export_onnx(layer, (2, 3, 7, 9), tmp_path / "a.onnx")
    nodes = {node.op_type: node for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert ("Pad" in nodes) == padded
    assert {a.name: a.i for a in nodes["MaxPool"].attribute}.get("ceil_mode", 0) == int(options.get("ceil_mode", False) and not padded)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_an_average_that_counts_padding_has_its_shares_stored_where_windows_hang_over(dtype: str) -> None:
    """Of one size: those windows hold fewer pixels and less padding."""
    layer = nn.AvgPool2d((3, 4), (2, 3), (1, 2), ceil_mode=True, count_include_pad=True)
    exported = agree(layer, images(2, 3, 8, 10, dtype=dtype), others=[(images(3, 3, 8, 10, dtype=dtype),)])
    assert exported.open == ("batch",)


# -- names --------------------------------------------------------------------------------------------------------------------


def test_names_of_several_values_are_numbered(tmp_path: Path) -> None:
    exported = export_onnx(Of(lambda x, y: (x - y * 2, {"sum": x + y}, F.exp(x))), [(2, 3), (2, 3)], tmp_path / "a.onnx")
    assert [name for name, *_ in exported.inputs] == ["input_0", "input_1"]
    assert [name for name, *_ in exported.outputs] == ["output_0", "sum", "output_2"]


def test_a_name_that_a_node_has_is_taken(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    export_onnx(model, (1, 3, 4, 5), tmp_path / "a.onnx")
    inner = onnx.load(tmp_path / "a.onnx").graph.node[0].output[0]
    for names in ({"input_names": [inner]}, {"output_names": [inner]}):
        with pytest.raises(ExportError, match=f"two values would be called '{inner}'; choose other input_names or output_names"):
            export_onnx(model, (1, 3, 4, 5), tmp_path / "a.onnx", **names)


def test_a_shared_weight_has_the_first_of_its_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    model[2].weight = model[0].weight
    export_onnx(model, (2, 5), tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert sorted(value.name for value in graph.initializer) == ["0.bias", "0.weight", "2.bias"]


def test_one_tensor_may_be_two_examples(tmp_path: Path) -> None:
    x = Tensor(images(2, 3))
    exported = export_onnx(Of(lambda a, b: a - b * 2), [x, x], tmp_path / "a.onnx")
    assert [name for name, *_ in exported.inputs] == ["input_0", "input_1"]
    [answer] = answers((tmp_path / "a.onnx").read_bytes(), images(2, 3), images(2, 3, seed=1))
    np.testing.assert_allclose(answer, images(2, 3) - images(2, 3, seed=1) * 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_shape_stands_for_numbers_of_the_models_kind(dtype: str, tmp_path: Path) -> None:
    shape = tuple(np.array([1, 3, 4, 5]))
    exported = export_onnx(nn.Conv2d(3, 2, 1).to(dtype), shape, tmp_path / "a.onnx")
    assert [value[2] for value in (*exported.inputs, *exported.outputs)] == [dtype, dtype]
    assert onnx.load(tmp_path / "a.onnx").graph.doc_string == "Conv2d, exported by minidcnn"
