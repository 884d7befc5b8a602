"""Every network as ONNX: the same numbers at the size exported and at others, names and metadata, and what cannot be exported."""

from __future__ import annotations

import builtins
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_files import Of, agree, answers

import minidcnn
from minidcnn import Tensor, autograd, models, nn
from minidcnn import functional as F
from minidcnn.interop import Checkpoint, CheckpointError, ExportError, export_checkpoint, export_onnx, model_of
from minidcnn.models import Segmenter
from minidcnn.segmentation.predict import predict_mask, scores

Array = np.ndarray[Any, Any]
ALL = ("batch", "height", "width")


def images(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def lively(model: nn.Module) -> Any:
    """The network with weights and statistics such that nothing of it is 0 or the same everywhere."""
    rng = np.random.default_rng(3)
    for p in model.parameters():
        if p.numpy().std() == 0:  # biases, score layers, batch norm
            p.data = rng.standard_normal(p.shape) * 0.1 + p.numpy()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.data = rng.random(buffer.shape) + 0.5
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], list[tuple[int, int]]]] = {
    "unet": (lambda: models.UNet(1, 2, base=2), (188, 204), [(220, 188)]),
    "unet, shallow": (lambda: models.UNet(2, 3, base=2, depth=1, norm="batch"), (20, 26), [(18, 40)]),
    "unet, same": (lambda: models.UNet(3, 4, base=3, padding="same", norm="batch", dropout=0.3), (32, 48), [(47, 33), (16, 95)]),
    "unet, bilinear": (lambda: models.UNet(3, 2, base=2, padding="same", upsample="bilinear", depth=3), (24, 40), [(31, 9)]),
    "unet, bilinear and valid": (lambda: models.UNet(1, 2, base=2, upsample="bilinear", depth=2), (44, 60), [(52, 48)]),
    "segnet": (lambda: models.SegNet(3, 4, width=2), (37, 50), [(64, 33), (1, 9)]),
    "segnet, bayesian": (lambda: models.SegNet(1, 2, width=2, bayesian=True), (33, 40), [(20, 17)]),
    "segnet_basic": (lambda: models.SegNetBasic(3, 4, width=3), (37, 50), [(16, 21)]),
    "fcn32s": (lambda: models.FCN32s(classes=3, width=1), (37, 50), [(64, 33), (1, 2)]),
    "fcn16s": (lambda: models.FCN16s(classes=3, width=1), (37, 50), [(64, 33), (1, 2)]),
    "fcn8s": (lambda: models.FCN8s(classes=3, width=1), (37, 50), [(64, 33), (1, 2)]),
    "fcn8s, light": (lambda: models.FCN8s(classes=3, width=1, pad=1, fc_kernel=1), (37, 50), [(64, 33), (40, 71)]),
    "fcn8s_at_once": (lambda: models.FCN8sAtOnce(classes=3, width=1, learn_upsampling=True), (37, 50), [(64, 33)]),
    "fcn_alexnet": (lambda: models.FCNAlexNet(classes=3, width=6), (37, 50), [(64, 33)]),
    "alexnet": (lambda: models.AlexNet(classes=3, width=2), (70, 90), [(110, 64)]),
    "caffenet": (lambda: models.CaffeNet(classes=3, width=6, padded=False), (195, 227), [(228, 200)]),
    "vgg11": (lambda: models.VGG11(classes=3, width=1, norm="batch"), (64, 96), [(70, 101)]),
    "vgg13": (lambda: models.VGG13(classes=3, width=1), (64, 96), [(70, 101)]),
    "vgg16": (lambda: models.VGG16(classes=3, width=1), (64, 96), [(70, 101)]),
    "vgg19": (lambda: models.VGG19(classes=3, width=1, norm="batch"), (64, 96), [(70, 101)]),
    "convolutionalized": (lambda: models.convolutionalize(models.AlexNet(classes=3, width=1)), (224, 230), [(240, 224)]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_at_any_size(name: str) -> None:
    """The example is one image; others are two, of other sizes."""
    make, size, sizes = NETWORKS[name]
    minidcnn.manual_seed(1)
    model = lively(make())
    channels = next(iter(model.parameters())).shape[1]
    exported = agree(model, images(1, channels, *size), others=[(images(2, channels, *other, seed=1),) for other in sizes])
    assert exported.open == ALL and exported.inputs[0][1] == ("batch", channels, "height", "width")


def test_all_networks_are_tested() -> None:
    assert {make().name for make, *_ in NETWORKS.values() if isinstance(make(), Segmenter)} == set(models.MODELS)


@settings(max_examples=8)
@given(
    st.sampled_from(["valid", "same"]),
    st.sampled_from([None, "batch"]),
    st.sampled_from(["transpose", "bilinear"]),
    st.integers(1, 3),
    st.data(),
)
def test_unets_of_any_kind_at_any_size(padding: str, norm: str | None, upsample: str, depth: int, data: st.DataObject) -> None:
    model = lively(models.UNet(1, 2, base=2, padding=padding, norm=norm, upsample=upsample, depth=depth))
    fitting = [n for n in range(1, 130) if model.takes(n)]
    (h, w), *sizes = [tuple(data.draw(st.sampled_from(fitting[:12])) for _ in "hw") for _ in range(3)]
    exported = agree(model, images(1, 1, h, w), others=[(images(1, 1, *size),) for size in sizes])
    assert exported.open == ALL


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_dtypes_are_kept(dtype: str) -> None:
    """float16: the images are; weights stay float32 in the file, as in training."""
    minidcnn.manual_seed(1)
    model = lively(models.UNet(1, 2, base=2, padding="same", depth=2, norm="batch"))
    exported = agree(
        model.to("float64" if dtype == "float64" else "float32"),
        images(1, 1, 9, 14, dtype=dtype),
        tolerance=2e-2 if dtype == "float16" else None,
    )
    assert exported.inputs[0][2] == exported.outputs[0][2] == dtype


def nodes_alive() -> int:
    gc.collect()
    return sum(issubclass(type(o), autograd.Node) for o in gc.get_objects())  # isinstance asks each for its __class__, and some warn then


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    """Its modes, what is trained, its numbers, the random numbers, and no node of the trace stays alive."""
    model = models.FCN8s(classes=2, width=1, pad=1, fc_kernel=1, dropout=0.5)
    model.classifier.eval()
    before = model.state_dict(), [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    minidcnn.manual_seed(5)
    draw = F.dropout(Tensor(np.ones(50)), 0.5).numpy()
    minidcnn.manual_seed(5)
    nodes = nodes_alive()
    export_onnx(model, (1, 3, 40, 33), tmp_path / "a.onnx")
    np.testing.assert_array_equal(F.dropout(Tensor(np.ones(50)), 0.5).numpy(), draw)
    assert nodes_alive() == nodes
    assert autograd._listener.told is None
    after = model.state_dict(), [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    assert before[1:] == after[1:] and all(np.array_equal(before[0][key], after[0][key]) for key in after[0])
    assert all(p._storage.needed == 0 for p in model.parameters())


def test_the_file_names_things_as_the_state_dict_does(tmp_path: Path) -> None:
    model = lively(models.UNet(1, 2, base=2, padding="same", depth=1, norm="batch"))
    export_onnx(model, (1, 1, 8, 12), tmp_path / "a.onnx", input_names=["x"], output_names=["y"], metadata={"for": "a test", "epoch": 7})
    file = onnx.load(tmp_path / "a.onnx")
    state, stored = model.state_dict(), {t.name: onnx.numpy_helper.to_array(t) for t in file.graph.initializer}
    for name, array in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(stored[name], array)
    assert [node.op_type for node in file.graph.node][:3] == ["Conv", "BatchNormalization", "Relu"]
    assert [v.name for v in (*file.graph.input, *file.graph.output)] == ["x", "y"]
    assert [(p.key, p.value) for p in file.metadata_props] == [("for", "a test"), ("epoch", "7")]
    assert file.producer_name == "minidcnn" and file.producer_version == minidcnn.__version__
    assert (file.opset_import[0].version, file.ir_version) == (18, 8)
    dims = [d.dim_param or d.dim_value for d in file.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 2, "height", "width"]
    again = (tmp_path / "a.onnx").read_bytes()
    export_onnx(model, (1, 1, 8, 12), tmp_path / "a.onnx", input_names=["x"], output_names=["y"], metadata={"for": "a test", "epoch": 7})
    assert (tmp_path / "a.onnx").read_bytes() == again


def test_names_of_parameters_are_no_names_of_nodes() -> None:
    """Whatever a network calls its parameters: nothing made here is called so."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, name in enumerate(("Relu_1", "constant_0", "constant_1", "constant_2", "constant_4")):
                setattr(self, name, nn.Parameter(np.full((3, 1, 1), i + 2, np.float32)))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x) * self.Relu_1 + (x + 2.5) * self.constant_0 * 3.25 - self.constant_1 * self.constant_4 / self.constant_2

    assert agree(Odd(), images(2, 3, 4, 5)).open == ALL


def test_sizes_can_be_fixed(tmp_path: Path) -> None:
    model = models.UNet(1, 2, base=1, padding="same", depth=1)
    assert export_onnx(model, (1, 1, 8, 12), tmp_path / "a.onnx", dynamic=["batch"]).open == ("batch",)
    exported = export_onnx(model, (1, 1, 8, 12), tmp_path / "a.onnx", dynamic=())
    assert str(exported) == "input (1, 1, 8, 12) float32 -> output (1, 2, 8, 12) float32; all sizes are fixed"
    assert "Shape" not in [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]


def test_sizes_that_cannot_be_followed_stay_fixed() -> None:
    """A middle that rounds, columns that are stored, a layer that takes one width only."""
    assert agree(lambda x: F.center_crop(x, (3, 4)), images(2, 3, 8, 9)).open == ("batch",)
    assert agree(lambda x: x + np.arange(x.shape[3], dtype=np.float32), images(2, 3, 4, 5), others=[(images(1, 3, 7, 5),)]).open == (
        "batch",
        "height",
    )
    assert agree(nn.Linear(5, 2), images(2, 3, 4, 5), others=[(images(1, 3, 7, 5),)]).open == ("batch", "height")
    assert agree(lambda x: x * 2 if x.shape[2] == 4 else F.exp(x), images(2, 3, 4, 5), others=[(images(3, 3, 4, 8),)]).open == (
        "batch",
        "width",
    )


def test_what_is_computed_without_gradients_is_seen() -> None:
    """detach, no_grad and checkpoint inside a network: it is what is computed that counts, and not what can be trained."""
    layer = nn.Conv2d(3, 3, 3, padding=1)

    def network(x: Tensor) -> Tensor:
        with minidcnn.no_grad():
            scale = F.sigmoid(x) * 2
        return F.checkpoint(lambda t: F.relu(layer(t)), x) * scale.detach()

    assert agree(network, images(2, 3, 4, 5), others=[(images(1, 3, 7, 6),)]).open == ALL


@pytest.mark.parametrize(
    "function", [F.relu, lambda x: F.softmax(x, 1), lambda x: F.reshape(F.exp(x), (-1,)), lambda x: F.max_pool2d(x, 2)]
)
def test_changes_in_place_are_not_overlooked(function: Callable[[Tensor], Tensor]) -> None:
    def network(x: Tensor) -> Tensor:
        with minidcnn.no_grad():
            y = function(x)
            z = y * 2
            y += 1
        return F.sum(z) + y

    assert "y += x within no_grad(); leave it out" in refused(network)


def test_frozen_networks_compute_the_same() -> None:
    """What is made of weights alone, and changed in place when nothing is recorded, too."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.convolution.weight * 2
            before = weight - 1
            weight += 0.5
            return F.conv2d(F.conv2d(x, weight), F.transpose(before, 0, 1))

    minidcnn.manual_seed(3)
    model = Scaled()
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        assert agree(model, images(2, 3, 7, 9), others=[(images(1, 3, 12, 8),)]).open == ALL


def test_what_nothing_depends_on_is_left_out() -> None:
    def network(x: Tensor) -> Tensor:
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        F.unfold(x, 2)  # which has no form
        return F.max_unpool2d(F.exp(y), indices, 2, output_size=x.shape)

    assert agree(network, images(2, 3, 4, 5), others=[(images(1, 3, 7, 6),)]).open == ALL


def test_statistics_are_those_that_are_used() -> None:
    """Two batch norms share their weight, and no statistics."""
    first, second = lively(nn.BatchNorm2d(3)), lively(nn.BatchNorm2d(3))
    second.weight, second.running_mean.data = first.weight, np.arange(3)
    exported = agree(nn.Sequential(first, nn.ReLU(), second), images(2, 3, 4, 5), others=[(images(1, 3, 7, 6),)])
    assert exported.open == ALL


def test_another_thread_is_not_listened_to() -> None:
    heard: list[str] = []
    with autograd.listening(lambda function, *_: heard.append(type(function).__name__)), ThreadPoolExecutor(1) as other:
        other.submit(lambda: F.exp(Tensor([1.0]))).result(60)
        F.relu(Tensor([1.0]))
    F.exp(Tensor([1.0]))
    assert heard == ["ReLU"]


def test_numbers_without_axes() -> None:
    assert agree(lambda x: x * 2 + 1, np.ones((), np.float32)).open == ()


# -- trained networks ---------------------------------------------------------------------------------------------------------


def checkpoint(model: Segmenter, **info: Any) -> Checkpoint:
    channels = model.in_channels
    names = [f"class {k}" for k in range(model.classes)]
    about = {
        "classes": names,
        "palette": [[k, 2 * k, 255] for k in range(model.classes)],
        "mean": [0.4, 0.5, 0.3][:channels],
        "std": [0.2, 0.3, 0.1][:channels],
    }
    return Checkpoint(model.name, model.config, model.state_dict(), about | info)


@pytest.mark.parametrize(
    "model",
    [
        lambda: models.UNet(3, 4, base=2, padding="same", norm="batch"),
        lambda: models.UNet(1, 2, base=2, depth=3),
        lambda: models.SegNetBasic(3, 3, width=2),
        lambda: models.FCN16s(classes=3, width=1, pad=1, fc_kernel=1),
    ],
)
def test_a_trained_network_answers_as_predict_does(model: Callable[[], Segmenter], tmp_path: Path) -> None:
    """For images of any size, down to one pixel: padded by mirroring and cropped in the file."""
    minidcnn.manual_seed(2)
    stored = checkpoint(lively(model()))
    files = {}
    for output in ("probabilities", "scores", "classes"):
        exported = export_checkpoint(stored, tmp_path / f"{output}.onnx", output)
        assert exported.open == ALL and exported.outputs[0][0] == output
        files[output] = (tmp_path / f"{output}.onnx").read_bytes()
        onnx.checker.check_model(onnx.load_from_string(files[output]), full_check=True)
    network = model_of(stored)
    for n, *size in ((2, 37, 50), (1, 64, 21), (1, 1, 3), (1, 5, 1)):
        x = np.random.default_rng(n).random((n, network.in_channels, *size)).astype(np.float32)
        prepared = (x - np.float32(stored.info["mean"])[:, None, None]) / np.float32(stored.info["std"])[:, None, None]
        ours = scores(network, prepared)
        [probabilities], [raw], [classes] = (answers(files[output], x) for output in ("probabilities", "scores", "classes"))
        np.testing.assert_allclose(probabilities, ours, rtol=0, atol=1e-5)
        np.testing.assert_allclose(F.softmax(Tensor(raw), 1).numpy(), ours, rtol=0, atol=1e-5)
        clear = np.diff(np.sort(ours, axis=1)[:, -2:], axis=1)[:, 0] > 1e-4
        assert clear.mean() > 0.8
        np.testing.assert_array_equal(classes[clear], np.stack([predict_mask(network, image) for image in prepared])[clear])


def test_metadata_says_what_classes_are_and_how_images_are_prepared(tmp_path: Path) -> None:
    stored = checkpoint(models.UNet(1, 2, base=1, padding="same", depth=1), white=4095.0, held_out=["a name that is nobody's business"])
    export_checkpoint(stored, tmp_path / "a.onnx")
    said = {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert "business" not in str(said)
    assert json.loads(said["classes"]) == ["class 0", "class 1"] and json.loads(said["palette"])[1] == [1, 2, 255]
    assert said["model"] == "unet" and json.loads(said["config"])["padding"] == "same"
    assert said["input"] == "image: (N, 1, H, W), gray, from 0 to 1 (divide pixel values by 4095); any size; it is normalised inside"


# -- what goes wrong ----------------------------------------------------------------------------------------------------------


def refused(function: Any, *shape: int) -> str:
    with pytest.raises(ExportError) as error:
        agree(function, images(*(shape or (2, 3, 4, 5))))
    return str(error.value)


def test_what_has_no_form_is_named() -> None:
    assert refused(lambda x: F.unfold(x, 2)).startswith(
        "export_onnx: the function Im2col (minidcnn.functional.unfold) has no form in ONNX here; "
    )
    assert "indexing with several arrays at once" in refused(lambda x: x[[0, 1], [1, 2]])
    assert "an array as an index has a form in ONNX here only if" in refused(lambda x: x[0, [1, 2]])


def test_what_is_not_recorded_is_noticed() -> None:
    """Comparisons, signs and argmax are no functions with a gradient: their results must not be stored as constants."""
    recorded = "is computed from the input by something that is not recorded, such as a comparison"
    assert recorded in refused(lambda x: F.where(x > 0, x, x * 0.1))
    assert recorded in refused(lambda x: F.sign(x) * x)
    assert recorded in refused(lambda x: x.argmax(1))
    assert "depends on the values of its input" in refused(lambda x: F.exp(x) if float(x.numpy()[0, 0, 0, 0]) < 0.126 else x * 2)
    with pytest.raises(ExportError, match="input 1 does not reach the result, or only by something that is not recorded, such as a cast"):
        agree(lambda x, y: x * 2, images(1, 2), images(1, 3))
    with pytest.raises(ExportError, match=recorded):
        agree(lambda x: x.astype("float32") / 255, np.full((2, 3, 4, 5), 9, np.uint8))
    assert "an argument of Scale is computed from the input" in refused(lambda x: x * float(x.numpy().max()))
    assert "an argument of Index is computed from the input" in refused(lambda x: x[:, :, int(x.numpy().argmax() % 4)])
    assert "the module returned a float" in refused(lambda x: float(x.numpy().sum()))


def test_wrong_arguments(tmp_path: Path) -> None:
    model, path = nn.Conv2d(3, 2, 1), tmp_path / "a.onnx"
    for options, said in (
        ({"dynamic": ["depth"]}, "dynamic may name batch, height, width, got 'depth'"),
        ({"input_names": ["a", "b"]}, r"input_names must be 1 different names, got \['a', 'b'\]"),
        ({"input_names": [""]}, r"input_names must be 1 different names, got \[''\]"),
        ({"input_names": ["x"], "output_names": ["x"]}, "two values would be called 'x'"),
        ({"output_names": ["weight"]}, "two values would be called 'weight'"),
    ):
        with pytest.raises(ValueError, match=said):
            export_onnx(model, (1, 3, 4, 5), path, **options)
    with pytest.raises(TypeError, match="example must be a Tensor, an array, a shape in a tuple, or a list of these, got str"):
        export_onnx(model, "an image", path)
    with pytest.raises(ValueError, match="weight expects 3 input channels, got 4"):
        export_onnx(model, (1, 4, 4, 5), path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing; make it first"):
        export_onnx(model, (1, 3, 4, 5), tmp_path / "missing" / "a.onnx")
    with pytest.raises(ValueError, match="output must be probabilities, scores, classes, got 'mask'"):
        export_checkpoint(checkpoint(models.UNet(1, 2, base=1, depth=1)), path, "mask")
    with pytest.raises(CheckpointError, match="the checkpoint does not say the mean of the 1 channels"):
        export_checkpoint(checkpoint(models.UNet(1, 2, base=1, depth=1), mean=[]), path)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_what_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minidcnn.interop.onnx.graph.LARGEST", 100)
    with pytest.raises(ExportError, match="the weights take 0.0 GiB, and an ONNX file holds at most 2 GiB"):
        export_onnx(nn.Linear(9, 9), (1, 9), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def missing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name == "onnx" and not level:
            raise ModuleNotFoundError("No module named 'onnx'")
        return plain(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        ImportError, match=r'needs the package onnx \(No module named .onnx.\); install it with: pip install "minidcnn\[onnx\]"'
    ):
        export_onnx(Of(lambda x: x * 2), (1, 2), tmp_path / "a.onnx")


def test_onnx_is_imported_when_a_file_is_written() -> None:
    code = "import sys, minidcnn.interop as i; i.export_onnx, i.export_checkpoint; import minidcnn.cli.export; print('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout == "False\n"
