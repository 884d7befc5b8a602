"""float16 images beside float32 weights: every layer keeps float16, rounds as often as it says, and adds up in float32.

Bounds come from counting. A rounding to float16 changes a number by at most U = 2^-11 of itself, or, below 2^-14, by 2^-25. A layer that is linear in
its weights rounds them once and its result once: its error is at most 2 U times what comes out of it for absolute values. What float32 adds is
thousands of times smaller, and SLACK stands for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import minidcnn
from minidcnn import Tensor, nn, optim
from minidcnn import functional as F
from minidcnn.backend import Kernels, sum_dtype
from minidcnn.backend.cpu import CpuKernels
from minidcnn.models import FCN8s, Segmenter, SegNet, UNet
from minidcnn.testing import Conv, Pool, convs, lay_out, layouts, pools, seeds

Array = np.ndarray[Any, Any]
U, TINY, SLACK = 2.0**-11, 2.0**-24, 1 + 2.0**-7
HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
REFERENCE = Kernels(np)


@pytest.fixture(params=["reference", "fast"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Without and with numba: CpuKernels leave float16 to the reference."""
    with minidcnn.use_kernels(request.param):
        yield request.param


def normal(*shape: int, seed: int = 0, dtype: Any = HALF) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(layer: nn.Module, x: Array, g: Array | None = None) -> tuple[Array, Array, list[Array]]:
    """The layer's output, and for the gradient g of that the gradients of the input and of the parameters."""
    tensor = Tensor(x, requires_grad=True)
    layer.zero_grad()
    y = layer(tensor)
    y.backward(Tensor(normal(*y.shape, seed=9, dtype=x.dtype) if g is None else g))
    assert tensor.grad is not None
    return y.numpy(), tensor.grad.numpy(), [p.grad.numpy() for p in layer.parameters() if p.grad is not None]


def exact(layer: nn.Module, x: Array) -> tuple[Array, Array, list[Array]]:
    """The same in float64, from the same numbers; the layer is what it was afterwards."""
    state = layer.state_dict()
    g = normal(*layer(Tensor(x)).shape, seed=9).astype(np.float64)
    layer.load_state_dict(state)
    result = run(layer.double(), x.astype(np.float64), g)
    layer.to("float32")
    layer.load_state_dict(state)
    return result


def absolute(layer: nn.Module, x: Array) -> tuple[Array, Array, list[Array]]:
    """What comes out, and back, for absolute values of weights, inputs and gradients."""
    state = layer.state_dict()
    layer.load_state_dict({name: abs(value) for name, value in state.items()})
    layer.double()
    g = abs(normal(*layer(Tensor(x.astype(np.float64))).shape, seed=9)).astype(np.float64)
    result = run(layer, abs(x).astype(np.float64), g)
    layer.to("float32")
    layer.load_state_dict(state)
    return result


def within(result: Array, expected: Array, bound: Array | float) -> None:
    assert (abs(result.astype(np.float64) - expected) <= bound * SLACK + TINY).all(), (abs(result - expected) / (bound + TINY)).max()


LINEAR: dict[str, Callable[[], tuple[nn.Module, Array]]] = {
    "conv": lambda: (nn.Conv2d(3, 5, (3, 2), (2, 1), (1, 0)), normal(2, 3, 7, 9)),
    "conv in groups": lambda: (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), normal(2, 4, 5, 8)),
    "conv, mirrored padding": lambda: (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), normal(2, 3, 5, 8)),
    "transposed": lambda: (nn.ConvTranspose2d(5, 3, 2, 2), normal(2, 5, 4, 6)),
    "transposed, overlapping": lambda: (nn.ConvTranspose2d(4, 3, (3, 4), (2, 1), (1, 2), (1, 0)), normal(2, 4, 4, 6)),
    "linear": lambda: (nn.Linear(40, 7), normal(6, 40)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_layers_with_weights_round_weights_and_results_once(name: str, kernels: str) -> None:
    layer, x = LINEAR[name]()
    (y, dx, grads), (y_, dx_, grads_), (size, dx_size, _) = run(layer, x), exact(layer, x), absolute(layer, x)
    assert y.dtype == dx.dtype == HALF
    assert all(p.dtype == g.dtype == SINGLE for p, g in zip(layer.parameters(), grads, strict=True))
    within(y, y_, 2 * U * size)
    within(dx, dx_, 2 * U * dx_size)
    for g, g_ in zip(grads, grads_, strict=True):
        within(g, g_, U * abs(g_) + 2.0**-20)  # factors are what they are: only the sum is rounded
    assert abs(y - y_).max() > U / 8  # it was rounded


# What a result is from its input, and how often it is rounded on the way: forward, and back.
OTHERS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "batch norm": (lambda: nn.BatchNorm2d(4), 1, 1),
    "batch norm by running statistics": (lambda: nn.BatchNorm2d(4).eval(), 1, 1),
    "batch norm without weights": (lambda: nn.BatchNorm2d(4, affine=False), 1, 1),
    "relu": (nn.ReLU, 0, 0),
    "leaky relu": (lambda: nn.LeakyReLU(0.1), 2, 2),  # the slope and the product
    "max pool": (lambda: nn.MaxPool2d((2, 3), (2, 1)), 0, 1),
    "average pool": (lambda: nn.AvgPool2d((3, 2), (1, 2), (1, 1)), 1, 1),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((4, 3)), 1, 1),
    "mean": (lambda: nn.AdaptiveAvgPool2d(1), 1, 1),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 1, 1),
    "bilinear, corners": (lambda: nn.UpsamplingBilinear2d((9, 17)), 1, 1),
    "nearest": (lambda: nn.Upsample(scale_factor=2), 0, 1),
    "mirrored": (lambda: nn.ReflectionPad2d(2), 0, 1),
    "zeros": (lambda: nn.ZeroPad2d(2), 0, 0),
    "shuffle": (lambda: nn.PixelShuffle(2), 0, 0),
    "response norm": (lambda: nn.LocalResponseNorm(3, alpha=0.5), 1, 3),
    "tanh": (nn.Tanh, 1, 5),
    "sigmoid": (nn.Sigmoid, 3, 7),  # exp, sum, quotient; then the product, the difference and that times g
    "softmax": (lambda: nn.Softmax(1), 5, 12),
    "log softmax": (lambda: nn.LogSoftmax(1), 5, 12),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_layer_rounds_no_more_often_than_it_must(name: str, kernels: str) -> None:
    make, forward, backward = OTHERS[name]
    layer, x = make(), normal(3, 4, 6, 10)
    (y, dx, grads), (y_, dx_, grads_) = run(layer, x), exact(layer, x)
    assert y.dtype == dx.dtype == HALF
    scale = max(1.0, abs(y_).max())  # of the numbers that are rounded on the way
    within(y, y_, forward * U * (abs(y_) if forward < 2 else scale) + 2.0**-18)
    within(dx, dx_, backward * U * (abs(dx_) if backward < 2 else scale * max(1.0, abs(dx_).max())) + 2.0**-18)
    for g, g_ in zip(grads, grads_, strict=True):
        assert g.dtype == SINGLE
        within(g, g_, 2.0**-16)  # float32 throughout
    for buffer in layer.buffers():
        assert buffer.dtype != HALF


def second_derivatives(dtype: Any, wide: Any, training: bool, relu: bool, used: int) -> tuple[Tensor, ...]:
    """Of batch norm's gradient number `used` (of input, weight or bias) with respect to the input, the gradient that came and the weight."""
    shape = 3, 4, 6, 5
    x, g = (Tensor(normal(*shape, seed=i).astype(dtype), requires_grad=True) for i in (0, 1))
    w, b = (Tensor(normal(4, seed=i, dtype=SINGLE).astype(wide), requires_grad=True) for i in (2, 3))
    mean, var = Tensor(normal(4, seed=4).astype(wide)), Tensor(abs(normal(4, seed=5)).astype(wide) + wide(0.5))
    first = minidcnn.grad(F.batch_norm(x, mean, var, w, b, training, relu=relu), (x, w, b), g, create_graph=True)[used]
    along = Tensor(normal(*first.shape, seed=6).astype(first.dtype))
    return minidcnn.grad(first, (x, g, w), along, allow_unused=True)


@pytest.mark.parametrize("used", [0, 1, 2])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_of_batch_norm_are_rounded_once(training: bool, relu: bool, used: int, kernels: str) -> None:
    """From the same numbers as in float64: float32 in between, then one rounding of what is float16."""
    check_second_derivatives(training, relu, used)


def check_second_derivatives(training: bool, relu: bool, used: int) -> None:
    results = second_derivatives(HALF, np.float32, training, relu, used)
    with minidcnn.use_kernels("reference"):
        exact = second_derivatives(np.float64, np.float64, training, relu, used)
    nonzero = 0
    for result, wanted, dtype in zip(results, exact, (HALF, HALF, SINGLE), strict=True):
        expected = wanted.numpy()
        assert result.dtype == dtype
        within(result.numpy(), expected, U * abs(expected) * (dtype == HALF) + 2.0**-18 * abs(expected).max())
        nonzero += bool(expected.any())
    assert nonzero == ((3, 2, 1) if training else (2, 2, 1))[used]


def test_dropout_and_unpooling_keep_float16(kernels: str) -> None:
    x = Tensor(normal(2, 3, 6, 8), requires_grad=True)
    results = []
    for tensor in (x, x.astype(SINGLE)):
        minidcnn.manual_seed(3)
        results.append(F.dropout(tensor, 0.3))
    y, wanted = results
    np.testing.assert_array_equal(y.numpy(), wanted.numpy().astype(HALF))
    pooled, indices = F.max_pool2d(y, 2, return_indices=True)
    z = F.max_unpool2d(pooled, indices, 2)
    z.backward(Tensor(normal(2, 3, 6, 8)))
    assert y.dtype == pooled.dtype == z.dtype == x.grad.dtype == HALF  # type: ignore[union-attr]


# -- the rule -----------------------------------------------------------------------------------------------------------------------------


NUMBERS = (3.1, 1e-5, 1e-8, 65520.0, 2**16, 1e5, -1e6, np.float32(0.1), np.int64(100_000))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["x k", "k x", "x / k", "k / x", "leaky relu"])
def test_a_number_beside_float16_keeps_its_digits_and_its_size(name: str, number: Any, kernels: str) -> None:
    """Computed in float32 and rounded once: a float16 100000 is infinite, and 0 times that NaN."""
    f: Callable[[Any], Any] = {
        "x k": lambda x: x * number,
        "k x": lambda x: number * x,
        "x / k": lambda x: x / number,
        "k / x": lambda x: number / x,
        "leaky relu": lambda x: F.leaky_relu(-x, number),
    }[name]
    x = np.array([6e-8, 1e-4, 0.3, 1.0, -2.0, 300.0, -60000.0, *(() if name == "k / x" else (0.0,))], HALF)
    g = normal(*x.shape)
    half, single = Tensor(x, requires_grad=True), Tensor(x.astype(SINGLE), requires_grad=True)
    with np.errstate(over="ignore"):
        y, wanted = f(half), f(single)
        y.backward(g)
        wanted.backward(g.astype(SINGLE))
        assert y.dtype == HALF and half.grad is not None and single.grad is not None
        np.testing.assert_array_equal(y.numpy(), wanted.numpy().astype(HALF))
        np.testing.assert_array_equal(half.grad.numpy(), single.grad.numpy().astype(HALF))


def test_other_mixtures_stay_errors() -> None:
    x16, x32, w64 = (Tensor(np.ones((1, 2, 4, 5), d)) for d in (HALF, SINGLE, np.float64))
    w16 = Tensor(np.ones((3, 2, 2, 2), HALF))
    with pytest.raises(TypeError, match="input is float32 but weight is float16; cast one"):
        F.conv2d(x32, w16)
    with pytest.raises(TypeError, match="input is float16 but weight is float64; cast one"):
        F.conv2d(x16, Tensor(np.ones((3, 2, 2, 2))))
    with pytest.raises(TypeError, match="input is float64 but weight is float32; cast one"):
        F.conv2d(w64, Tensor(np.ones((3, 2, 2, 2), SINGLE)))
    with pytest.raises(TypeError, match="input is float16 but bias is float64; cast one"):
        F.conv_transpose2d(x16, Tensor(np.ones((2, 3, 2, 2), HALF)), Tensor(np.ones(3)))
    with pytest.raises(TypeError, match="input is float32 but weight is float16; cast one"):
        F.batch_norm(x32, None, None, Tensor(np.ones(2, HALF)), None, training=True)
    with pytest.raises(TypeError, match="input is float16 but scale is float16; cast one"):
        F.conv2d_affine(x16, w16, *(Tensor(np.ones(3, HALF)),) * 2)


def test_networks_of_float16_alone_work_too() -> None:
    """All float16, weights as well: what was possible before there was a rule."""
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(HALF)
    y, dx, grads = run(layer, normal(2, 3, 6, 8))
    assert {a.dtype for a in (y, dx, *grads)} == {HALF}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("after", [(nn.BatchNorm2d,), (nn.BatchNorm2d, nn.ReLU), (nn.ReLU,)], ids=str)
def test_networks_of_float16_alone_infer_in_one_pass(after: tuple[type[nn.Module], ...], bias: bool) -> None:
    layers = [nn.Conv2d(3, 4, (3, 2), bias=bias), *(nn.BatchNorm2d(4) if kind is nn.BatchNorm2d else kind() for kind in after)]
    net = nn.Sequential(*layers)
    net(Tensor(normal(2, 3, 8, 9, dtype=SINGLE)))  # statistics
    net.to(HALF).eval()
    x = Tensor(normal(2, 3, 8, 9))
    with minidcnn.no_grad():
        y = net(x)
    wanted = nn.Sequential(*layers).to(SINGLE)(Tensor(x.numpy().astype(SINGLE))).numpy()
    assert y.dtype == HALF
    within(y.numpy(), wanted, 3 * U * abs(wanted).max())  # the convolution, what becomes of it, and the difference where these cancel


def test_the_gradient_of_a_weight_is_not_rounded_to_nothing() -> None:
    """2^-26 is below all of float16, and a gradient of a float32 weight may be that small when its scale is taken out."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    scaler, optimizer = optim.GradScaler(2.0**16), optim.SGD(layer.parameters(), 1.0)
    x = Tensor(np.full((1, 1, 2, 3), 2.0**-14, HALF))
    for scaled in (False, True):
        layer.zero_grad()
        loss = F.mse_loss(layer(x), Tensor(np.zeros((1, 1, 2, 3), SINGLE)), reduction="mean")
        (scaler.scale(loss) if scaled else loss).backward()
        if scaled:
            scaler.unscale_(optimizer)
        gradient = layer.weight.grad.item()  # type: ignore[union-attr]
        expected = 2 * layer.weight.item() * 2.0**-28
        assert abs(gradient - expected) < 2 * U * abs(expected) if scaled else gradient == 0


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda x, t: F.cross_entropy(x, t, ignore_index=0, label_smoothing=0.1),
    "nll_loss": lambda x, t: F.nll_loss(x, t),
    "focal_loss": lambda x, t: F.focal_loss(x, t),
    "dice_loss": lambda x, t: F.dice_loss(x, t),
    "tversky_loss": lambda x, t: F.tversky_loss(x, t),
    "probabilities": lambda x, t: F.cross_entropy(x, F.softmax(x.astype(SINGLE), 1).detach()),
    "binary_cross_entropy_with_logits": lambda x, t: F.binary_cross_entropy_with_logits(x[:, 0], t.astype(SINGLE) / 2),
    "mse_loss": lambda x, t: F.mse_loss(x[:, 0], t.astype(SINGLE)),
    "l1_loss": lambda x, t: F.l1_loss(x[:, 0], t.astype(HALF)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_float32(name: str, kernels: str) -> None:
    """The loss of float16 scores has the bits of that of the same scores in float32; only the gradient is rounded, once."""
    scores, t = normal(2, 3, 5, 8), Tensor(np.random.default_rng(0).integers(0, 3, (2, 5, 8)))
    x16, x32 = (Tensor(scores.astype(d), requires_grad=True) for d in (HALF, SINGLE))
    loss16, loss32 = LOSSES[name](x16, t), LOSSES[name](x32, t)
    assert loss16.dtype == SINGLE and loss16.item() == loss32.item()
    loss16.backward()
    loss32.backward()
    np.testing.assert_array_equal(x16.grad.numpy(), x32.grad.numpy().astype(HALF))  # type: ignore[union-attr]


def test_means_do_not_overflow_where_sums_would() -> None:
    x = Tensor(np.full((2, 3, 200, 300), 4.0, HALF))
    assert x.mean().item() == 4 and F.adaptive_avg_pool2d(x, 1).numpy().max() == 4
    assert F.var(x).item() == 0 and REFERENCE.sum(x._array.astype(SINGLE), (0, 1, 2, 3)) > np.finfo(HALF).max


# -- the reference's kernels ----------------------------------------------------------------------------------------------------------


def once(name: str, *arguments: Any) -> None:
    """A kernel on float16 arrays gives what it gives on the same numbers in float32, rounded; another order of sums may end beyond a tie."""
    for own, order in ((REFERENCE, 0.0), (CpuKernels(), 1e-6)):
        result = getattr(own, name)(*arguments)
        wanted = getattr(REFERENCE, name)(*(a.astype(SINGLE) if getattr(a, "dtype", None) == HALF else a for a in arguments))
        assert result.dtype == HALF and result.shape == wanted.shape
        apart = SINGLE.type(order * np.abs(wanted).max(initial=0))
        assert ((wanted - apart).astype(HALF) <= result).all() and (result <= (wanted + apart).astype(HALF)).all()


@given(case=convs(), layout=layouts, seed=seeds)
def test_convolutions_are_sums_in_float32_rounded_once(case: Conv, layout: str, seed: int) -> None:
    x, w, y = (lay_out(normal(*shape, seed=seed + i), layout) for i, shape in enumerate((case.x, case.w, case.y)))
    bias, back, out = normal(case.outputs), normal(case.channels), case.window.positions(case.size)
    once("conv2d", x, w, bias, case.window, out, case.groups)
    once("conv_transpose2d", y, w, back, case.window, case.size, case.groups)
    once("conv2d_weight", x, y, case.window, case.groups)
    once("col2im", REFERENCE.im2col(x, case.window, out), case.window, case.size)


@given(case=pools(), layout=layouts, seed=seeds)
def test_pooling_is_sums_in_float32_rounded_once(case: Pool, layout: str, seed: int) -> None:
    x, g = lay_out(normal(*case.x, seed=seed), layout), lay_out(normal(*case.y, seed=seed + 1), layout)
    out = case.window.positions(case.size)
    taps = REFERENCE.max_pool2d(x, case.window, out)[1]
    weight = abs(normal(*out, dtype=SINGLE))
    once("pool_scatter", g, taps, case.window, case.size)
    once("avg_pool2d", x, case.window, weight)
    once("avg_pool2d_adjoint", g, case.window, weight, case.size)
    indices = np.random.default_rng(seed).integers(0, case.size[0] * case.size[1], case.y)
    once("scatter", g, indices, case.size)


def test_sums_longer_than_float16_can_count() -> None:
    """4096 ones: in float16 a sum of ones stops at 2048."""
    ones, w = np.ones((1, 4096, 2, 3), HALF), np.ones((1, 4096, 1, 1), HALF)
    window = minidcnn.window.Window((1, 1))
    assert REFERENCE.conv2d(ones, w, None, window, (2, 3)).max() == 4096
    assert REFERENCE.matmul(np.ones((2, 4096), HALF), np.ones((4096, 3), HALF)).max() == 4096
    assert REFERENCE.place(np.ones(4096, HALF), (np.zeros(4096, int),), (2,)).max() == 4096
    assert REFERENCE.channel_sum(ones, 4095, 4095).max() == 4096
    x = Tensor(np.ones(4096, HALF), requires_grad=True)
    F.amax(x).backward()
    assert x.grad.numpy().max() == 2.0**-12  # type: ignore[union-attr]


def test_half_convolutions_are_pytorchs() -> None:
    """Where PyTorch computes them on a CPU: both round the exact result once, so they differ by a step of float16 at most."""
    torch = pytest.importorskip("torch")
    x, w, b = normal(2, 5, 9, 12), normal(4, 5, 3, 2, seed=1), normal(4, seed=2)
    theirs = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), torch.tensor(b), (2, 1), (1, 0)).numpy()
    ours = F.conv2d(Tensor(x), Tensor(w.astype(SINGLE)), Tensor(b.astype(SINGLE)), (2, 1), (1, 0)).numpy()
    within(ours, theirs.astype(np.float64), 2 * U * abs(theirs) + 2.0**-20)
    theirs = torch.nn.functional.linear(torch.tensor(x), torch.tensor(normal(7, 12)), None).numpy()
    within(F.linear(Tensor(x), Tensor(normal(7, 12, dtype=SINGLE))).numpy(), theirs.astype(np.float64), 2 * U * abs(theirs) + 2.0**-20)


# -- whole networks -------------------------------------------------------------------------------------------------------------------


def unet(base: int = 4) -> UNet:
    minidcnn.manual_seed(0)
    return UNet(3, 3, base=base, padding="same", norm="batch", depth=2)


NETWORKS: dict[str, Callable[[], Segmenter]] = {
    "unet": unet,
    "unet, transposed": lambda: UNet(3, 3, base=4, depth=2),
    "segnet": lambda: SegNet(3, 3, width=2),
    "fcn8s": lambda: FCN8s(3, 3, width=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_float16_in_every_layer(name: str, kernels: str) -> None:
    model = NETWORKS[name]()
    size = model.suitable_size((32, 48))
    seen: dict[str, Any] = {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda m, i, o, path=path: seen.update({path: (o[0] if isinstance(o, tuple) else o).dtype}))
    for training in (True, False):
        model.train(training)
        seen.clear()
        assert model(Tensor(normal(2, 3, *size))).dtype == HALF
        assert len(seen) > 20 and set(seen.values()) == {HALF}
    with minidcnn.no_grad():
        for module in model.modules():
            module._hooks.clear()
        assert model(Tensor(normal(2, 3, *size))).dtype == HALF  # with convolution, batch norm and ReLU in one


def kept(output: Tensor, batch: int) -> int:
    """Bytes of the activations that the graph of `output` keeps for the backward pass: floating, with this batch, each once."""
    arrays: dict[int, Array] = {}
    nodes, seen = [output._node], set()
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        for tensor, *_ in node.saved:
            a = tensor._array
            if a.ndim == 4 and len(a) == batch and a.dtype.kind == "f":
                arrays[a.ctypes.data] = a
        nodes += [edge[0] for edge in node.edges if isinstance(edge, tuple)]
    return sum(a.nbytes for a in arrays.values())


def test_activations_take_half_the_memory() -> None:
    model, x = unet(), normal(7, 3, 16, 32)
    full = kept(model(Tensor(x.astype(SINGLE))), 7)
    assert full > 20 * x.size  # more than the images
    assert 2 * kept(model(Tensor(x)), 7) == full


ROUNDINGS = 26  # of weights and of results, in the 13 convolutions of `unet`


def test_gradients_of_a_unet_are_those_of_float32_but_for_relus_that_flip() -> None:
    """A rounding moves about a share U of a layer's numbers over zero, and there a whole number of the gradient comes or goes: sqrt(U) of its
    norm, sqrt(ROUNDINGS U) = 11 % over all layers. Rounding nothing but the weights of a float32 network costs 5 % already. Twice that may be."""
    x, masks = normal(2, 3, 16, 32), np.random.default_rng(0).integers(0, 3, (2, 4, 8)).repeat(4, 1).repeat(4, 2)
    found = []
    for dtype in (SINGLE, HALF):
        model = unet()
        (F.cross_entropy(model(Tensor(x.astype(dtype))), Tensor(masks)) * 1024).backward()
        found.append([p.grad.numpy() for p in model.parameters() if p.ndim == 4])  # type: ignore[union-attr]
    assert len(found[0]) == ROUNDINGS / 2
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for b, a in zip(*found, strict=True)]
    assert max(errors) < 2 * (ROUNDINGS * U) ** 0.5 and errors[-1] < ROUNDINGS * U  # behind the last layer's weights there is no ReLU


def train(model: Segmenter, dtype: Any, steps: int, scaler: optim.GradScaler) -> list[float]:
    """Losses of some steps on the same two images."""
    rng = np.random.default_rng(5)
    images, masks = rng.standard_normal((2, 3, 16, 32)).astype(HALF).astype(dtype), rng.integers(0, 3, (2, 4, 8)).repeat(4, 1).repeat(4, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(Tensor(images)), Tensor(masks))
        optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore"):
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def test_a_unet_trains_in_float16_as_in_float32(kernels: str) -> None:
    """13 layers round weights and results: if all of that added up in a loss, it would be off by ROUNDINGS U, 1.3 %."""
    full = train(unet(), SINGLE, 12, optim.GradScaler(enabled=False))
    half = train(unet(), HALF, 12, optim.GradScaler(2.0**12))
    np.testing.assert_allclose(half, full, rtol=ROUNDINGS * U)
    assert half[-1] < 0.7 * half[0] and half != full


def test_an_overflow_is_left_out_and_the_scale_halved() -> None:
    """A scale that no gradient can bear: the weights stay until it has come down, and then the loss falls."""
    model, scaler = unet(), optim.GradScaler(2.0**40)
    weights = [p.numpy().copy() for p in model.parameters()]
    losses = train(model, HALF, 1, scaler)
    assert scaler.get_scale() == 2.0**39
    for p, before in zip(model.parameters(), weights, strict=True):
        np.testing.assert_array_equal(p.numpy(), before)
    losses += train(model, HALF, 40, scaler)
    assert 2.0**8 < scaler.get_scale() < 2.0**30 and losses[-1] < 0.7 * losses[0]
    assert all(np.isfinite(p.numpy()).all() for p in model.parameters())


def test_recomputed_and_fused_networks_give_the_same_bits() -> None:
    x, t = normal(2, 3, 16, 32), Tensor(np.random.default_rng(0).integers(0, 3, (2, 16, 32)))
    runs = []
    for recompute in (False, True):
        model = unet()
        model.recompute = recompute
        F.cross_entropy(model(Tensor(x)), t).backward()
        runs.append([p.grad.numpy() for p in model.parameters()])  # type: ignore[union-attr]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sum_dtypes() -> None:
    assert [sum_dtype(d) for d in ("float16", "float32", "float64", "int64")] == [SINGLE, SINGLE, np.float64, np.int64]
