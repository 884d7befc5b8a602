"""Optimizers, clipping and modules on CuPy, played by a strict stand-in: the same numbers as on NumPy, and state that follows a model which moves."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from cupy_stand_in import make_module
from simulated import ON_DEVICE

import minidcnn
from minidcnn import Tensor, nn, optim
from minidcnn.backend import is_cupy, switch

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1),
}


@pytest.fixture(autouse=True)
def _cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    with minidcnn.use_kernels("reference"):  # the same bits; tests/test_cuda_training.py compares the CUDA kernels
        yield
    minidcnn.use("numpy")


def steps(model: nn.Module, optimizer: optim.Optimizer, seeds: range) -> list[float]:
    norms = []
    for seed in seeds:
        x = Tensor(np.random.default_rng(seed).standard_normal((2, 3, 5, 4)).astype(np.float32)).to(next(model.parameters()).backend)
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        assert optim.grads_finite(model.parameters())
        norms.append(optim.clip_grad_norm_(model.parameters(), 0.1))
        optim.clip_grad_value_(model.parameters(), 0.05)
        optimizer.step()
    return norms


def net() -> nn.Module:
    minidcnn.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, (3, 2)), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, (2, 3)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_there_and_on_the_way_there(name: str) -> None:
    results = []
    for start, middle in (("numpy", "numpy"), ("cupy", "cupy"), ("numpy", "cupy"), ("cupy", "numpy")):
        minidcnn.use(start)
        model = net()
        assert all(p.backend == start for p in model.parameters())
        optimizer = OPTIMIZERS[name](model.parameters())
        norms = steps(model, optimizer, range(2))
        minidcnn.use(middle)
        model.to(middle)
        norms += steps(model, optimizer, range(2, 4))
        assert all(p.backend == middle for p in model.parameters())
        state = optimizer.state_dict()["state"]
        assert all(type(v) is np.ndarray for s in state.values() for v in s.values() if hasattr(v, "dtype"))
        assert all(is_cupy(v) == (middle == "cupy") for s in optimizer.state.values() for v in s.values() if hasattr(v, "dtype"))
        results.append([*norms, *model.state_dict().values(), *(v for s in state.values() for v in s.values())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)  # the CPU's convolutions sum in another order


def test_state_dicts_cross_backends() -> None:
    minidcnn.use("cupy")
    there = net()
    optimizer = OPTIMIZERS["adam"](there.parameters())
    steps(there, optimizer, range(2))
    saved = there.state_dict(), optimizer.state_dict()
    minidcnn.use("numpy")
    here = net()
    own = OPTIMIZERS["adam"](here.parameters())
    here.load_state_dict(saved[0])
    own.load_state_dict(saved[1])
    minidcnn.use("cupy")
    back = net()
    back.load_state_dict(here.state_dict())
    for a, b, c in zip(saved[0].values(), here.state_dict().values(), back.state_dict().values(), strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    for i, values in own.state_dict()["state"].items():
        assert all(np.array_equal(values[k], saved[1]["state"][i][k]) for k in values)


def test_summary_and_init_work_there() -> None:
    minidcnn.use("numpy")
    here, expected = net(), nn.summary(net(), (2, 3, 7, 6))
    minidcnn.use("cupy")
    there = net()
    assert nn.summary(there, (2, 3, 7, 6)) == expected
    for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)
    nn.init.bilinear_(nn.ConvTranspose2d(3, 3, 4).weight)
