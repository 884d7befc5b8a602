"""Every layer against torch.nn's: repr, names and shapes of the state, values and gradients in float64, training and evaluating."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, nn

torch = pytest.importorskip("torch")

LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (4, 6, (3, 2)), {}, (2, 4, 7, 6)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3), "groups": 2, "bias": False}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, (3, 4)), {"padding": "same", "dilation": (2, 1)}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, 2), {"padding": "valid", "stride": 2}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, (3, 5)), {"padding": (1, 2), "padding_mode": "reflect"}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, (3, 5)), {"padding": (1, 2), "padding_mode": "replicate", "stride": (1, 2)}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, (3, 4)), {"padding": "same", "padding_mode": "circular"}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, (3, 4)), {"padding": "valid", "padding_mode": "reflect"}, (2, 4, 7, 6)),
    ("Conv2d", (4, 3, 3), {}, (4, 7, 6)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {}, (2, 4, 3, 5)),
    (
        "ConvTranspose2d",
        (4, 6, 3),
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2, "bias": False},
        (2, 4, 3, 5),
    ),
    ("ConvTranspose2d", (4, 6, (2, 3)), {"dilation": (2, 1), "padding": 1}, (2, 4, 3, 5)),
    ("Linear", (5, 3), {}, (2, 4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 5)),
    ("BatchNorm2d", (3,), {}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3,), {"eps": 1e-3, "momentum": 0.3, "affine": False}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 5, 2)),
    ("LocalResponseNorm", (5,), {}, (2, 7, 3, 4)),
    ("LocalResponseNorm", (2,), {"alpha": 0.3, "beta": 0.5, "k": 2.0}, (2, 7, 3, 4)),
    ("MaxPool2d", (2,), {}, (2, 3, 7, 6)),
    ("MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "ceil_mode": True}, (2, 3, 7, 6)),
    ("AvgPool2d", ((3, 2),), {"stride": 2, "padding": (1, 0), "ceil_mode": True, "count_include_pad": False}, (2, 3, 7, 6)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 7, 6)),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, (2, 3, 7, 6)),
    ("AdaptiveAvgPool2d", ((None, 4),), {}, (2, 3, 7, 6)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", ((7, 9),), {"mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (2, 3), "mode": "bilinear", "align_corners": True}, (2, 3, 4, 5)),
    ("Upsample", (None, 1.5, "bilinear", None, True), {}, (2, 3, 4, 5)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 5)),
    ("ReLU", (), {}, (2, 3, 4)),
    ("LeakyReLU", (0.2,), {}, (2, 3, 4)),
    ("Sigmoid", (), {}, (2, 3, 4)),
    ("Tanh", (), {}, (2, 3, 4)),
    ("Softmax", (), {"dim": 1}, (2, 3, 4, 5)),
    ("LogSoftmax", (-1,), {}, (2, 3, 4)),
    ("Identity", (), {}, (2, 3)),
    ("Flatten", (), {}, (2, 3, 4, 5)),
    ("Flatten", (0, 2), {}, (2, 3, 4, 5)),
    ("ZeroPad2d", ((1, 2, 0, 3),), {}, (2, 3, 4, 5)),
    ("ZeroPad2d", (-1,), {}, (2, 3, 4, 5)),
    ("ConstantPad2d", ((1, 2, 0, 3), 1.5), {}, (2, 3, 4, 5)),
    ("ReflectionPad2d", ((1, 2, 0, 3),), {}, (2, 3, 4, 5)),
    ("ReplicationPad2d", (2,), {}, (2, 3, 4, 5)),
    ("CircularPad2d", ((1, 2, 0, 3),), {}, (2, 3, 4, 5)),
    ("Dropout", (0.0,), {}, (2, 3, 4)),
    ("Dropout2d", (0.0,), {}, (2, 3, 4, 5)),
]


def tie_free(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).permutation(math.prod(shape)) / math.prod(shape) - 0.4
    return values.reshape(shape)


def pair(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Our layer and torch's with the same float64 state."""
    ours, theirs = getattr(nn, name)(*args, **kwargs).double(), getattr(torch.nn, name)(*args, **kwargs).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def printed(module: Any) -> str:
    """torch's repr, without the word that newer versions print for batch norm's bias."""
    return re.sub(r"(affine=\w+), bias=\w+", r"\1", repr(module))


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


def compare(ours: nn.Module, theirs: Any, x: np.ndarray) -> None:
    """Output, input gradient, parameter gradients and state after one pass."""
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    close(y, z)
    if z.requires_grad:
        g = tie_free(tuple(z.shape), 1)
        y.backward(g)
        z.backward(torch.tensor(g))
        close(a.grad, b.grad)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        close(p.grad, q.grad)
    ours.zero_grad()
    theirs.zero_grad()
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[name].numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # PyTorch, of its speed
@pytest.mark.parametrize("name, args, kwargs, shape", LAYERS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(LAYERS)])
def test_layer_agrees(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours, theirs = pair(name, args, kwargs)
    assert repr(ours) == printed(theirs)
    state, other = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(other) and all(state[k].shape == tuple(v.shape) for k, v in other.items())
    for seed in range(2):
        compare(ours, theirs, tie_free(shape, seed))
    ours.eval()
    theirs.eval()
    compare(ours, theirs, tie_free(shape, 2))


def test_inplace_and_remaining_reprs() -> None:
    for make in (
        lambda n: n.ReLU(inplace=True),
        lambda n: n.LeakyReLU(0.1, inplace=True),
        lambda n: n.Dropout(0.25),
        lambda n: n.Dropout2d(),
        lambda n: n.MaxUnpool2d(2, padding=(1, 0)),
        lambda n: n.MaxPool2d((2, 3), return_indices=True),
        lambda n: n.Sequential(),
        lambda n: n.ModuleDict({"a": n.ReLU()}),
        lambda n: n.ModuleList(
            [n.ReLU(), n.ReLU(), n.Tanh(), n.Sequential(n.ReLU(), n.Linear(2, 3)), n.Sequential(n.ReLU(), n.Linear(2, 3))]
        ),
        lambda n: n.CrossEntropyLoss(),
    ):
        assert repr(make(nn)) == repr(make(torch.nn))


def test_max_pool_and_unpool_pass_indices_and_sizes() -> None:
    x = tie_free((2, 3, 7, 5))
    results = []
    for n, t in ((nn, Tensor(x, requires_grad=True)), (torch.nn, torch.tensor(x, requires_grad=True))):
        pool, unpool = n.MaxPool2d(2, ceil_mode=True, return_indices=True), n.MaxUnpool2d(2)
        y, indices = pool(t)
        z = unpool(y * y, indices, output_size=t.shape)
        (z * z).sum().backward()
        results.append((indices, z, t.grad))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.detach().numpy())


def test_transposed_convolution_takes_an_output_size() -> None:
    ours, theirs = pair("ConvTranspose2d", (2, 3, 3, 2), {})
    x = tie_free((1, 2, 4, 5))
    for size in ((9, 11), (10, 12), (9, 12)):
        close(ours(Tensor(x), size), theirs(torch.tensor(x), size))
        close(ours(Tensor(x), output_size=size), theirs(torch.tensor(x), output_size=size))


class Net:
    """The same small encoder-decoder for either library."""

    def __new__(cls, n: Any) -> Any:
        def block(i: int, o: int) -> Any:
            return n.Sequential(n.Conv2d(i, o, 3, padding=1, bias=False), n.BatchNorm2d(o), n.ReLU(inplace=True))

        class Body(n.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.down = n.ModuleList([block(2, 4), block(4, 6)])
                self.pool = n.MaxPool2d(2)
                self.ups = n.ModuleDict({"up": n.ConvTranspose2d(6, 4, 2, stride=2)})
                self.head = n.Sequential(block(4, 4), n.Dropout2d(0.0), n.Conv2d(4, 3, 1))
                self.register_buffer("step", Tensor([0.0]) if n is nn else torch.zeros(1))

            def forward(self, x: Any) -> Any:
                skip = self.down[0](x)
                return self.head(self.ups["up"](self.down[1](self.pool(skip))) + skip)

        return Body()


def test_a_network_agrees_in_repr_names_values_gradients_and_statistics() -> None:
    ours, theirs = Net(nn).double(), Net(torch.nn).double()
    assert repr(ours) == printed(theirs)
    for method in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())  # torch's tensors load as they are
    for seed in range(3):
        compare(ours, theirs, tie_free((2, 2, 8, 6), seed))
    ours.eval()
    theirs.eval()
    compare(ours, theirs, tie_free((2, 2, 8, 6), 5))


def test_default_weights_have_the_distribution_of_torchs() -> None:
    torch.manual_seed(0)
    minidcnn.manual_seed(0)
    for make in (
        lambda n: n.Conv2d(16, 64, (3, 5), groups=2),
        lambda n: n.ConvTranspose2d(16, 64, (3, 5), groups=2),
        lambda n: n.Linear(90, 110),
    ):
        for (name, a), (_, b) in zip(make(nn).state_dict().items(), make(torch.nn).state_dict().items(), strict=True):
            at = [0.5, 1] if name == "weight" else [1]
            np.testing.assert_allclose(np.quantile(np.abs(a), at), np.quantile(np.abs(b.numpy()), at), rtol=0.05)


@pytest.mark.parametrize("name", ["kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"])
def test_init_has_the_variance_of_torchs(name: str) -> None:
    a, b = Tensor(np.zeros((50, 40, 3, 2))), torch.zeros(50, 40, 3, 2, dtype=torch.float64)
    getattr(nn.init, name)(a)
    getattr(torch.nn.init, name)(b)
    assert abs(a.numpy().var() / b.numpy().var() - 1) < 0.05


def test_gains_are_torchs() -> None:
    for name, param in (
        ("linear", None),
        ("conv2d", None),
        ("sigmoid", None),
        ("tanh", None),
        ("relu", None),
        ("leaky_relu", 0.3),
        ("selu", None),
    ):
        assert nn.init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


def test_an_old_batch_norm_state_without_the_counter_loads() -> None:
    state = {k: v.numpy() for k, v in torch.nn.BatchNorm2d(3).state_dict().items() if k != "num_batches_tracked"}
    assert nn.BatchNorm2d(3).load_state_dict(state) == ([], [])
