"""Weights from elsewhere, to the letter: what a report calls complete, which names are DataParallel's, what is told of odd files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidcnn import models, nn
from minidcnn.interop import Loaded, WeightsError, load_classifier, load_trunk, load_weights, read_weights


@pytest.mark.parametrize("left_over", [{"missing": ("a",)}, {"unexpected": ("a",)}, {"different": (("a", (2, 3), (3, 2)),)}])
def test_whatever_is_left_over_makes_a_report_incomplete(left_over: dict[str, Any]) -> None:
    assert Loaded(("w",)).complete and not Loaded(("w",), **left_over).complete


def test_names_are_data_parallels_only_if_all_of_them_are() -> None:
    layer = nn.Linear(2, 3)
    before = layer.state_dict()
    mixed = {"module.weight": np.ones((3, 2)), "module.bias": np.ones(3), "more": np.ones(3)}
    with pytest.raises(WeightsError, match=r"no tensor has a name and shape.*unknown to the model: module\.weight, module\.bias, more"):
        load_weights(layer, mixed, strict=False)
    assert all(np.array_equal(before[name], array) for name, array in layer.state_dict().items())


def test_too_little_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "w.npz", w=np.zeros(3))

    def exhausted(*args: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "load", exhausted)
    with pytest.raises(MemoryError):
        read_weights(tmp_path / "w.npz")


def test_complex_numbers_are_no_weights(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", v=np.zeros(2), w=np.zeros(3, np.complex64))
    with pytest.raises(WeightsError, match=r"w\.npz holds no weights: w is an array of complex64"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"])
def test_every_kind_of_pickle_is_called_one(ending: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"w\{ending} is a pickle, which can run any code .* convert it once"):
        read_weights(tmp_path / f"w{ending}")


def test_statistics_make_no_batch_norm_in_a_network_that_has_none() -> None:
    state = models.AlexNet(classes=5, in_channels=2, width=2, hidden=7).state_dict()
    odd = {"features.1.running_mean": np.zeros(2), "features.1.running_var": np.ones(2)}
    with pytest.raises(
        WeightsError, match=r"does not fit AlexNet: .*2 unknown to the model: features\.1\.running_mean, features\.1\.running_var"
    ):
        load_classifier(state | odd)


def test_a_fourth_linear_layer_makes_another_network() -> None:
    state = models.VGG11(classes=5, in_channels=2, width=2, hidden=7).state_dict()
    with pytest.raises(WeightsError, match="it has 8 convolutions in features and 4 linear layers in classifier"):
        load_classifier(state | {"classifier.9.weight": np.zeros((4, 5)), "classifier.9.bias": np.zeros(4)})


def test_a_trunk_for_other_images_is_told_by_its_shapes() -> None:
    """As many channels come out of its first layer, and not as many go in."""
    trunk = models.VGG16(classes=5, in_channels=3, width=2, hidden=128).state_dict()
    with pytest.raises(
        WeightsError, match=r"cannot be the trunk of FCN32s: .*features\.0\.weight is \(2, 3, 3, 3\), the model's is \(2, 2, 3, 3\)"
    ):
        load_trunk(models.FCN32s(3, in_channels=2, width=2), trunk)
