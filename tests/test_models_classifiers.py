"""Classifiers as fully convolutional networks: the heat map against the classifier on every crop; weights that come from classifiers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, models, nn, no_grad
from minidcnn.models import Classifier, convolutionalize

Array = np.ndarray[Any, Any]


def spread(network: nn.Module, rng: np.random.Generator) -> None:
    """Biases, and statistics of batch norm, that are not all the same."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name.endswith(("bias", "running_mean")):
            tensor._array[...] = rng.normal(0, 0.1, tensor.shape)
        elif name.endswith("running_var"):
            tensor._array[...] = rng.uniform(0.5, 2, tensor.shape)


# side of the crop for which each network, without padding, has just the map that its linear layers see; distance of the crops
UNPADDED: dict[str, tuple[Callable[[], Classifier], int, int]] = {
    "alexnet": (lambda: models.AlexNet(3, 2, width=1, padded=False), 355, 32),
    "caffenet": (lambda: models.CaffeNet(3, 2, width=6, hidden=8, padded=False), 355, 32),
    "vgg11": (lambda: models.VGG11(3, 2, width=1, padded=False), 342, 32),
    "vgg16-batch": (lambda: models.VGG16(3, 2, width=1, norm="batch", padded=False), 404, 32),
}


@pytest.mark.parametrize("name", UNPADDED)
def test_the_heat_map_is_the_classifier_on_every_crop(name: str, rng: np.random.Generator) -> None:
    make, side, step = UNPADDED[name]
    classifier = make().double().eval()
    spread(classifier, rng)
    spare = 0 if name == "caffenet" else 5  # its poolings round up: a few more pixels make one more, incomplete, crop
    image = rng.standard_normal((1, 2, side + step + spare, side + 2 * step))
    with no_grad():
        heat = convolutionalize(classifier)(Tensor(image)).numpy()
        assert heat.shape == (1, 3, 2, 3)
        assert heat.std() > 1e-3
        for i in range(2):
            for j in range(3):
                crop = image[:, :, i * step : i * step + side, j * step : j * step + side]
                np.testing.assert_allclose(classifier(Tensor(crop.copy())).numpy(), heat[:, :, i, j], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "make, side",
    [
        (lambda: models.AlexNet(3, width=1), 224),
        (lambda: models.CaffeNet(3, width=6, hidden=8), 227),
        (lambda: models.VGG11(3, width=1), 224),
        (lambda: models.VGG16(3, width=1, norm="batch"), 224),
    ],
)
def test_padded_networks_agree_on_the_image_they_are_made_for(make: Callable[[], Classifier], side: int, rng: np.random.Generator) -> None:
    classifier = make().double().eval()
    spread(classifier, rng)
    image = Tensor(rng.standard_normal((2, 3, side, side)))
    with no_grad():
        heat = convolutionalize(classifier)(image)
        assert heat.shape == (2, 3, 1, 1)
        np.testing.assert_allclose(classifier(image).numpy(), heat.numpy()[:, :, 0, 0], rtol=1e-9, atol=1e-12)


def test_inside_the_image_fcns_trunk_is_the_unpadded_classifier_on_its_receptive_field(rng: np.random.Generator) -> None:
    """FCN-32s scores at (i, j) what VGG16 without padding says of the 404 pixels around: pad 100 moves the crops, nothing else."""
    bare = models.VGG16(3, 2, width=1, padded=False).double().eval()
    spread(bare, rng)
    fcn = models.FCN32s(3, 2, width=1).double().eval().load_trunk(bare)
    fcn.score_fr.load_state_dict({"weight": bare.classifier[6].weight.numpy()[:, :, None, None], "bias": bare.classifier[6].bias.numpy()})
    image = rng.standard_normal((1, 2, 530, 500))
    with no_grad():
        scores = fcn.score_fr(fcn.classifier(fcn.features(Tensor(image)))).numpy()
        inside = 0
        for i in range(scores.shape[2]):
            for j in range(scores.shape[3]):
                top, left = 32 * i - 189, 32 * j - 189  # 100, and what the other convolutions pad: 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16
                if min(top, left) >= 0 and top + 404 <= 530 and left + 404 <= 500:
                    inside += 1
                    crop = image[:, :, top : top + 404, left : left + 404].copy()
                    np.testing.assert_allclose(scores[:, :, i, j], bare(Tensor(crop)).numpy(), rtol=1e-9, atol=1e-12)
        assert inside == 12


def test_a_sequential_with_a_flatten_is_a_classifier_too(rng: np.random.Generator) -> None:
    layers = [
        nn.Conv2d(2, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 9, 5),
        nn.Tanh(),
        nn.Linear(5, 3, bias=False),
    ]
    classifier = nn.Sequential(*layers).double().eval()
    spread(classifier, rng)
    image = rng.standard_normal((2, 2, 9, 11))
    heat = convolutionalize(classifier)(Tensor(image)).numpy()
    assert heat.shape == (2, 3, 2, 3)
    for i in range(2):
        for j in range(3):
            crop = image[:, :, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7].copy()
            np.testing.assert_allclose(heat[:, :, i, j], classifier(Tensor(crop)).numpy(), rtol=1e-12, atol=1e-14)


def test_convolutionalize_keeps_names_and_copies_weights() -> None:
    classifier = models.VGG11(3, width=1, norm="batch")
    network = convolutionalize(classifier)
    state = classifier.state_dict()
    assert list(network.state_dict()) == list(state)
    assert network.classifier[0].weight.shape == (64, 8, 7, 7) and network.classifier[3].weight.shape == (64, 64, 1, 1)
    for p in network.parameters():
        p._array[...] = 7
    assert all((value == state[name]).all() for name, value in classifier.state_dict().items())


@pytest.mark.parametrize(
    "classifier, message",
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "Sequential must have Sequentials `features` and `classifier`"),
        (nn.Linear(3, 2), "Linear must have Sequentials"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "must have a convolution among its features"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU()), "and a linear layer behind them"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 6, 3)), "takes 12 numbers, which are no square map of 2 channels"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2 * 9, 3)), "no square map of 2 channels"),
    ],
)
def test_what_is_no_classifier_is_refused(classifier: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convolutionalize(classifier)


# -- weights from classifiers and coarser networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, network",
    [
        (lambda: models.VGG16(5, width=1), lambda: models.FCN32s(3, width=1)),
        (lambda: models.VGG16(5, width=1), lambda: models.FCN8sAtOnce(3, width=1)),
        (lambda: models.CaffeNet(5, width=6), lambda: models.FCNAlexNet(3, width=6)),
    ],
)
def test_fcn_takes_a_classifiers_weights(make: Callable[[], Classifier], network: Callable[[], models.FCN]) -> None:
    classifier, fcn = make(), network()
    before = fcn.state_dict()
    assert fcn.load_trunk(classifier) is fcn
    source = convolutionalize(classifier).state_dict()
    for name, value in fcn.state_dict().items():
        np.testing.assert_array_equal(value, before[name] if name.startswith(("score", "upscore", "scale")) else source[name])
    other = network()  # the other way: by name, from the convolutionalized classifier
    other.load_state_dict({k: v for k, v in source.items() if not k.startswith("classifier.6")}, strict=False)
    assert all((value == fcn.state_dict()[name]).all() for name, value in other.state_dict().items())


def test_classifiers_that_do_not_fit_are_refused() -> None:
    fcn = models.FCN32s(3, width=2)
    before = fcn.state_dict()
    for classifier, message in (
        (models.VGG11(3, width=2), "VGG11 has no features.2.weight, which FCN32s needs"),
        (models.VGG16(3, width=1), "differ: features.0.weight is"),
        (models.VGG16(3, width=2, norm="batch"), "load_trunk: VGG16 has no features.2.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            fcn.load_trunk(classifier)
    with pytest.raises(ValueError, match="differ"):
        models.FCN32s(3, width=2, pad=33, fc_kernel=3).load_trunk(models.VGG16(3, width=2))
    with pytest.raises(ValueError, match="VGG19 has 16 convolutions, SegNet has 13"):
        models.SegNet(width=2).load_trunk(models.VGG19(3, width=2))
    assert all((value == before[name]).all() for name, value in fcn.state_dict().items())


@pytest.mark.parametrize("norm", [None, "batch"])
def test_segnet_takes_the_convolutions_of_vgg16(norm: str | None, rng: np.random.Generator) -> None:
    vgg, segnet = models.VGG16(5, width=1, norm=norm), models.SegNet(3, 4, width=1)
    spread(vgg, rng)
    before = segnet.state_dict()
    assert segnet.load_trunk(vgg) is segnet
    ours, theirs = ([m for m in net.features if isinstance(m, nn.Conv2d)] for net in (segnet, vgg))
    assert len(ours) == len(theirs) == 13
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.weight.numpy(), b.weight.numpy())
        np.testing.assert_array_equal(a.bias.numpy(), b.bias.numpy())
    kept = [name for name in before if norm is None and isinstance(segnet.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)]
    for name in [*kept, *(name for name in before if name.startswith("decoder"))]:
        np.testing.assert_array_equal(segnet.state_dict()[name], before[name])
    if norm == "batch":
        np.testing.assert_array_equal(segnet.features[1].running_var.numpy(), vgg.features[1].running_var.numpy())


def test_finer_fcns_begin_from_coarser_ones(rng: np.random.Generator) -> None:
    """32s -> 16s -> 8s: common layers are taken over, new scores begin at zero, so that the answers are nearly those of the coarser one."""
    coarse = models.FCN32s(3, width=1, learn_upsampling=True).eval()
    for p in coarse.parameters():
        p._array[...] += rng.normal(0, 0.02, p.shape).astype(np.float32)
    middle = models.FCN16s(3, width=1, learn_upsampling=True).eval().load_coarser(coarse)
    middle.upscore2.weight._array[...] *= 1.25
    fine = models.FCN8s(3, width=1, learn_upsampling=True).eval().load_coarser(middle)
    states = [network.state_dict() for network in (coarse, middle, fine)]
    for before, after in pairwise(states):
        common = set(before) & set(after)
        assert len(common) >= 32 and all((before[name] == after[name]).all() for name in common)
    assert (states[2]["upscore2.weight"] == states[1]["upscore2.weight"]).all()
    assert not states[2]["score_pool3.weight"].any() and not states[1]["score_pool4.weight"].any()
    with pytest.raises(ValueError, match="differ"):
        models.FCN16s(4, width=1).load_coarser(coarse)


def test_scores_of_a_constant_map_stay_where_they_are(rng: np.random.Generator) -> None:
    """Bilinear upsampling in one, two or three steps: with the same trunk and zero skips, all give a constant map's score everywhere inside."""
    bias = rng.standard_normal(3).astype(np.float32)
    image = Tensor(rng.standard_normal((1, 3, 90, 70)).astype(np.float32))
    for kind in (models.FCN32s, models.FCN16s, models.FCN8s, models.FCN8sAtOnce):
        network = kind(3, width=1).eval()
        network.score_fr.bias._array[...] = bias
        scores = network(image).numpy()
        np.testing.assert_allclose(scores[0, :, 32:-32, 32:-32], np.broadcast_to(bias[:, None, None], (3, 26, 6)), rtol=1e-5)
