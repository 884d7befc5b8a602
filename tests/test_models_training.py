"""The networks at work: they overfit a batch, repeat themselves to the bit, and their gradients are the slopes; dropout, initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, check_grads, manual_seed, models, nn, no_grad, optim
from minidcnn import functional as F
from minidcnn.backend import random_state
from minidcnn.nn import init

Array = np.ndarray[Any, Any]

NETWORKS: dict[str, Callable[..., models.Segmenter]] = {
    "unet": lambda **k: models.UNet(1, 2, base=4, depth=2, **k),
    "unet-same": lambda **k: models.UNet(1, 2, base=4, padding="same", norm="batch", **k),
    "unet-bilinear": lambda **k: models.UNet(1, 2, base=4, padding="same", norm="batch", upsample="bilinear", **k),
    "segnet": lambda **k: models.SegNet(1, 2, width=8, **k),
    "segnet_basic": lambda **k: models.SegNetBasic(1, 2, width=8, **k),
    "fcn32s": lambda **k: models.FCN32s(2, 1, width=4, pad=1, fc_kernel=1, **k),
    "fcn16s": lambda **k: models.FCN16s(2, 1, width=4, pad=1, fc_kernel=1, **k),
    "fcn8s": lambda **k: models.FCN8s(2, 1, width=4, pad=1, fc_kernel=1, **k),
    "fcn8s_at_once": lambda **k: models.FCN8sAtOnce(2, 1, width=4, pad=1, fc_kernel=1, **k),
    "fcn_alexnet": lambda **k: models.FCNAlexNet(2, 1, width=6, pad=19, fc_kernel=1, **k),
}


def batch(network: models.Segmenter, side: int = 48) -> tuple[Tensor, Tensor]:
    """Two images of a bright shape on dark ground, with a little noise, and which pixels it covers."""
    rng = np.random.default_rng(0)
    height, width = network.suitable_size((side - 2 * network.margin, side - 2 * network.margin))
    labels = np.zeros((2, height, width), np.int64)
    labels[0, : height // 2, width // 3 :] = 1
    labels[1, height // 3 :, : width // 2] = 1
    images = labels[:, None] + rng.normal(0, 0.1, (2, 1, height, width))
    m = network.margin
    return Tensor(images.astype(np.float32)), Tensor(labels[:, m : height - m, m : width - m].copy())


def train(network: models.Segmenter, steps: int, lr: float = 0.01, calm: int = 0) -> list[float]:
    """Losses of Adam's steps, the last `calm` of them at a tenth of the rate, so that the end does not hang on a bit."""
    images, labels = batch(network)
    optimizer = optim.Adam(network.parameter_groups(lr), lr=lr)
    losses = []
    for step in range(steps):
        if step == steps - calm:
            for group in optimizer.param_groups:
                group["lr"] /= 10
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    return losses


# an FCN gives its answer through 32, 16 or 8 pixels of interpolation, which limits how sharp it can be
COARSE = {"fcn32s": 0.95, "fcn16s": 0.97, "fcn8s": 0.99, "fcn8s_at_once": 0.95, "fcn_alexnet": 0.94}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_overfits_one_batch(name: str) -> None:
    network = NETWORKS[name](**({"dropout": 0.0} if name in COARSE else {}))
    steps = {"fcn8s_at_once": 120, "fcn8s": 120, "fcn16s": 120, "fcn32s": 120}.get(name, 60 if name in COARSE else 40)
    lr = 0.002 if name == "fcn8s_at_once" else 0.003 if name in COARSE else 0.01
    losses = train(network, steps, lr, 30 if steps == 120 else 0)
    assert losses[-1] < 0.25 * losses[0]
    images, labels = batch(network)
    found = network(images).numpy().argmax(1)
    truth = labels.numpy()
    assert (found == truth).mean() >= COARSE.get(name, 0.99)
    assert 0.25 < truth.mean() < 0.75  # so that one answer for all pixels is not enough


@pytest.mark.parametrize(
    "make", [lambda: models.AlexNet(4, 1, width=2), lambda: models.CaffeNet(4, 1, width=6), lambda: models.VGG16(4, 1, width=4)]
)
def test_every_classifier_overfits_one_batch(make: Callable[[], models.Classifier]) -> None:
    rng = np.random.default_rng(0)
    network = make()
    network.classifier.apply(lambda layer: setattr(layer, "p", 0.0) if isinstance(layer, nn.Dropout) else None)
    images, labels = Tensor(rng.standard_normal((8, 1, 64, 64)).astype(np.float32)), Tensor(rng.integers(0, 4, 8))
    optimizer = optim.Adam(network.parameters(), lr=0.002)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network(images).numpy().argmax(1) == labels.numpy()).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_two_runs_give_the_same_bits(name: str) -> None:
    """Weights, dropout and all: the seed decides."""
    options = {"bayesian": True} if name.startswith("segnet") else {"dropout": 0.5}
    states, losses = [], []
    for seed in (3, 3, 4):
        manual_seed(seed)
        network = NETWORKS[name](**options)
        losses.append(train(network, 3))
        states.append(network.state_dict())
    assert losses[0] == losses[1] != losses[2]
    assert all(np.array_equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not np.array_equal(value, states[2][key]) for key, value in states[0].items())


def before_norm(network: nn.Module) -> list[str]:
    """Names of biases that batch norm takes away again: their gradients are zero but for rounding, which differences drown in."""
    found = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            layers = list(module)
            for i, (layer, after) in enumerate(pairwise(layers)):
                if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d) and layer.bias is not None:
                    found.append(f"{path}.{i}.bias")
    return found


def gradient_case(name: str) -> tuple[models.Segmenter, Array]:
    networks: dict[str, tuple[Callable[[], models.Segmenter], tuple[int, ...]]] = {
        "unet": (lambda: models.UNet(2, 2, base=2, depth=1), (1, 2, 18, 20)),
        "unet-same": (lambda: models.UNet(2, 2, base=2, depth=2, padding="same", norm="batch"), (2, 2, 9, 6)),
        "unet-bilinear": (lambda: models.UNet(2, 2, base=2, depth=2, padding="same", norm="batch", upsample="bilinear"), (2, 2, 9, 6)),
        "segnet": (lambda: models.SegNet(2, 2, width=1, eps=1e-3), (2, 2, 33, 18)),
        "segnet_basic": (lambda: models.SegNetBasic(2, 2, width=1, eps=1e-3), (2, 2, 19, 18)),
        "fcn8s_at_once": (lambda: models.FCN8sAtOnce(2, 2, width=1, pad=1, fc_kernel=1, dropout=0.0, learn_upsampling=True), (1, 2, 18, 9)),
        "fcn_alexnet": (lambda: models.FCNAlexNet(2, 2, width=6, pad=35, fc_kernel=2, dropout=0.0), (1, 2, 7, 5)),
    }
    make, shape = networks[name]
    network = make().double()
    rng = np.random.default_rng(5)
    for key, p in network.named_parameters():
        if key.startswith("score") or key.endswith("bias"):
            p._array[...] = rng.normal(0.1, 0.3, p.shape)
    return network, rng.standard_normal(shape)


@pytest.mark.parametrize("name", ["unet", "unet-same", "unet-bilinear", "segnet", "segnet_basic", "fcn8s_at_once", "fcn_alexnet"])
def test_gradients_of_whole_networks_are_slopes(name: str) -> None:
    """With respect to the image and to each parameter: first derivatives, float64. The step is small, since ReLU and pooling have kinks."""
    network, image = gradient_case(name)
    idle = before_norm(network)
    trained = [key for key, p in network.named_parameters() if p.requires_grad and key not in idle]
    trained = trained[:: 4 if len(trained) > 60 else 1]  # of three kinds in turn, so that every fourth is a weight, a factor, an offset
    network(Tensor(image)).sum().backward()
    parameters = dict(network.named_parameters())
    assert all(np.abs(parameters[key].grad.numpy()).max() < 1e-9 for key in idle)  # type: ignore[union-attr]
    for key, p in parameters.items():
        p.requires_grad_(key in trained)
    check_grads(network, [image], order=1, step=1e-6, rtol=1e-5)


# -- dropout -------------------------------------------------------------------------------------------------------------------------


def places(network: nn.Module) -> list[str]:
    """Names of the layers, in the order in which they run, each dropout with the layer before it."""
    rows = [(row.name, row.type) for row in nn.summary(network, (1, network.in_channels, 64, 64)).rows]
    return [rows[i - 1][0] for i, (_, kind) in enumerate(rows) if kind == "Dropout"]


def test_dropout_stands_where_the_papers_put_it() -> None:
    assert places(models.UNet(1, 2, base=1, padding="same", dropout=0.5)) == ["encoder.3.3", "encoder.4.3"]
    assert places(models.UNet(1, 2, base=1, padding="same")) == []
    assert places(models.FCN8s(2, 1, width=1)) == ["classifier.1", "classifier.4"]
    assert places(models.SegNet(1, 2, width=1)) == places(models.SegNetBasic(1, 2, width=1)) == []
    full = models.SegNet(1, 2, width=1, bayesian=True)
    pools = [f"features.{i}" for i, layer in enumerate(full.features) if isinstance(layer, nn.MaxPool2d)]
    assert places(full) == [*pools[2:], "decoder.0.8", "decoder.1.8", "decoder.2.8"]
    assert places(models.SegNetBasic(1, 2, width=1, bayesian=True)) == ["features.11", "features.15", "decoder.0.1", "decoder.1.1"]


@pytest.mark.parametrize("name", ["unet-same", "segnet", "segnet_basic", "fcn8s"])
def test_dropout_is_random_in_training_only(name: str) -> None:
    network = NETWORKS[name](**({"bayesian": True} if name.startswith("segnet") else {"dropout": 0.5}))
    for key, p in network.named_parameters():
        if key.startswith("score"):
            init.normal_(p)
    images, _ = batch(network)
    with no_grad():
        assert not np.array_equal(network(images).numpy(), network(images).numpy())
        network.eval()
        assert np.array_equal(network(images).numpy(), network(images).numpy())


@pytest.mark.parametrize("kind", [models.SegNet, models.SegNetBasic])
def test_monte_carlo_is_mean_and_variance_over_passes_with_dropout(kind: type[models.SegNet | models.SegNetBasic]) -> None:
    network = kind(1, 3, width=4, bayesian=True)
    images = Tensor(np.random.default_rng(0).standard_normal((2, 1, 33, 18)).astype(np.float32))
    with no_grad():
        network(images)  # statistics of batch norm
    before = network.state_dict()
    network.features[2].eval()
    modes = [module.training for module in network.modules()]
    manual_seed(7)
    mean, variance = network.monte_carlo(images, samples=12)
    assert [module.training for module in network.modules()] == modes
    assert all(np.array_equal(value, before[key]) for key, value in network.state_dict().items())  # batch norm did not learn from it
    assert not mean.requires_grad and mean.shape == variance.shape == (2, 3, 33, 18)
    network.eval()
    network.dropout.train()
    manual_seed(7)
    with no_grad():
        samples = np.stack([F.softmax(network(images), 1).numpy() for _ in range(12)]).astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), samples.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance.numpy(), samples.var(0), rtol=1e-4, atol=1e-7)
    assert variance.numpy().max() > 1e-4
    np.testing.assert_allclose(mean.numpy().sum(1), 1, rtol=1e-5)


def test_monte_carlo_needs_dropout_and_samples() -> None:
    images = Tensor(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(
        ValueError, match="SegNet: monte_carlo samples dropout, of which this network has none; build it with bayesian=True"
    ):
        models.SegNet(width=1).monte_carlo(images)
    with pytest.raises(ValueError, match="samples must be an integer of at least 1, got 0"):
        models.SegNet(width=1, bayesian=True).monte_carlo(images, samples=0)
    network = models.SegNet(width=1, bayesian=True).train()
    with pytest.raises(ValueError, match="input must be"):
        network.monte_carlo(Tensor(np.zeros((1, 1, 8, 8), np.float32)))
    assert network.training and network.features.training  # an error leaves the mode as it was


# -- initial weights, groups of parameters ---------------------------------------------------------------------------------------------


def test_initial_weights_have_the_papers_variance() -> None:
    """U-Net, section 3: standard deviation sqrt(2 / N), N the incoming nodes of one neuron; 9 x 64 = 576 for its example."""
    network = models.UNet(1, 2, base=16, depth=3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.size > 2000:
            incoming = 9 * module.in_channels
            assert module.weight.numpy().std() == pytest.approx(math.sqrt(2 / incoming), rel=0.05)
            assert abs(module.weight.numpy().mean()) < 0.1 * math.sqrt(2 / incoming)
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.numpy().std() == pytest.approx(math.sqrt(2 / module.in_channels), rel=0.05)
    biases = [p for key, p in network.named_parameters() if key.endswith("bias")]
    assert biases and not any(p.numpy().any() for p in biases)


def test_signals_keep_their_size_on_the_way_down() -> None:
    """He's weights: thirteen ReLU layers later the features are as large as at the beginning, give or take a factor."""
    network = models.VGG16(3, 3, width=8).eval()
    image = Tensor(np.random.default_rng(0).standard_normal((1, 3, 96, 96)).astype(np.float32))
    with no_grad():
        x = image
        for layer in network.features:
            x = layer(x) if not isinstance(layer, nn.MaxPool2d) else x[:, :, ::2, ::2]
    assert 0.2 < float(np.sqrt((x.numpy() ** 2).mean())) < 5


def test_fcn_begins_at_zero_with_bilinear_filters() -> None:
    network = models.FCN8sAtOnce(2, 3, width=1)
    assert not network(Tensor(np.ones((1, 3, 9, 7), np.float32))).numpy().any()
    line = np.array([0.25, 0.75, 0.75, 0.25])
    for step in (network.upscore2, network.upscore_pool4):
        np.testing.assert_allclose(step.weight.numpy()[0, 0], np.outer(line, line), rtol=1e-6)
        assert not step.weight.numpy()[0, 1].any() and not step.weight.requires_grad
    assert (network.scale_pool4.weight.numpy() == np.float32(0.01)).all() and (
        network.scale_pool3.weight.numpy() == np.float32(0.0001)
    ).all()


def test_fcns_parameter_groups_are_the_solvers() -> None:
    network = models.FCN16s(2, 3, width=1)
    weights, biases = network.parameter_groups(1e-3, 5e-4)
    assert (weights["lr"], weights["weight_decay"], biases["lr"], biases["weight_decay"]) == (1e-3, 5e-4, 2e-3, 0.0)
    assert {p.ndim for p in weights["params"]} == {4} and {p.ndim for p in biases["params"]} == {1}
    assert len(weights["params"]) == len(biases["params"]) == 17
    assert len(models.FCN16s(2, 3, width=1, learn_upsampling=True).parameter_groups(1e-3)[0]["params"]) == 19
    (group,) = models.UNet(base=1).parameter_groups(0.1)
    assert len(group["params"]) == 46 and group["lr"] == 0.1


def test_skipped_draws_nothing_and_ends_with_its_block() -> None:
    state = random_state()
    with init.skipped(), init.skipped():
        models.UNet(base=2)
    assert random_state() == state
    with pytest.raises(RuntimeError), init.skipped():
        raise RuntimeError
    weights = models.UNet(base=2).encoder[0][0].weight.numpy()
    assert random_state() != state and weights.std() > 0.1
