"""The networks on the cupy backend, played by a strict stand-in: the same scores and gradients as on NumPy, all of them on the device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cupy_stand_in import make_module
from simulated import ON_DEVICE

import minidcnn
from minidcnn import Tensor, models, nn
from minidcnn import functional as F
from minidcnn.backend import is_cupy, switch

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: models.UNet(2, 3, base=2, depth=1, dropout=0.5),
    "unet-bilinear": lambda: models.UNet(2, 3, base=2, depth=2, padding="same", norm="batch", upsample="bilinear"),
    "segnet": lambda: models.SegNet(2, 3, width=1, bayesian=True, eps=1e-3),
    "segnet_basic": lambda: models.SegNetBasic(2, 3, width=2, eps=1e-3),
    "fcn8s_at_once": lambda: models.FCN8sAtOnce(3, 2, width=1, pad=1, fc_kernel=1),
    "fcn_alexnet": lambda: models.FCNAlexNet(3, 2, width=6, pad=19, fc_kernel=1),
}


@pytest.fixture(params=["reference", "fast"] if ON_DEVICE else ["reference"])
def cupy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """The stand-in for CuPy with the reference kernels; on a device CuPy itself, with the CUDA kernels too."""
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    with minidcnn.use_kernels(request.param):
        yield
    minidcnn.use("numpy")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_gives_the_same_numbers(name: str, cupy: None, rng: np.random.Generator) -> None:
    images, found = rng.standard_normal((2, 2, 34, 20)), []
    for backend in ("numpy", "cupy"):
        minidcnn.use(backend)
        minidcnn.manual_seed(1)
        network = NETWORKS[name]().double()
        for key, p in network.named_parameters():
            if key.startswith("score"):
                p._array[...] = 0.1
        assert {t.backend for _, _, _, t in network.named_state()} == {backend}
        scores = network(Tensor(images))
        assert scores.backend == backend
        loss = F.cross_entropy(scores, Tensor(np.ones((2, *scores.shape[2:]), np.int64)))
        loss.backward()
        trained = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
        assert all(g is not None and g.backend == backend for g in trained.values())
        found.append({"scores": scores.to("numpy").numpy()} | {key: g.to("numpy").numpy() for key, g in trained.items() if g is not None})
    for key, value in found[0].items():
        np.testing.assert_allclose(value, found[1][key], rtol=1e-9, atol=1e-10, err_msg=key)


def test_what_works_on_whole_networks_stays_on_the_device(cupy: None) -> None:
    network = models.SegNet(2, 3, width=1, bayesian=True)
    mean, variance = network.monte_carlo(Tensor(np.ones((1, 2, 9, 8), np.float32)), samples=2)
    assert mean.backend == variance.backend == "cupy"
    classifier = models.CaffeNet(3, 2, width=6, hidden=8)
    heat = models.convolutionalize(classifier)
    assert all(is_cupy(t._array) for _, _, _, t in heat.named_state())
    assert heat(Tensor(np.ones((1, 2, 227, 227), np.float32))).backend == "cupy"
    fcn = models.FCNAlexNet(3, 2, width=6).load_trunk(models.CaffeNet(3, 2, width=6))
    assert {p.backend for p in fcn.parameters()} == {"cupy"}
    minidcnn.use("numpy")  # a network keeps its backend when the default has changed
    assert {p.backend for p in models.convolutionalize(classifier).parameters()} == {"cupy"}
