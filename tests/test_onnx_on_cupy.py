"""Networks whose weights are on the GPU, played by a strict stand-in, give the same files as those on NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cupy_stand_in import make_module
from simulated import ON_DEVICE

import minidcnn
from minidcnn import Tensor, models, nn
from minidcnn.backend import switch
from minidcnn.interop import export_onnx

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: models.UNet(2, 3, base=2, depth=2, padding="same", norm="batch", upsample="bilinear"),
    "segnet_basic": lambda: models.SegNetBasic(2, 3, width=2, eps=1e-3),
    "fcn8s_at_once": lambda: models.FCN8sAtOnce(3, 2, width=1, pad=1, fc_kernel=1),
    "pooling": lambda: nn.Sequential(
        nn.AvgPool2d((2, 3), padding=1, count_include_pad=False, ceil_mode=True), nn.AdaptiveAvgPool2d((2, 3))
    ),
}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for CuPy; on a device CuPy itself."""
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    yield
    minidcnn.use("numpy")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_the_same(name: str, cupy: None, tmp_path: Path) -> None:
    files = []
    for backend in ("numpy", "cupy"):
        minidcnn.use(backend)
        minidcnn.manual_seed(1)
        network = NETWORKS[name]()
        weights = np.random.default_rng(2)
        network.load_state_dict({name: weights.random(array.shape) for name, array in network.state_dict().items()})
        with minidcnn.use_kernels("fast" if ON_DEVICE else "reference"):
            example = Tensor(np.random.default_rng(0).standard_normal((1, 2, 21, 26)).astype(np.float32))
            exported = export_onnx(network, example, tmp_path / f"{backend}.onnx")
        assert exported.open == ("batch", "height", "width")
        files.append((tmp_path / f"{backend}.onnx").read_bytes())
    assert files[0] == files[1]
