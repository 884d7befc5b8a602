"""Layers without PyTorch: they are their functions, their gradients are right, training and evaluating differ where they should."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, enable_grad, nn, no_grad
from minidcnn import functional as F


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) + 0.5) / np.prod(shape) - 0.4


# -- gradients of whole layers with respect to inputs and parameters, to order 2 ---------------------------------------------------

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(4, 2, (3, 2), (2, 1), (1, 0), groups=2), (1, 4, 4, 3)),
    "conv-same": (lambda: nn.Conv2d(2, 2, (2, 3), padding="same"), (1, 2, 3, 4)),
    "conv-reflect": (lambda: nn.Conv2d(2, 2, (3, 2), padding=(2, 1), padding_mode="reflect"), (1, 2, 4, 3)),
    "conv-circular": (lambda: nn.Conv2d(2, 2, (2, 3), padding="same", padding_mode="circular"), (1, 2, 4, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, (3, 2), (2, 1), (1, 0), (1, 0), groups=2), (1, 2, 2, 3)),
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "batch-norm": (lambda: nn.BatchNorm2d(2), (3, 2, 2, 3)),
    "batch-norm-eval": (lambda: nn.BatchNorm2d(2).eval(), (3, 2, 2, 3)),
    "lrn": (lambda: nn.LocalResponseNorm(3, 0.5, 0.75, 2.0), (1, 4, 2, 3)),
    "max-pool": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), (1, 2, 4, 3)),
    "avg-pool": (lambda: nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False), (1, 2, 4, 3)),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 4)),
    "nearest": (lambda: nn.Upsample(scale_factor=2), (1, 2, 2, 3)),
    "bilinear": (lambda: nn.UpsamplingBilinear2d((5, 4)), (1, 2, 2, 3)),
    "shuffle": (lambda: nn.PixelShuffle(2), (1, 4, 2, 3)),
    "replicate": (lambda: nn.ReplicationPad2d((1, 2, 0, 1)), (1, 2, 2, 3)),
    "leaky": (lambda: nn.LeakyReLU(0.3), (2, 3)),
    "softmax": (lambda: nn.Softmax(), (2, 3, 2)),
    "block": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d(2), nn.ConvTranspose2d(3, 1, 2, 2)),
        (1, 2, 4, 6),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    minidcnn.manual_seed(1)
    make, shape = LAYERS[name]
    layer = make().double()
    for buffer in layer.buffers():
        if buffer.dtype == np.float64:
            buffer.data = np.random.default_rng(3).uniform(0.5, 1.5, buffer.shape)
    for i, p in enumerate(layer.parameters()):
        p.data = data(*p.shape, seed=i)
    minidcnn.check_grads(layer, [data(*shape)], order=2)


# -- layers are their functions ----------------------------------------------------------------------------------------------------


def test_images_without_a_batch_axis() -> None:
    x = Tensor(data(2, 5, 6).astype(np.float32))
    for layer in (
        nn.Conv2d(2, 3, (2, 3), padding="same"),
        nn.Conv2d(2, 3, (2, 3), padding=1, padding_mode="replicate"),
        nn.ConvTranspose2d(2, 3, 2, 2),
        nn.MaxPool2d(2),
        nn.AvgPool2d((1, 2)),
    ):
        np.testing.assert_allclose(layer(x).numpy(), layer(x.reshape(1, 2, 5, 6)).numpy()[0], rtol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(1, 2), "same"])
def test_padding_modes_pad_first(mode: str, padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode).double()
    x = data(1, 2, 5, 6)
    sides = ((1, 1), (2, 2)) if padding == (1, 2) else ((1, 1), (1, 2))
    np_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    padded = np.pad(x, ((0, 0), (0, 0), *sides), mode=np_mode)
    expected = F.conv2d(Tensor(padded), layer.weight, layer.bias)
    np.testing.assert_allclose(layer(Tensor(x)).numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(dtype: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2), nn.Dropout(0.5),
        nn.UpsamplingBilinear2d(scale_factor=2), nn.ConvTranspose2d(4, 8, 2), nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(8, 3), nn.LogSoftmax(1),
    ).to(dtype)  # fmt: skip
    x = Tensor(data(3, 2, 6, 8).astype(dtype), requires_grad=True)
    y = net(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and all(p.grad.dtype == dtype for p in net.parameters())
    assert all(b.dtype == (np.int64 if n.endswith("tracked") else dtype) for n, b in net.named_buffers())


# -- batch norm --------------------------------------------------------------------------------------------------------------------


def test_batch_norm_normalises_the_batch_and_then_by_running_statistics() -> None:
    norm = nn.BatchNorm2d(2, eps=0.0, momentum=0.25).double()
    x = data(3, 2, 4, 5)
    y = norm(Tensor(x)).numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.25 * x.mean((0, 2, 3)))
    np.testing.assert_allclose(norm.running_var.numpy(), 0.75 + 0.25 * x.var((0, 2, 3), ddof=1))
    assert norm.num_batches_tracked.item() == 1
    before = norm.state_dict()
    norm.eval()
    z = norm(Tensor(x)).numpy()
    mean, var = (before[n].reshape(1, 2, 1, 1) for n in ("running_mean", "running_var"))
    np.testing.assert_allclose(z, (x - mean) / np.sqrt(var))
    assert all(np.array_equal(v, before[k]) for k, v in norm.state_dict().items())


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    norm = nn.BatchNorm2d(2, momentum=None).double()
    batches = [data(2, 2, 3, 4, seed=i) * (i + 1) for i in range(4)]
    for batch in batches:
        norm(Tensor(batch))
    np.testing.assert_allclose(norm.running_mean.numpy(), np.mean([b.mean((0, 2, 3)) for b in batches], 0))
    np.testing.assert_allclose(norm.running_var.numpy(), np.mean([b.var((0, 2, 3), ddof=1) for b in batches], 0))
    norm.reset_running_stats()
    assert norm.num_batches_tracked.item() == 0 and not norm.running_mean.numpy().any() and (norm.running_var.numpy() == 1).all()


def test_batch_norm_without_tracking_always_uses_the_batch() -> None:
    norm = nn.BatchNorm2d(2, affine=False, track_running_stats=False).double()
    assert not norm.state_dict() and not list(norm.parameters())
    x = Tensor(data(2, 2, 3, 4))
    np.testing.assert_array_equal(norm(x).numpy(), norm.eval()(x).numpy())


def test_a_frozen_batch_norm_inside_a_training_network_keeps_its_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    net[0].eval()
    net(Tensor(data(2, 2, 3, 4).astype(np.float32)))
    assert net[0].num_batches_tracked.item() == 0 and net[1].num_batches_tracked.item() == 1


# -- dropout -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.3)])
def test_dropout_drops_while_training_only_and_by_the_seed(layer: nn.Module) -> None:
    x = Tensor(np.ones((20, 50, 3, 4)))
    minidcnn.manual_seed(7)
    first, second = layer.train()(x).numpy(), layer(x).numpy()
    minidcnn.manual_seed(7)
    np.testing.assert_array_equal(layer(x).numpy(), first)
    assert not np.array_equal(first, second)
    assert set(np.unique(first)) == {0.0, 1 / 0.7} and abs((first == 0).mean() - 0.3) < 0.06
    whole = first.reshape(1000, 12)
    assert (whole == whole[:, :1]).all() == isinstance(layer, nn.Dropout2d)
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())


def test_training_is_deterministic() -> None:
    def run() -> list[np.ndarray]:
        minidcnn.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 3, 1))
        optimizer = minidcnn.optim.Adam(net.parameters(), lr=0.01)
        for i in range(3):
            optimizer.zero_grad()
            (net(Tensor(data(2, 2, 6, 8, seed=i).astype(np.float32))) ** 2).mean().backward()
            optimizer.step()
        return list(net.state_dict().values())

    assert all(np.array_equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_batch_norm_and_relu_run_together_unless_watched() -> None:
    """The same numbers, gradients and statistics; a hook on either makes both run by themselves, and subclasses are left alone."""

    class Gate(nn.ReLU):
        pass

    def run(relu: nn.Module, watched: int | None) -> tuple[list[str], list[np.ndarray]]:
        minidcnn.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), relu, nn.BatchNorm2d(4)).double()
        seen: list[tuple[int, ...]] = []
        if watched is not None:
            net[watched].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        x = Tensor(data(2, 2, 5, 6), requires_grad=True)
        y = net(x)
        (y * y).sum().backward(retain_graph=True)
        functions, node = [], y._node
        while node is not None:
            functions.append(type(node.function).__name__)
            node = next((edge[0] for edge in node.edges if isinstance(edge, tuple)), None)
        assert len(seen) == (watched is not None)
        return functions, [y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in net.parameters()), *net.state_dict().values()]

    functions_of, expected = {}, run(nn.ReLU(), None)[1]
    for name, relu, watched in (("plain", nn.ReLU(), None), ("hook 1", nn.ReLU(), 1), ("hook 2", nn.ReLU(), 2), ("own", Gate(), None)):
        functions_of[name], arrays = run(relu, watched)
        for a, b in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    assert {name: "BatchNormReLU" in f for name, f in functions_of.items()} == {
        "plain": True,
        "hook 1": False,
        "hook 2": False,
        "own": False,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_inference_joins_convolution_batch_norm_and_relu(dtype: Any, kernels: str) -> None:
    """Without gradients they run together, with the same result as one by one; what the batch decides and what is watched does not."""
    minidcnn.manual_seed(2)
    convs = [
        lambda: nn.Conv2d(3, 20, 3, padding=1, bias=False), lambda: nn.Conv2d(20, 17, 3, padding="same", padding_mode="reflect"),
        lambda: nn.Conv2d(17, 6, (2, 3), (2, 1), (0, 1), dilation=(1, 2)), lambda: nn.Conv2d(6, 6, 1, groups=2),
    ]  # fmt: skip
    layers: list[nn.Module] = []
    for i, make in enumerate(convs):
        layers.append(make())
        layers += [nn.BatchNorm2d(layers[-1].out_channels, affine=i != 1)] if i != 2 else []
        layers += [nn.ReLU()] if i != 3 else []
    net = nn.Sequential(*layers)
    net = net.double() if dtype == np.float64 else net
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 11, 14)).astype(dtype))
    with minidcnn.use_kernels(kernels):
        for _ in range(3):
            net(x)  # statistics of their own
        calls = []
        affine = nn.Conv2d.affine
        try:
            nn.Conv2d.affine = lambda self, *a: calls.append(self) or affine(self, *a)  # type: ignore[method-assign,assignment,func-returns-value]
            expected = net.eval()(x)
            assert calls == []  # parameters require gradients
            with minidcnn.no_grad():
                together = net(x)
                assert len(calls) == 4
                net[1].register_forward_hook(lambda *_: None)
                watched = net(x)
                assert len(calls) == 7
                net.train()(x)
            assert len(calls) == 8  # the third has no batch norm behind it
        finally:
            nn.Conv2d.affine = affine  # type: ignore[method-assign]
    for y in (together, watched):
        np.testing.assert_allclose(
            y.numpy(), expected.numpy(), rtol=0, atol=(3e-5 if dtype == np.float32 else 1e-13) * np.abs(expected.numpy()).max()
        )


def test_conv2d_affine_has_no_gradient_and_says_so() -> None:
    x, w, v = Tensor(data(1, 2, 4, 5)), Tensor(data(3, 2, 2, 2), requires_grad=True), Tensor(data(3))
    with pytest.raises(
        RuntimeError, match=r"conv2d_affine: has no gradient; use conv2d, batch_norm and relu, or call it within no_grad\(\)"
    ):
        F.conv2d_affine(x, w, v, v)
    with minidcnn.no_grad():
        y = F.relu(F.conv2d(x, w) * v.reshape(1, 3, 1, 1) + v.reshape(1, 3, 1, 1))
        np.testing.assert_allclose(F.conv2d_affine(x, w, v, v, relu=True).numpy(), y.numpy(), atol=1e-15)
        assert F.conv2d_affine(x[0], w, v, v).shape == (3, 3, 4)
        with pytest.raises(ValueError, match=r"conv2d_affine: scale must have shape \(3,\)"):
            F.conv2d_affine(x, w, Tensor(data(2)), v)


# -- errors ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, message", [
    (lambda: nn.Conv2d(0, 3, 1), "Conv2d: in_channels must be at least 1, got 0"),
    (lambda: nn.Conv2d(4, 6, 1, groups=4), "Conv2d: groups must divide both channel counts, got groups=4 for 4 -> 6 channels"),
    (lambda: nn.Conv2d(4, 6, 1, groups=0), "Conv2d: groups must be at least 1, got 0"),
    (lambda: nn.Conv2d(4, 6, 0), "Conv2d: kernel_size must be at least 1, got 0"),
    (lambda: nn.Conv2d(4, 6, (1, 2, 3)), "Conv2d: kernel_size must be an int or a pair"),
    (lambda: nn.Conv2d(4, 6, 3, padding=-1), "Conv2d: padding must be at least 0, got -1"),
    (lambda: nn.Conv2d(4, 6, 3, padding="full"), 'Conv2d: padding "full" is unknown; use an int, a pair, "same" or "valid"'),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same"), 'Conv2d: padding="same" needs stride 1, got (2, 2); give the padding as numbers'),
    (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), 'Conv2d: padding_mode "mirror" is unknown; use one of zeros, reflect, replicate, circular'),
    (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), 'ConvTranspose2d: padding_mode must be "zeros", got "reflect"'),
    (lambda: nn.Linear(0, 3), "Linear: in_features must be at least 1, got 0"),
    (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features must be at least 1, got 0"),
    (lambda: nn.BatchNorm2d(3, momentum=2), "BatchNorm2d: momentum must lie between 0 and 1 or be None (plain average), got 2"),
    (lambda: nn.BatchNorm2d(3, eps=-1), "BatchNorm2d: eps must not be negative, got -1"),
    (lambda: nn.BatchNorm2d(3)(Tensor(np.ones((2, 4, 5, 6)))), "BatchNorm2d: input must be (N, 3, H, W), got shape (2, 4, 5, 6)"),
    (lambda: nn.BatchNorm2d(3)(Tensor(np.ones((3, 5, 6)))), "BatchNorm2d: input must be (N, 3, H, W), got shape (3, 5, 6)"),
    (lambda: nn.LocalResponseNorm(0), "LocalResponseNorm: size must be at least 1, got 0"),
    (lambda: nn.Dropout(1.5), "Dropout: p must lie between 0 and 1, got 1.5"),
    (lambda: nn.Dropout(None), "Dropout: p must lie between 0 and 1, got None"),
    (lambda: nn.Linear(2, 2).to(None), "to: None is neither a backend"),
    (lambda: nn.Dropout2d(-0.1), "Dropout2d: p must lie between 0 and 1, got -0.1"),
    (lambda: nn.Upsample(), "Upsample: give either size or scale_factor"),
    (lambda: nn.Upsample(3, 2.0), "Upsample: give either size or scale_factor"),
    (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: padding must be a number or (left, right, top, bottom), got (1, 2)"),
    (lambda: nn.Conv2d(3, 4, 3)(Tensor(np.ones((1, 1, 5, 6), np.float32))), "conv2d: weight expects 3 input channels, got 1"),
    (lambda: nn.Conv2d(3, 4, 3)(np.ones((1, 3, 5, 6))), "conv2d: input must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor(array)"),
    (lambda: nn.Linear(3, 4)(Tensor(np.ones((2, 5), np.float32))), "linear: weight expects 3 features, got 5"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


def test_an_empty_batch_does_not_count_for_batch_norm() -> None:
    norm = nn.BatchNorm2d(1, momentum=None)
    norm(Tensor(np.zeros((0, 1, 2, 3), np.float32)))
    norm(Tensor(np.full((1, 1, 2, 3), 4.0, np.float32)))
    assert (norm.num_batches_tracked.item(), norm.running_mean.item()) == (1, 4.0)


@pytest.mark.parametrize("recorded", [True, False])
def test_batch_norm_behind_a_convolution_refuses_an_image_without_a_batch(recorded: bool) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, (1, 3)), nn.BatchNorm2d(2), nn.ReLU()).eval()
    with enable_grad() if recorded else no_grad(), pytest.raises(ValueError, match=r"BatchNorm2d: input must be \(N, 2, H, W\)"):
        net(Tensor(np.zeros((1, 4, 5), np.float32)))


@pytest.mark.parametrize("nothing", [None, [[1.0]], np.ones((1, 4, 6, 6), np.float32)])
def test_every_layer_wants_a_tensor(nothing: Any) -> None:
    """A forward that forgot to return its result gives the next layer None."""
    layers = (nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.ConvTranspose2d(4, 2, 1), nn.Dropout(),
              nn.Dropout2d(), nn.Flatten(), nn.LeakyReLU(), nn.Linear(6, 2), nn.LocalResponseNorm(3), nn.LogSoftmax(), nn.MaxPool2d(2),
              nn.PixelShuffle(2), nn.ReflectionPad2d(1), nn.ReLU(), nn.Sigmoid(), nn.Softmax(), nn.Tanh(), nn.Upsample(2), nn.ZeroPad2d(1),
              nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))  # fmt: skip
    losses = (
        nn.CrossEntropyLoss(),
        nn.NLLLoss(),
        nn.FocalLoss(),
        nn.DiceLoss(),
        nn.TverskyLoss(),
        nn.BCEWithLogitsLoss(),
        nn.MSELoss(),
        nn.L1Loss(),
    )
    for layer, arguments in (*((layer, (nothing,)) for layer in layers), *((loss, (nothing, nothing)) for loss in losses)):
        with pytest.raises(TypeError, match=f"must be a Tensor, got {type(nothing).__name__}; wrap arrays as minidcnn.Tensor"):
            layer(*arguments)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_hook_before_a_layer_that_would_be_fused_runs(layer: int) -> None:
    net, seen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval(), []
    net[layer].register_forward_pre_hook(lambda module, inputs: seen.append(module))
    with no_grad():
        net(Tensor(np.ones((1, 3, 5, 7), np.float32)))
    assert seen == [net[layer]]


def test_a_norm_of_other_channels_says_so_in_inference_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(1)).eval()
    with no_grad(), pytest.raises(ValueError, match=r"BatchNorm2d: input must be \(N, 1, H, W\)"):
        net(Tensor(np.ones((1, 3, 5, 7), np.float32)))
