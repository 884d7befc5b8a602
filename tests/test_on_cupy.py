"""The engine on the cupy backend, played by a strict stand-in: what NumPy would forgive and CuPy would not is an error here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cudasim.build import why_not as why_no_simulator
from cupy_stand_in import make_module
from simulated import ON_DEVICE, OnDevice

import minidcnn
from minidcnn import Tensor
from minidcnn import functional as F
from minidcnn.backend import Kernels, is_cupy, kernels, switch, to_backend
from minidcnn.backend.rules import SgdRule
from minidcnn.window import Window


@pytest.fixture(params=["reference", "fast"])
def cupy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """The stand-in for CuPy, with the reference kernels and with the CUDA kernels on the simulator; on a device CuPy itself."""
    if not ON_DEVICE:
        if request.param == "fast" and why_no_simulator():
            pytest.skip(why_no_simulator())
        monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    with minidcnn.use_kernels(request.param):
        yield
    minidcnn.use("numpy")


def both(f: Callable[..., Tensor], *arrays: np.ndarray) -> None:
    """f and its gradients are the same numbers on both backends, and stay on the backend they started on."""
    results = []
    for backend in ("numpy", "cupy"):
        minidcnn.use(backend)
        inputs = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        assert all(t.backend == backend for t in inputs)
        y = f(*inputs)
        assert y.backend == backend
        wanted = [t for t in inputs if t.requires_grad]
        first = minidcnn.grad(y.sum(), wanted, create_graph=True)
        total = sum((g * g).sum() for g in first)
        second = minidcnn.grad(total, wanted, allow_unused=True) if total.requires_grad else ()
        results.append([t.to("numpy").numpy() for t in (y, *first, *second)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)  # other kernels add up in another order, and numbers near 10^4 cancel


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape) / np.prod(shape) + 0.25


def data_like(*shape: int) -> Tensor:
    return Tensor(data(*shape))


def running() -> tuple[Tensor, Tensor]:
    return data_like(3), data_like(3)


def classes() -> Tensor:
    """Three classes, and 9 for pixels that are ignored."""
    return Tensor(np.resize([0, 1, 2, 2, 9, 0, 1], (2, 4, 5)))


def seeded(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    minidcnn.manual_seed(5)
    return f


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], tuple[np.ndarray, ...]]] = {
    "arithmetic": (lambda x, y: (x * y + 2.0) / (1.5 + x) - x**2 + y**x, (data(2, 3, 4, 5), data(3, 1, 1))),
    "elementwise": (lambda x: F.exp(x) + F.log(x) + F.sqrt(x) + F.abs(-x) + F.clamp(x, 0.3, 0.9) + F.maximum(x, 0.5), (data(2, 3, 4),)),
    "where": (lambda x: F.where(x > 0.5, x * x, 0.0), (data(2, 3, 4),)),
    "reductions": (lambda x: F.mean(x, 1) * F.amax(x, (0, 2)).sum() + F.var(x) + F.logsumexp(x, 1), (data(3, 4, 1),)),
    "shapes": (lambda x: F.cat([F.flip(x, 1), x.permute(0, 2, 1).reshape(2, 3, 4)[:, ::-1]], 2) ** 2, (data(2, 3, 4),)),
    "indexing": (lambda x: x[Tensor(np.array([0, 1, 1]))] ** 2, (data(2, 3),)),
    "matmul": (lambda a, b: (a @ b) ** 2, (data(2, 3, 4), data(4, 5))),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2), (data(2, 4, 7, 6), data(6, 2, 3, 2), data(6))),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1), (data(2, 4, 3, 5), data(4, 3, 3, 2))),
    "unfold_fold": (lambda x: F.fold(F.unfold(x * x, 3, padding=1), (5, 4), 3, padding=1), (data(2, 2, 5, 4),)),
    "max_pool2d": (lambda x: F.max_pool2d(x * x, (3, 2), 2, 1, ceil_mode=True), (data(2, 3, 7, 6),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x * x, (3, 2), 2, 1, count_include_pad=False), (data(2, 3, 7, 6),)),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x * x, 2, return_indices=True), 2, output_size=(7, 6)), (data(2, 3, 7, 6),)),
    "activations": (lambda x: F.relu(x - 0.5) + F.leaky_relu(x - 0.5) * F.sigmoid(x) + F.tanh(x), (data(2, 3, 4, 5),)),
    "softmax": (lambda x: F.softmax(x, 1) + F.log_softmax(x * x, 2), (data(2, 3, 4, 5),)),
    "dropout": (lambda x: seeded(F.dropout)(x * x, 0.4) + seeded(F.dropout2d)(x, 0.4), (data(2, 3, 4, 5),)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, *running(), w, b, True) ** 2, (data(2, 3, 4, 5), data(3), data(3))),
    "batch_norm_eval": (lambda x, w, b: F.batch_norm(x, *running(), w, b) ** 2, (data(2, 3, 4, 5), data(3), data(3))),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2, 0.5), (data(2, 3, 4, 5),)),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, classes(), data_like(3), 9, "mean", 0.1, data_like(2, 4, 5)),
        (data(2, 3, 4, 5),),
    ),
    "soft_targets": (lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), (data(2, 3, 4, 5), data(2, 3, 4, 5))),
    "nll_loss": (lambda x: F.nll_loss(x * x, classes(), None, 9), (data(2, 3, 4, 5),)),
    "focal_loss": (lambda x: F.focal_loss(x, classes(), ignore_index=9), (data(2, 3, 4, 5),)),
    "overlap": (lambda x: F.dice_loss(x, classes(), ignore_index=9) + F.tversky_loss(x, classes(), ignore_index=9), (data(2, 3, 4, 5),)),
    "pairs": (lambda x: F.binary_cross_entropy_with_logits(x, x) + F.mse_loss(x, x * x) + F.l1_loss(x, x * x), (data(2, 3, 4, 5) * 0.5,)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x * x, (3, 4)) * F.adaptive_avg_pool2d(x, 1), (data(2, 3, 7, 6),)),
    "pad": (lambda x: F.pad(x * x, (1, -1, 0, 2), value=0.5) * F.pad(x, (-1, 1, 2, 0)), (data(2, 3, 4, 5),)),
    "pad_of_three_axes": (lambda x: F.pad(x * x, (1, 0, -1, 2, 0, 1)), (data(2, 3, 4),)),
    "pad_with_pixels": (
        lambda x: F.pad(F.pad(F.pad(x * x, (1, 2, 0, 3), "reflect"), (3, 0), "replicate"), (-1, 4, 2, 1), "circular"),
        (data(2, 3, 4, 5),),
    ),
    "crop": (lambda x: F.center_crop(x * x, (3, 2)) * F.crop(x, 0, 1, 3, 2), (data(2, 3, 4, 5),)),
    "nearest": (lambda x: F.interpolate(F.interpolate(x * x, scale_factor=2), (3, 4)), (data(2, 3, 4, 5),)),
    "bilinear": (
        lambda x: F.interpolate(F.interpolate(x * x, (7, 3), mode="bilinear"), (3, 4), mode="bilinear", align_corners=True),
        (data(2, 3, 4, 5),),
    ),
    "pixel_shuffle": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x * x, 2), 3) ** 2, (data(2, 8, 3, 6),)),
}


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_same_on_both_backends(name: str) -> None:
    both(FUNCTIONS[name][0], *FUNCTIONS[name][1])


@pytest.mark.usefixtures("cupy")
def test_tensors_move_and_gradients_move_back() -> None:
    minidcnn.use("numpy")
    x = Tensor(data(2, 3), requires_grad=True)
    y = x.to("cupy")
    assert is_cupy(y._array)
    (y * y).sum().backward()
    assert x.grad.backend == "numpy"
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy())
    with pytest.raises(TypeError, match=r"Tensor.grad: the gradient lives on cupy, the tensor on numpy; move it with \.to\(\)"):
        x.grad = Tensor(np.ones(x.shape)).to("cupy")
    with pytest.raises(TypeError, match=r"add: the tensors live on different backends \(numpy, cupy\); move one with .to\(\)"):
        x + y


@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_a_change_is_noticed_in_views_and_only_there(name: str, cupy: None) -> None:
    minidcnn.use(name)
    views: list[Callable[[Tensor], Tensor]] = [
        lambda x: x[1:],
        lambda x: x[1:][:, ::2],
        lambda x: x[1, 2],
        lambda x: x[0][1],
        lambda x: x.T,
        lambda x: x.reshape(6),
        lambda x: F.broadcast_to(x, (4, 2, 3)),
    ]
    copies: list[Callable[[Tensor], Tensor]] = [lambda x: x[[0, 1]], lambda x: x.T.reshape(6), lambda x: x[x > 0], lambda x: x[1:] * 1]
    for f in views + copies:
        x, p = Tensor(data(2, 3)), Tensor(2.0, requires_grad=True, dtype="float64")
        part = f(x)
        y = (part * p).sum()
        x[0, 0] = 5.0
        if f in views:
            with pytest.raises(RuntimeError, match="that Mul needs was changed in place"):
                y.backward()
        else:
            y.backward()
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.item(), to_backend(part._array, "numpy").sum(), rtol=1e-15)


@pytest.mark.usefixtures("cupy")
def test_images_keep_their_channels_last_layout_on_the_way_and_in_elementwise_work() -> None:
    x = Tensor(np.zeros((2, 5, 4, 3)).transpose(0, 3, 1, 2))
    assert x.backend == "cupy"
    for y in (x, x * 2 + 1, F.exp(x), F.conv2d(x, Tensor(np.ones((4, 3, 3, 3))), padding=1)):
        assert y._array.transpose(0, 2, 3, 1).flags.c_contiguous


def skip(x: Tensor, w: Tensor, b: Tensor, relu: bool) -> Tensor:
    """Two levels of a U-Net without convolutions: batch norm's output goes to a pool and past it."""
    top = F.batch_norm(x, None, None, w, b, True, relu=relu)
    deep = F.batch_norm(F.max_pool2d(top, 2), None, None, w, b, True, relu=relu)
    up = F.interpolate(F.cat([deep, F.interpolate(F.max_pool2d(deep, 2), scale_factor=2)], 1), scale_factor=2)
    return F.mean(F.cat([top, up], 1) ** 2)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("relu", [False, True])
def test_where_a_skip_begins_batch_norm_has_the_sum_of_two_gradients(relu: bool) -> None:
    both(lambda *inputs: skip(*inputs, relu), data(2, 3, 8, 12) - 0.7, data(3), data(3) - 0.5)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("readers", [2, 3, 4])
def test_a_gradient_that_is_asked_for_is_whole_and_more_than_two_add_up(readers: int) -> None:
    """Also within a checkpoint, and if a leaf's gradient is added to one from before."""
    found = []
    for backend in ("numpy", "cupy"):
        minidcnn.use(backend)
        inputs = [Tensor(a, requires_grad=True) for a in (data(2, 3, 4, 5), data(3), data(3))]

        def sum_of_powers(y: Tensor) -> Tensor:
            return sum((y**k).sum() for k in range(2, 2 + readers))

        def norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return sum_of_powers(F.batch_norm(x, None, None, w, b, True))

        y = F.batch_norm(inputs[0], None, None, *inputs[1:], True)
        asked = minidcnn.grad(sum_of_powers(y), [y, *inputs])
        for f in (norm, lambda *t: F.checkpoint(norm, *t)):
            f(*inputs).backward()
        found.append([t.to("numpy").numpy() for t in (*asked, *(t.grad for t in inputs))])
        for once, twice in zip(found[-1][1:4], found[-1][4:], strict=True):
            np.testing.assert_allclose(twice, 2 * once, rtol=1e-12, atol=1e-11)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-11)


def test_the_stand_in_is_as_strict_as_cupy() -> None:
    cupy = make_module()
    x = cupy.zeros((2, 3))
    for mix in (
        lambda: x + np.zeros(3),
        lambda: np.add(x, 1),
        lambda: np.asarray(x),
        lambda: cupy.exp(np.zeros(3)),
        lambda: x[np.array([0])],
    ):
        with pytest.raises(TypeError):
            mix()
    assert cupy.exp(x.T).flags.c_contiguous  # the layout is lost, as CuPy loses it


def test_kernels_are_tested_on_a_device_with_the_arguments_of_the_simulator(cupy: None) -> None:
    """Arrays go there, also those with a name, and come back if they were changed; windows and rules, tuples too, stay what they are."""
    there, here = OnDevice(kernels()), Kernels(np)
    x, w, window = data(2, 3, 7, 6), data(4, 3, 3, 2), Window((3, 2), (2, 1))
    out = window.positions((7, 6))
    np.testing.assert_allclose(there.conv2d(x, w, None, window, out), here.conv2d(x, w, None, window, out), rtol=1e-12)
    mean, rstd = here.batch_norm_stats(x)[0], np.ones(3)
    gradients = [k.batch_norm_grad(x - 0.5, x, mean, rstd, rstd) for k in (there, here)]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    steps = [[(data(3, 4), data(3, 4) - 1, np.zeros((3, 4)), True, SgdRule(0.5, 0.9))] for _ in range(2)]
    there.sgd_steps(steps[0])
    here.sgd_steps(steps[1])
    for a, b in zip(steps[0][0][:3], steps[1][0][:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
