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
from minidcnn.backend import Kernels, kernels_of, memory_order, switch, to_backend, usable


def stand_in(
    monkeypatch: pytest.MonkeyPatch,
    available=lambda: True,
    driver: int = 13000,
    built: int = 12090,
    capability: tuple[int, int] = (9, 0),
    nvrtc=lambda: (12, 9),
    packages: tuple[str, ...] = ("cupy-cuda12x",),
) -> None:
    """A module `cupy` that imports, whose cuda.is_available is `available`; versions as CUDA numbers them."""
    properties = {"name": b"NVIDIA Test", "major": capability[0], "minor": capability[1]}
    runtime = types.SimpleNamespace(
        driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built, getDevice=lambda: 0, getDeviceProperties=lambda device: properties
    )
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.cuda = types.SimpleNamespace(is_available=available, runtime=runtime, nvrtc=types.SimpleNamespace(getVersion=nvrtc))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(switch, "_made", {})

    def distribution(name: str) -> str:
        if name not in packages:
            raise usable.importlib.metadata.PackageNotFoundError(name)
        return name

    monkeypatch.setattr(usable.importlib.metadata, "distribution", distribution)


@pytest.fixture(autouse=True)
def _back_on_numpy():
    yield
    minidcnn.use("numpy")


def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = usable.importlib.util.find_spec
    monkeypatch.setattr(usable, "_found", None)
    monkeypatch.setattr(usable.importlib.util, "find_spec", lambda name: None if name == "cupy" else real(name))


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


def raising(error: Exception):
    def call() -> None:
        raise error

    return call


# What CuPy 13 does where the driver is older than its own CUDA version, or is not there at all; CuPy 14 returns False.
INSUFFICIENT = raising(RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"))
MESSAGES = {
    "two wheels": (
        {"packages": ("cupy-cuda12x", "cupy-cuda13x")},
        "2 packages of CuPy are installed (cupy-cuda12x, cupy-cuda13x) and overwrite each other's files: pip uninstall cupy-cuda12x cupy-cuda13x",
    ),
    "a wheel for a newer CUDA than the driver's": (
        {"built": 13020, "driver": 12040, "available": INSUFFICIENT},
        "CuPy is built for CUDA 13, but the driver knows CUDA 12.4 at most: install cupy-cuda12x instead, or update the driver",
    ),
    "a driver that is too old for any": (
        {"built": 12090, "driver": 11080, "available": INSUFFICIENT},
        "CuPy is built for CUDA 12, but the driver knows CUDA 11.8 at most: update the driver",
    ),
    "an older CUDA whose compiler is missing": (
        {"nvrtc": raising(RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file\nmore"))},
        "CuPy does not find the compiler of its own CUDA version, NVRTC (CuPy failed to load libnvrtc.so.12: OSError: no such file): pip install",
    ),
    "no driver": ({"driver": 0, "available": INSUFFICIENT}, "needs an NVIDIA GPU with a driver for CUDA 12 or newer, and CuPy finds none"),
    "no GPU": ({"available": lambda: False}, "needs an NVIDIA GPU with a driver for CUDA 12 or newer, and CuPy finds none"),
    "an old GPU": (
        {"capability": (7, 0)},
        "needs a GPU of compute capability 7.5 or higher, and NVIDIA Test has 7.0: use another GPU (CUDA_VISIBLE_DEVICES)",
    ),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_why_the_gpu_cannot_be_used_is_one_sentence(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, sentence = MESSAGES[what]
    stand_in(monkeypatch, **settings)
    with pytest.raises(BackendError) as caught:
        minidcnn.use("cupy")
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(', or use backend "numpy"') and "\n" not in str(caught.value)
    assert minidcnn.backend() == "numpy" and minidcnn.use("auto") == "numpy"


@pytest.mark.parametrize("settings", [{}, {"driver": 12020}, {"built": 13000}, {"capability": (12, 0)}, {"packages": ()}])
def test_what_can_be_used_is_used(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver older within the same major version is fine, and so is a package whose name is not known (conda's)."""
    stand_in(monkeypatch, **settings)
    assert minidcnn.use("auto", "bf16") == "cupy"


def test_what_was_found_out_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    stand_in(monkeypatch, lambda: bool(asked.append(1)) or True)
    for _ in range(3):
        assert usable.why_no_cupy() == ""
    assert len(asked) == 1
    stand_in(monkeypatch, lambda: False)  # another module is another question
    assert "CuPy finds none" in usable.why_no_cupy()


def test_a_gpu_without_the_tensor_cores_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does "auto" leave such a GPU unused without a word."""
    stand_in(monkeypatch, capability=(7, 5))
    sentence = 'needs tensor cores of compute capability 8.0 or higher, and NVIDIA Test has 7.5; use precision "float32", or backend'
    for name, precision in (("cupy", "tf32"), ("auto", "tf32"), ("cupy", "tf32x3")):
        with pytest.raises(BackendError, match=f'precision "{precision}" {sentence}'):
            minidcnn.use(name, precision)
        assert minidcnn.backend() == "numpy"
    for precision in ("float32", "float16"):  # which needs none
        assert minidcnn.use("cupy", precision) == minidcnn.use("auto", precision) == "cupy"
    minidcnn.use("numpy")


def test_an_unknown_precision_is_refused_and_numpy_takes_any() -> None:
    with pytest.raises(ValueError, match=r'precision "int8" is unknown; use one of float32, tf32x3, tf32, bf16, float16'):
        minidcnn.use("numpy", "int8")
    assert minidcnn.use("numpy", precision="tf32x3") == minidcnn.use("numpy", precision="tf32") == "numpy"
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
