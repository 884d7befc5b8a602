"""What the ONNX file of a trained network says about itself, and which networks have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from minidcnn import models
from minidcnn.interop import Checkpoint, CheckpointError, ExportError, export_checkpoint


def stored(images: int = 3, **info: Any) -> Checkpoint:
    """A network for images of so many channels, and what its checkpoint says."""
    model = models.UNet(images, 2, base=1, padding="same", depth=1)
    about = {"classes": ["sky", "Straße"], "mean": [0.5, 0.4, 0.3, 0.2][:images], "std": [0.25] * images}
    return Checkpoint(model.name, model.config, model.state_dict(), about | info)


def told(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_all_that_a_program_needs_to_know_is_in_the_metadata(tmp_path: Path) -> None:
    """And nothing else: neither names of images nor what only training needs."""
    known = {
        "classes": ["sky", "Straße"], "palette": [[0, 0, 0], [9, 8, 7]], "channels": 3, "mean": [0.5, 0.4, 0.3], "std": [0.25] * 3,
        "white": 1023.0, "epoch": 0, "scores": {"miou": 0.5},
    }  # fmt: skip
    checkpoint = stored(**known, held_out=["mine"], mask_values=[0, 1], ignore_index=255, data="folder")
    export_checkpoint(checkpoint, tmp_path / "a.onnx")
    said = told(tmp_path / "a.onnx")
    sentence = said.pop("input")
    assert said.pop("model") == "unet" and json.loads(said.pop("config")) == checkpoint.config
    assert {name: json.loads(text) for name, text in said.items()} == known and "Straße" in said["classes"]
    assert onnx.load(tmp_path / "a.onnx").graph.doc_string == f"unet, trained with minidcnn; {sentence}"


@pytest.mark.parametrize(
    ("channels", "order"), [(1, "gray"), (2, "2 channels"), (3, "red, green and blue"), (4, "red, green, blue and alpha")]
)
def test_how_images_of_any_number_of_channels_are_prepared(channels: int, order: str, tmp_path: Path) -> None:
    export_checkpoint(stored(channels), tmp_path / "a.onnx")
    said = told(tmp_path / "a.onnx")
    assert said["input"] == (
        f"image: (N, {channels}, H, W), {order}, from 0 to 1 (divide 8-bit pixel values by 255, 16-bit ones by 65535); any size; it is "
        f"normalised inside"
    )
    assert set(said) == {"classes", "mean", "std", "model", "config", "input"}  # what is not known is not told


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [[], [0.5]])
def test_a_file_is_not_written_without_the_numbers_that_normalise(name: str, value: list[float], tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"the checkpoint does not say the {name} of the 3 channels that its network was trained with"
    ):
        export_checkpoint(stored(**{name: value}), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_networks_of_odd_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = models.UNet.forward
    with monkeypatch.context() as odd:
        odd.setattr(models.UNet, "forward", lambda self, x: forward(self, x) + np.arange(x.shape[3], dtype=np.float32))
        with pytest.raises(ExportError, match="takes images of one size only; export it with export_onnx"):
            export_checkpoint(stored(), tmp_path / "a.onnx")
    with monkeypatch.context() as odd:
        odd.setattr(models.UNet, "suitable_size", lambda self, size: tuple(1 << (n - 1).bit_length() for n in size))
        with pytest.raises(ExportError, match="the sizes that UNet takes are not evenly spaced; export it with export_onnx"):
            export_checkpoint(stored(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
