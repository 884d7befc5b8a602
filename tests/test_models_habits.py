"""What who comes from PyTorch does with networks beside the usual: freezing, starting anew, hooks, heads that end in a softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, models, nn, no_grad


def images(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


NETWORKS: dict[str, Callable[[], Any]] = {
    "unet": lambda: models.UNet(2, 3, base=2, depth=2, padding="same", norm="batch"),
    "fcn8s": lambda: models.FCN8sAtOnce(3, 2, width=1, pad=1, fc_kernel=1, learn_upsampling=True),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("frozen", ["all", "weights", "biases", "first half", "none"])
def test_frozen_parameters_and_statistics_are_not_reset(name: str, frozen: str) -> None:
    network = NETWORKS[name]()
    state = list(network.state_dict())
    for tensor in [*network.parameters(), *network.buffers()]:
        tensor.data = np.full(tensor.shape, 7, tensor.dtype)
    parameters = dict(network.named_parameters())
    half = {"all": list(parameters), "first half": list(parameters)[: len(parameters) // 2], "none": []}
    still = half.get(frozen, [n for n in parameters if n.endswith("weight") == (frozen == "weights")])
    for n, p in parameters.items():
        if "scale" not in n:  # never trained
            p.requires_grad_(n not in still)
    network.reset_parameters()
    values = {n: np.unique(array) for n, array in network.state_dict().items()}
    assert list(values) == state
    for n in parameters:
        assert (values[n].tolist() == [7]) == (n in still or "scale" in n), n
    for n, _ in network.named_buffers():
        weight = n.rpartition(".")[0] + ".weight"
        assert (values[n].tolist() == [7]) == (weight in still), n


def test_a_new_fcn_has_its_constants() -> None:
    network = models.FCN8sAtOnce(3, 2, width=1, pad=1, fc_kernel=1)
    assert np.allclose(network.scale_pool4.weight.numpy(), 0.01) and np.allclose(network.scale_pool3.weight.numpy(), 1e-4)
    up = network.upscore2.weight.numpy()  # (3, 3, 4, 4): dense, as published
    np.testing.assert_allclose(up[1, 1], np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]))
    assert not network.upscore2.weight.requires_grad and not network.score_fr.weight.numpy().any()


@pytest.mark.parametrize("other", [NETWORKS["unet"], lambda: nn.Linear(2, 3)])
def test_only_an_fcn_is_a_coarser_fcn(other: Callable[[], Any]) -> None:
    network = models.FCN16s(3, 2, width=1, pad=1, fc_kernel=1)
    with pytest.raises(TypeError, match="^load_coarser: FCN16s takes the weights of a coarser FCN, got (UNet|Linear)$"):
        network.load_coarser(other())


@pytest.mark.parametrize("make", [*NETWORKS.values(), lambda: models.SegNetBasic(2, 3, width=2)], ids=[*NETWORKS, "segnet_basic"])
def test_hooks_on_layers_are_called_once_each(make: Callable[[], Any]) -> None:
    network = make().eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ReLU | nn.BatchNorm2d | nn.MaxPool2d)]
    seen: list[nn.Module] = []
    for layer in layers:
        layer.register_forward_hook(lambda m, x, y: seen.append(m))
    x = images(1, network.in_channels, 32, 40)
    with no_grad():
        network(x)
    uses = {id(m): sum(s is m for s in seen) for m in layers}
    assert all(n == 1 for m, n in zip(layers, uses.values(), strict=True) if not isinstance(m, nn.MaxPool2d | nn.ReLU))
    assert all(uses.values())


def test_an_array_in_place_of_a_tensor_is_told() -> None:
    with pytest.raises(TypeError, match=r"^UNet: input must be a Tensor, got ndarray; wrap arrays as minidcnn\.Tensor\(array\)$"):
        NETWORKS["unet"]()(np.zeros((1, 2, 8, 8), np.float32))


@pytest.mark.parametrize("end", [nn.LogSoftmax(dim=-1), nn.Softmax(dim=-1), nn.Softmax(dim=1), nn.Softmax()])
def test_a_head_that_ends_in_a_softmax_goes_over_the_classes_of_each_pixel(end: nn.Module) -> None:
    minidcnn.manual_seed(0)
    classifier = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 4), nn.ReLU(), nn.Linear(4, 5), end)
    x, dim = images(2, 2, 7, 9), end.dim
    heat = models.convolutionalize(classifier)(x)
    assert heat.shape == (2, 5, 3, 5) and classifier[-1].dim == dim
    for row, column in ((0, 0), (2, 1), (1, 4)):
        crop = classifier(x[:, :, row : row + 5, column : column + 5])
        np.testing.assert_allclose(heat.numpy()[:, :, row, column], crop.numpy(), rtol=1e-5, atol=1e-6)
