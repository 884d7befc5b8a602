"""Weights from elsewhere: by name, reported, never unpickled; classifiers read off their tensors; trunks for FCN and SegNet."""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minidcnn
from minidcnn import models, nn
from minidcnn.data import Cells
from minidcnn.interop import (
    Checkpoint,
    WeightsError,
    load_classifier,
    load_trunk,
    load_weights,
    read_weights,
    save_checkpoint,
    save_weights,
    weights,
)


def small(kind: str = "VGG11", **options: Any) -> models.Classifier:
    """A classifier of few channels with random weights everywhere, batch norm's statistics too."""
    model = getattr(models, kind)(**{"classes": 5, "in_channels": 2, "hidden": 7, "width": 6 if kind == "CaffeNet" else 2} | options)
    rng = np.random.default_rng(5)
    model.load_state_dict({k: rng.random(v.shape) if v.dtype.kind == "f" else v for k, v in model.state_dict().items()})
    return model


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# -- files -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_what_is_saved_is_read_and_loaded(name: str, tmp_path: Path) -> None:
    model, other = small("VGG11", norm="batch"), models.VGG11(5, 2, 2, "batch", hidden=7)
    save_weights(tmp_path / name, model)
    save_weights(tmp_path / name, model)  # over the old one
    assert [p.name for p in tmp_path.iterdir()] == [name]
    same(read_weights(tmp_path / name), model.state_dict())
    report = load_weights(other, tmp_path / name)
    same(other.state_dict(), model.state_dict())
    assert report.complete and str(report) == f"{len(model.state_dict())} tensors loaded"
    assert model.state_dict()["features.1.num_batches_tracked"].shape == ()  # also what has no axes


def test_pytorch_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (3, 2)), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 5, 4)
    ).eval()
    ours = nn.Sequential(nn.Conv2d(2, 3, (3, 2)), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 5, 4)).eval()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    assert load_weights(ours, tmp_path / "theirs.safetensors").complete
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(ours(minidcnn.Tensor(x)).numpy(), theirs(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)
    save_weights(tmp_path / "ours.safetensors", ours)
    theirs.load_state_dict(load_file(tmp_path / "ours.safetensors"))  # strict: the same names and shapes


def test_the_documented_conversion_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet in the module's docstring, run as it stands, and the command in the error message."""
    torch = pytest.importorskip("torch")
    model = small("VGG16")
    monkeypatch.chdir(tmp_path)
    torch.save({k: torch.from_numpy(v) for k, v in model.state_dict().items()}, "vgg16.pth")
    with pytest.raises(WeightsError, match="is a pickle") as caught:
        read_weights("vgg16.pth")
    snippet = "\n".join(line.strip() for line in re.findall(r"^    (?:import|state|safetensors).*$", weights.__doc__ or "", re.M))
    assert snippet.count("\n") == 2
    command = re.search(r"safetensors\.torch\.save_file\(.*\)", str(caught.value))
    for code in (snippet, f"import torch, safetensors.torch\n{command and command[0]}"):
        exec(code, {})
        same(read_weights("vgg16.safetensors"), model.state_dict())
        Path("vgg16.safetensors").unlink()


def test_names_of_data_parallel_and_of_checkpoints(tmp_path: Path) -> None:
    model = small()
    parallel = {f"module.{k}": v for k, v in model.state_dict().items()}
    np.savez(tmp_path / "parallel.npz", **parallel)
    same(read_weights(tmp_path / "parallel.npz"), parallel)
    for source in (tmp_path / "parallel.npz", parallel):
        other = models.VGG11(5, 2, 2, hidden=7)
        assert load_weights(other, source).complete
        same(other.state_dict(), model.state_dict())
        same(load_classifier(source).state_dict(), model.state_dict())
    fcn, vgg = (maker(classes=3, in_channels=2, width=1) for maker in (models.FCN32s, models.VGG16))
    load_trunk(fcn, {f"module.{k}": v for k, v in vgg.state_dict().items()})
    np.testing.assert_array_equal(fcn.features[2].weight.numpy(), vgg.features[2].weight.numpy())
    unet = models.UNet(1, 2, base=1, depth=1)
    save_checkpoint(
        tmp_path / "last.safetensors", Checkpoint("unet", unet.config, unet.state_dict(), training_tensors={"step": np.zeros(3)})
    )
    same(read_weights(tmp_path / "last.safetensors"), unet.state_dict())


class Wrapper(nn.Module):
    """A network whose only child is called as DataParallel calls its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_a_child_may_be_called_module(name: str, tmp_path: Path) -> None:
    network, other = Wrapper(), Wrapper()
    save_weights(tmp_path / name, network)
    for source in (tmp_path / name, network.state_dict(), {f"module.{k}": v for k, v in network.state_dict().items()}):
        nn.init.zeros_(other.module.weight)
        assert load_weights(other, source).loaded == ("module.weight", "module.bias")
        same(other.state_dict(), network.state_dict())
    inner = nn.Linear(2, 3)
    assert load_weights(inner, tmp_path / name).complete  # and so its weights fit what it wraps
    same(inner.state_dict(), network.module.state_dict())


def test_classifiers_of_other_networks_are_told(tmp_path: Path) -> None:
    convolutions = {f"features.{i}.weight": np.zeros((8, 3, 3, 3)) for i in (0, 3, 6, 8, 10)}
    linears = {f"classifier.{i}.weight": np.zeros((8, 8)) for i in (0, 3, 6)}
    caffenet = {f"features.{i}.weight": np.zeros((8, 3, 3, 3)) for i in (0, 4, 8, 10, 12)}
    none = r" is of none of AlexNet, CaffeNet and VGG: it has \d+ convolutions in features and {} linear layers in classifier; load_weights"
    odd: list[tuple[dict[str, np.ndarray], str]] = [
        ({"features.conv0.weight": np.zeros((64, 3, 7, 7)), "classifier.weight": np.zeros((10, 64))}, none.format(0)),
        ({**convolutions, "classifier.head.weight": np.zeros((10, 64))}, none.format(0)),
        ({**convolutions, **linears, "features.0.weight": np.zeros(8), "features.12.weight": np.zeros((8, 3, 3, 3))}, none.format(3)),
        (
            {**caffenet, **linears},
            " is of none of AlexNet, CaffeNet and VGG, though named as one: CaffeNet: width must be a multiple of 6 .*, got 8",
        ),
        ({**convolutions, **linears, "classifier.0.weight": np.zeros((0, 8))}, " though named as one: "),
    ]
    for tensors, message in odd:
        save_file(tensors, tmp_path / "w.safetensors")
        for source, where in ((tensors, "the mapping"), (tmp_path / "w.safetensors", re.escape(str(tmp_path / "w.safetensors")))):
            with pytest.raises(WeightsError, match=f"^{where}.*{message}"):
                load_classifier(source)


@pytest.mark.parametrize("kind", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_every_kind_of_real_number_is_read(kind: str, tmp_path: Path) -> None:
    array = np.array([[1, 0, 1]], kind)
    save_file({"weight": array}, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")["weight"]
    assert found.dtype == array.dtype and found.tolist() == array.tolist()
    layer = nn.Linear(3, 1, bias=False)
    load_weights(layer, tmp_path / "w.safetensors")
    assert layer.weight.numpy().tolist() == [[1.0, 0.0, 1.0]]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("this is text, not tensors" * 9)
    (tmp_path / "text.npz").write_text("this is text, not arrays")
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], object))
    np.savez(tmp_path / "words.npz", w=np.zeros(2), x=np.array(["a", "bc"]))
    save_weights(tmp_path / "cut.safetensors", small())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-9])
    (tmp_path / "folder.npz").mkdir()
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "half.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    save_file({"w": np.ones(2, np.complex64)}, tmp_path / "complex.safetensors")
    cases = {
        "text.safetensors": "is no safetensors file, or was damaged or cut short",
        "cut.safetensors": "is no safetensors file, or was damaged or cut short",
        "text.npz": "cannot be read as a .npz file of arrays",
        "objects.npz": "cannot be read as a .npz file of arrays .*allow_pickle",
        "words.npz": "holds no weights: x is an array of <U2",
        "folder.npz": "is a folder, not a file of weights",
        "none.npz": "does not exist",
        "w.h5": "must end in .safetensors or .npz",
        "w.ckpt": r'is a pickle.*convert it once.*torch.load\("w.ckpt".*"w.safetensors"\)',
        "half.safetensors": "holds BF16 numbers, which are not read here; convert them to float32",
        "complex.safetensors": "holds C64 numbers, which are not read here",
    }
    for name, message in cases.items():
        with pytest.raises(WeightsError, match=message):
            read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match=r"w\.pt must end in \.safetensors or \.npz"):
        save_weights(tmp_path / "w.pt", small())


# -- loading by name -------------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_reported_and_changes_nothing() -> None:
    model = models.VGG11(classes=4, in_channels=2, width=2, hidden=7)
    before = model.state_dict()
    state = small().state_dict()
    del state["features.0.bias"]
    state["extra.weight"] = np.zeros(3)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, state)
    said = str(caught.value)
    for part in (
        "the mapping does not fit VGG11: ",
        "1 missing in the file: features.0.bias",
        "1 unknown to the model: extra.weight",
        "2 of another shape: classifier.6.weight is (5, 7) in the file and (4, 7) in the model",
        "load_weights with strict=False loads what fits",
    ):
        assert part in said
    same(model.state_dict(), before)

    report = load_weights(model, state, strict=False)
    assert report.missing == ("features.0.bias",) and report.unexpected == ("extra.weight",) and not report.complete
    assert [name for name, *_ in report.different] == ["classifier.6.weight", "classifier.6.bias"]
    assert report.different[1] == ("classifier.6.bias", (5,), (4,))
    after = model.state_dict()
    for name in after:
        expected = state[name] if name in report.loaded else before[name]
        np.testing.assert_array_equal(after[name], expected.astype(np.float32), err_msg=name)
    assert len(report.loaded) == len(after) - 3


def test_nothing_fitting_is_an_error_even_when_not_strict() -> None:
    with pytest.raises(WeightsError, match="no tensor has a name and shape of the model's"):
        load_weights(small(), {"backbone.0.weight": np.zeros((3, 3))}, strict=False)


def test_older_files_without_batch_counts_and_other_dtypes() -> None:
    state = small("VGG11", norm="batch").state_dict()
    older = {name: array.astype(np.float64) for name, array in state.items() if "num_batches" not in name}
    model = models.VGG11(5, 2, 2, "batch", hidden=7)
    assert load_weights(model, older).complete
    assert model.features[0].weight.dtype == np.float32
    np.testing.assert_array_equal(model.state_dict()["features.1.running_var"], state["features.1.running_var"])


# -- classifiers and trunks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [("AlexNet", {}), ("CaffeNet", {}), *((f"VGG{n}", {"norm": norm}) for n in (11, 13, 16, 19) for norm in (None, "batch"))],
)
def test_the_classifier_is_read_off_its_weights(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = small(kind, **options)
    save_weights(tmp_path / "w.npz", model)
    found = load_classifier(tmp_path / "w.npz")
    assert type(found) is type(model) and not found.training and found.classes == 5 and found.in_channels == 2
    same(found.state_dict(), model.state_dict())


def test_torchvisions_names() -> None:
    """The names and shapes of torchvision 0.2x's alexnet and vgg16_bn, as its state dicts have them."""
    alexnet = {
        f"features.{i}": s
        for i, s in zip(
            (0, 3, 6, 8, 10), ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)), strict=True
        )
    }
    alexnet |= {"classifier.1": (4096, 9216), "classifier.4": (4096, 4096), "classifier.6": (1000, 4096)}
    with nn.init.skipped():
        ours = {n: p.shape for n, p in models.AlexNet().named_parameters()}
        bn = {n: p.shape for n, p in models.VGG16(norm="batch").named_parameters()}
    assert ours == {f"{n}.{kind}": s if kind == "weight" else s[:1] for n, s in alexnet.items() for kind in ("weight", "bias")}
    convs = dict(zip((0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40), (64, 64, 128, 128, *[256] * 3, *[512] * 6), strict=True))
    assert {n: s[0] for n, s in bn.items() if len(s) == 4} == {f"features.{i}.weight": c for i, c in convs.items()}
    assert {n for n, s in bn.items() if len(s) == 2} == {f"classifier.{i}.weight" for i in (0, 3, 6)}
    assert all(f"features.{i + 1}.weight" in bn for i in convs)


def test_fcn_starts_from_vgg16(tmp_path: Path) -> None:
    vgg = small("VGG16", hidden=128)
    save_weights(tmp_path / "vgg16.safetensors", vgg)
    fcn = models.FCN16s(3, in_channels=2, width=2)
    scores = fcn.state_dict()["score_pool4.weight"]
    assert load_trunk(fcn, tmp_path / "vgg16.safetensors") is fcn
    theirs, ours = vgg.state_dict(), fcn.state_dict()
    for name in theirs:
        if not name.startswith("classifier.6"):
            np.testing.assert_array_equal(ours[name].reshape(theirs[name].shape), theirs[name], err_msg=name)
    np.testing.assert_array_equal(ours["score_pool4.weight"], scores)


@pytest.mark.parametrize("norm", [None, "batch"])
def test_segnet_starts_from_vgg16(norm: str | None) -> None:
    vgg, segnet = small("VGG16", norm=norm), models.SegNet(2, 3, width=2)
    load_trunk(segnet, vgg.state_dict())
    np.testing.assert_array_equal(segnet.features[0].weight.numpy(), vgg.features[0].weight.numpy())
    last = [[layer for layer in net.features if isinstance(layer, nn.Conv2d)][-1] for net in (segnet, vgg)]
    np.testing.assert_array_equal(last[0].weight.numpy(), last[1].weight.numpy())


def test_trunks_that_do_not_fit(tmp_path: Path) -> None:
    fcn = models.FCN32s(3, in_channels=2, width=2)
    before = fcn.state_dict()
    save_weights(tmp_path / "vgg11.npz", small("VGG11", hidden=128))
    with pytest.raises(WeightsError, match=r"vgg11\.npz cannot be the trunk of FCN32s: .*; it holds weights of VGG11 with width=2$"):
        load_trunk(fcn, tmp_path / "vgg11.npz")
    with pytest.raises(WeightsError, match=r"the mapping cannot be the trunk of FCN32s: .*\(4, 2, 3, 3\)"):
        load_trunk(fcn, small("VGG16", width=4).state_dict())
    with pytest.raises(WeightsError, match="UNet has no trunk"):
        load_trunk(models.UNet(1, 2, base=1, depth=1), small().state_dict())
    with pytest.raises(WeightsError, match="the mapping is of none of AlexNet, CaffeNet and VGG: it has 0 convolutions in features"):
        load_trunk(fcn, {"layer1.0.conv1.weight": np.zeros((4, 4, 3, 3))})
    broken = small("VGG16").state_dict()
    broken["features.0.bias"] = np.zeros(9)
    with pytest.raises(WeightsError, match=r"does not fit VGG16: .*features\.0\.bias is \(9,\) in the file and \(2,\) in the model"):
        load_classifier(broken)
    same(fcn.state_dict(), before)


@pytest.mark.parametrize("example", ["fcn", "segnet"])
def test_training_starts_from_a_trunk(example: str, tmp_path: Path) -> None:
    """`--trunk FILE` of the examples, and what it says if the weights are of another width."""
    script = Path(__file__).resolve().parent.parent / "examples" / f"train_{example}.py"
    save_weights(tmp_path / "vgg16.npz", small("VGG16", hidden=128, in_channels=1))
    own = ["--paper"] if example == "fcn" else []
    words = [sys.executable, str(script), "--epochs", "1", "--limit", "1", "--batch-size", "2", "--out", str(tmp_path / "run"), *own]
    wrong = subprocess.run([*words, "--base", "3", "--trunk", str(tmp_path / "vgg16.npz")], capture_output=True, text=True, check=False)
    assert (
        wrong.returncode == 2
        and wrong.stderr.startswith("error: ")
        and "cannot be the trunk of" in wrong.stderr
        and wrong.stderr.count("\n") == 1
    )
    assert not (tmp_path / "run").exists()

    module = runpy.run_path(str(script))
    parser = argparse.ArgumentParser()
    module["add_options"](parser)
    options = vars(parser.parse_args([*own, "--base", "2", "--trunk", str(tmp_path / "vgg16.npz")]))
    model = module["build"](Cells(count=2), options)
    np.testing.assert_array_equal(model.features[0].weight.numpy(), small("VGG16", hidden=128, in_channels=1).features[0].weight.numpy())
