"""Switching backends and kernels, and the sentences for a GPU that is not there. CuPy is played by small stand-in modules."""

from __future__ import annotations

import importlib.machinery
import inspect
import sys
import types

import numpy as np
import pytest

import minidcnn
from minidcnn import BackendError, Tensor, use_kernels
from minidcnn.backend import Kernels, kernels_of, memory_order, switch, to_backend


def stand_in(monkeypatch: pytest.MonkeyPatch, available) -> None:
    """A module `cupy` that imports, whose cuda.is_available is `available`."""
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.cuda = types.SimpleNamespace(is_available=available)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = switch.importlib.util.find_spec
    monkeypatch.setattr(switch.importlib.util, "find_spec", lambda name: None if name == "cupy" else real(name))


def test_cupy_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cupy(monkeypatch)
    with pytest.raises(BackendError, match=r"CuPy, which is not installed: pip install cupy-cuda12x \(or cupy-cuda13x"):
        minidcnn.use("cupy")
    assert minidcnn.backend() == "numpy"
    assert minidcnn.use("auto") == "numpy"
    with pytest.raises(BackendError, match="not installed"):
        Tensor([1.0]).to("cupy")


def test_cupy_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda: False)
    with pytest.raises(BackendError, match="needs an NVIDIA GPU .* CuPy finds none: check that nvidia-smi"):
        minidcnn.use("cupy")
    assert minidcnn.use("auto") == "numpy"


def test_a_cupy_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    stand_in(monkeypatch, broken)
    with pytest.raises(BackendError, match=r"does not load \(libcudart.so.12.*\); keep exactly one of cupy-cuda12x and cupy-cuda13x"):
        minidcnn.use("cupy")


def test_an_unknown_precision_is_refused_and_numpy_takes_any() -> None:
    with pytest.raises(ValueError, match=r'precision "int8" is unknown; use one of float32, tf32, bf16'):
        minidcnn.use("numpy", "int8")
    assert minidcnn.use("numpy", precision="tf32") == "numpy"
    minidcnn.use("numpy")


def test_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match='backend "tpu" is unknown; use "numpy", "cupy" or "auto"'):
        minidcnn.use("tpu")


def test_use_kernels_switches_and_switches_back() -> None:
    x = np.zeros(3)
    fast = kernels_of(x)
    with use_kernels("reference"):
        assert type(kernels_of(x)) is Kernels
        with use_kernels("fast"):
            assert kernels_of(x) is fast
        assert type(kernels_of(x)) is Kernels
    assert kernels_of(x) is fast
    with pytest.raises(ValueError, match='kernels "slow" are unknown'), use_kernels("slow"):
        pass


def test_every_override_has_the_signature_of_the_reference() -> None:
    from minidcnn.backend.cpu import CpuKernels
    from minidcnn.backend.cuda import CudaKernels

    for kernels in (CpuKernels, CudaKernels):
        for name, method in inspect.getmembers(kernels, inspect.isfunction):
            if name.startswith("_") or not hasattr(Kernels, name):
                continue
            assert inspect.signature(method) == inspect.signature(getattr(Kernels, name)), f"{kernels.__name__}.{name}"


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)])
def test_memory_order_finds_the_permutation_back_to_c_order(axes: tuple[int, ...]) -> None:
    x = np.zeros((2, 3, 4, 5)).transpose(axes)
    order = memory_order(x)
    assert order is not None
    assert x.transpose(order).flags.c_contiguous
    assert memory_order(np.zeros((4, 6))[:, ::2]) is None


def test_to_backend_keeps_an_array_that_is_there_already() -> None:
    x = np.zeros(3)
    assert to_backend(x, "numpy") is x
    with pytest.raises(ValueError, match='backend "gpu"'):
        to_backend(x, "gpu")


def test_map_computes_in_memory_order_where_the_library_would_not() -> None:
    """CuPy's ufuncs lose the channels-last layout; a stand-in array module shows that `map` hands them C-ordered arrays."""
    seen = []

    def function(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append((a.flags.c_contiguous, b.flags.c_contiguous))
        return np.ascontiguousarray(a + b)

    kernels = Kernels(types.ModuleType("not_numpy"))
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).transpose(0, 3, 1, 2)
    y = kernels.map(function, x, x)
    assert seen == [(True, True)]
    assert y.strides == x.strides
    np.testing.assert_array_equal(y, x + x)
