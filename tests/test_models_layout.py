"""What the networks are made of: parameter counts and names, constructors, geometry. Nothing is drawn, nothing computed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, models, nn
from minidcnn.models.geometry import Placement, size_behind, window_of
from minidcnn.nn import init
from minidcnn.window import Window


@pytest.fixture(autouse=True)
def _undrawn() -> Iterator[None]:
    """Weights stay uninitialised memory: a network of 138 million parameters takes milliseconds, and no memory."""
    with init.skipped():
        yield


def counts(network: nn.Module) -> tuple[int, int]:
    """All parameters, and the learned ones."""
    sizes = [(p.size, p.requires_grad) for p in network.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learned in sizes if learned)


# -- counts ----------------------------------------------------------------------------------------------------------------------

COUNTS: list[tuple[Callable[[], nn.Module], int, int]] = [
    (lambda: models.FCN32s(21), 136_152_917, 134_346_581),
    (lambda: models.FCN16s(21), 134_815_994, 134_357_354),
    (lambda: models.FCN8s(21), 134_489_759, 134_362_751),
    (lambda: models.FCN8sAtOnce(21), 134_490_527, 134_362_751),
    (lambda: models.FCNAlexNet(21), 58_704_590, 56_954_261),
    (lambda: models.FCN32s(21, learn_upsampling=True), 136_152_917, 136_152_917),
    (lambda: models.SegNet(3, 11), 29_449_355, 29_449_355),
    (lambda: models.SegNet(3, 21, bayesian=True), 29_455_125, 29_455_125),
    (lambda: models.SegNetBasic(3, 11), 1_416_587, 1_416_587),
    (lambda: models.SegNetBasic(3, 21), 1_417_237, 1_417_237),
    (lambda: models.UNet(1, 2), 31_030_658, 31_030_658),
    (lambda: models.UNet(3, 1, padding="same", norm="batch"), 31_037_633, 31_037_633),
    (lambda: models.UNet(3, 2, padding="same", norm="batch"), 31_037_698, 31_037_698),
    (lambda: models.UNet(3, 1, padding="same", norm="batch", upsample="bilinear"), 17_262_977, 17_262_977),
    (lambda: models.UNet(3, 2, padding="same", norm="batch", upsample="bilinear"), 17_263_042, 17_263_042),
    (lambda: models.AlexNet(1000), 61_100_840, 61_100_840),
    (lambda: models.CaffeNet(1000), 60_965_224, 60_965_224),
    (lambda: models.VGG11(1000), 132_863_336, 132_863_336),
    (lambda: models.VGG13(1000), 133_047_848, 133_047_848),
    (lambda: models.VGG16(1000), 138_357_544, 138_357_544),
    (lambda: models.VGG19(1000), 143_667_240, 143_667_240),
    (lambda: models.VGG11(1000, norm="batch"), 132_868_840, 132_868_840),
    (lambda: models.VGG13(1000, norm="batch"), 133_053_736, 133_053_736),
    (lambda: models.VGG16(1000, norm="batch"), 138_365_992, 138_365_992),
    (lambda: models.VGG19(1000, norm="batch"), 143_678_248, 143_678_248),
]


@pytest.mark.parametrize("make, total, learned", COUNTS, ids=[str(total) for _, total, _ in COUNTS])
def test_parameter_counts_are_the_published_ones(make: Callable[[], nn.Module], total: int, learned: int) -> None:
    assert counts(make()) == (total, learned)


def test_defaults_are_the_papers() -> None:
    assert counts(models.FCN8s()) == counts(models.FCN8s(21))
    assert counts(models.SegNet()) == counts(models.SegNet(3, 11))
    assert counts(models.SegNetBasic()) == counts(models.SegNetBasic(3, 11))
    assert counts(models.UNet()) == counts(models.UNet(1, 2, 64))


def test_the_23_convolutions_of_unet() -> None:
    convs = [m for m in models.UNet().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convs) == 23
    assert max(m.out_channels for m in convs) == 1024


@pytest.mark.parametrize("make", [lambda w: models.VGG16(10, width=w), lambda w: models.FCN8s(4, width=w), lambda w: models.UNet(base=w)])
def test_width_scales_all_channels(make: Callable[[int], nn.Module]) -> None:
    shapes = [[p.shape for p in make(w).parameters()] for w in (2, 4)]
    for narrow, wide in zip(*shapes, strict=True):
        assert all(b in (a, 2 * a) for a, b in zip(narrow, wide, strict=True))


# -- names -------------------------------------------------------------------------------------------------------------------------

# torchvision's layouts: positions of the layers with weights, and their shapes
ALEXNET = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}
VGG_CONVS = {
    models.VGG11: ([0, 3, 6, 8, 11, 13, 16, 18], [0, 4, 8, 11, 15, 18, 22, 25]),
    models.VGG13: ([0, 2, 5, 7, 10, 12, 15, 17, 20, 22], [0, 3, 7, 10, 14, 17, 21, 24, 28, 31]),
    models.VGG16: ([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]),
    models.VGG19: (
        [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
        [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49],
    ),
}
VGG_LINEARS = {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}
VGG_CHANNELS = {8: [64, 128, 256, 256, 512, 512, 512, 512], 10: [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]}
VGG_CHANNELS[13] = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
VGG_CHANNELS[16] = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, _, _, tensor in network.named_state()}


def with_biases(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.{kind}": shape if kind == "weight" else shape[:1] for layer, shape in weights.items() for kind in ("weight", "bias")}


def test_alexnet_has_torchvisions_names_and_shapes() -> None:
    assert shapes(models.AlexNet()) == with_biases(ALEXNET)


@pytest.mark.parametrize("kind", VGG_CONVS, ids=lambda kind: kind.__name__)
def test_vgg_has_torchvisions_names_and_shapes(kind: type[models.VGG]) -> None:
    plain, normed = VGG_CONVS[kind]
    channels = VGG_CHANNELS[len(plain)]
    before = [3, *channels]
    convs = {f"features.{i}": (c, b, 3, 3) for i, c, b in zip(plain, channels, before, strict=False)}
    assert shapes(kind()) == with_biases({**convs, **VGG_LINEARS})
    expected: dict[str, tuple[int, ...]] = {}
    for i, c, b in zip(normed, channels, before, strict=False):
        expected |= with_biases({f"features.{i}": (c, b, 3, 3)})
        expected |= {f"features.{i + 1}.{name}": (c,) for name in ("weight", "bias", "running_mean", "running_var")}
        expected[f"features.{i + 1}.num_batches_tracked"] = ()
    assert shapes(kind(norm="batch")) == {**expected, **with_biases(VGG_LINEARS)}


def test_fcn_has_the_trunk_of_vgg_and_segnet_that_of_vgg_with_batch_norm() -> None:
    """So their weights load by name; of the classifier only the last layer is missing, and linear layers are convolutions."""
    vgg, fcn = shapes(models.VGG16()), shapes(models.FCN8s())
    own = {k: v for k, v in fcn.items() if not k.startswith(("score", "upscore"))}
    assert set(own) == {k for k in vgg if not k.startswith("classifier.6")}
    assert all(np.prod(vgg[k]) == np.prod(own[k]) and (vgg[k] == own[k] or k.startswith("classifier")) for k in own)
    segnet = {k: v for k, v in shapes(models.SegNet()).items() if k.startswith("features")}
    assert segnet == {k: v for k, v in shapes(models.VGG16(norm="batch")).items() if k.startswith("features")}


def test_fcn_names_its_own_layers_as_published() -> None:
    def own(network: nn.Module) -> dict[str, tuple[int, ...]]:
        return {k: v for k, v in shapes(network).items() if k.startswith(("score", "upscore", "scale"))}

    scores = {"score_fr.weight": (21, 4096, 1, 1), "score_fr.bias": (21,)}
    pool4 = {"score_pool4.weight": (21, 512, 1, 1), "score_pool4.bias": (21,)}
    pool3 = {"score_pool3.weight": (21, 256, 1, 1), "score_pool3.bias": (21,)}
    assert own(models.FCN32s()) == {**scores, "upscore.weight": (21, 21, 64, 64)}
    assert own(models.FCN16s()) == {**scores, **pool4, "upscore2.weight": (21, 21, 4, 4), "upscore16.weight": (21, 21, 32, 32)}
    ups = {"upscore2.weight": (21, 21, 4, 4), "upscore_pool4.weight": (21, 21, 4, 4), "upscore8.weight": (21, 21, 16, 16)}
    assert own(models.FCN8s()) == {**scores, **pool4, **pool3, **ups}
    scales = {"scale_pool4.weight": (512,), "scale_pool3.weight": (256,)}
    assert own(models.FCN8sAtOnce()) == {**scores, **pool4, **pool3, **ups, **scales}
    assert own(models.FCNAlexNet()) == {**scores, "upscore.weight": (21, 21, 63, 63)}


# -- constructors ----------------------------------------------------------------------------------------------------------------

FCN = {"in_channels": 4, "classes": 3, "fc_kernel": 3, "dropout": 0.25, "learn_upsampling": True}
SMALL: dict[str, dict[str, Any]] = {
    "unet": {
        "in_channels": 4,
        "classes": 3,
        "base": 2,
        "padding": "same",
        "norm": "batch",
        "upsample": "bilinear",
        "depth": 2,
        "dropout": 0.25,
    },
    "segnet": {"in_channels": 4, "classes": 3, "width": 2, "bayesian": True, "dropout": 0.25, "eps": 1e-5},
    "segnet_basic": {"in_channels": 4, "classes": 3, "width": 2, "bayesian": True, "dropout": 0.25, "eps": 1e-5},
    **{name: {**FCN, "width": 2, "pad": 33} for name in ("fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once")},
    "fcn_alexnet": {**FCN, "width": 6, "pad": 120},
}


def test_every_model_is_registered() -> None:
    assert {name: kind.__name__ for name, kind in models.MODELS.items()} == {
        "unet": "UNet",
        "segnet": "SegNet",
        "segnet_basic": "SegNetBasic",
        "fcn32s": "FCN32s",
        "fcn16s": "FCN16s",
        "fcn8s": "FCN8s",
        "fcn8s_at_once": "FCN8sAtOnce",
        "fcn_alexnet": "FCNAlexNet",
    }


@pytest.mark.parametrize("name", SMALL)
def test_config_builds_the_same_network_again(name: str) -> None:
    """Every argument of the constructor is in `config`, none at its default here, and survives JSON."""
    kind = models.MODELS[name]
    assert set(inspect.signature(kind).parameters) == set(SMALL[name])
    assert all(p.default != SMALL[name][key] for key, p in inspect.signature(kind).parameters.items())
    first = models.create_model(name, **SMALL[name])
    assert type(first) is kind and first.name == name and first.config == SMALL[name]
    assert (first.in_channels, first.classes) == (4, 3)
    again = models.create_model(first.name, **json.loads(json.dumps(first.config)))
    assert repr(again) == repr(first) and shapes(again) == shapes(first)


def test_create_model_names_the_models_there_are() -> None:
    with pytest.raises(ValueError, match=r'no model "resnet"; known are fcn16s, .*unet'):
        models.create_model("resnet")


def test_numpys_numbers_become_pythons_in_the_config() -> None:
    """Which is saved as JSON with every checkpoint."""
    network = models.UNet(np.int64(1), np.array(2), base=np.int64(2), depth=np.int8(2), dropout=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(network.config)) == models.UNet(1, 2, base=2, depth=2, dropout=0.5).config
    assert type(network.classes) is int


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: models.UNet(0, 2), "UNet: in_channels must be an integer of at least 1, got 0"),
        (lambda: models.UNet(1, 2.0), "UNet: classes must be an integer of at least 1, got 2.0"),  # type: ignore[arg-type]
        (lambda: models.UNet(1, 2, base=True), "UNet: base must be an integer of at least 1, got True"),
        (lambda: models.UNet(depth=0), "UNet: depth must be"),
        (lambda: models.UNet(padding="full"), 'UNet: padding must be "valid" or "same", got \'full\''),
        (lambda: models.UNet(norm="group"), "UNet: norm must be None or \"batch\", got 'group'"),
        (lambda: models.UNet(upsample="nearest"), 'UNet: upsample must be "transpose" or "bilinear"'),
        (lambda: models.UNet(dropout=1.0), "UNet: dropout must be at least 0 and below 1, got 1.0"),
        (lambda: models.UNet(dropout=None), "UNet: dropout must be at least 0 and below 1, got None"),  # type: ignore[arg-type]
        (lambda: models.UNet(dropout="0.5"), "UNet: dropout must be at least 0 and below 1, got '0.5'"),  # type: ignore[arg-type]
        (lambda: models.SegNet(width=0), "SegNet: width must be"),
        (lambda: models.SegNetBasic(bayesian=True, dropout=-0.1), "SegNetBasic: dropout must be"),
        (lambda: models.VGG16(norm="same"), "VGG16: norm must be"),
        (lambda: models.VGG11(0), "VGG11: classes must be"),
        (lambda: models.AlexNet(width=0), "AlexNet: width must be"),
        (lambda: models.CaffeNet(width=64), "width must be a multiple of 6"),
        (lambda: models.FCNAlexNet(width=64), "width must be a multiple of 6"),
        (lambda: models.FCN8s(width=0), "FCN8s: width must be"),
        (lambda: models.FCN8s(fc_kernel=0), "FCN8s: fc_kernel must be"),
    ],
)
def test_arguments_out_of_range_are_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- geometry ----------------------------------------------------------------------------------------------------------------------


def test_crop_offsets_are_the_published_ones() -> None:
    assert models.FCN32s(width=1).offsets == (19,)
    assert models.FCN16s(width=1).offsets == (5, 27)
    assert models.FCN8s(width=1).offsets == models.FCN8sAtOnce(width=1).offsets == (5, 9, 31)
    assert models.FCNAlexNet(width=6).offsets == (18,)


@pytest.mark.parametrize("kind, less", [(models.FCN32s, 81), (models.FCN16s, 73), (models.FCN8s, 69)])
def test_only_the_last_offset_depends_on_the_padding(kind: Any, less: int) -> None:
    for pad in (97, 113, 150):
        offsets = kind(width=1, pad=pad).offsets
        assert offsets[:-1] == kind(width=1).offsets[:-1] and offsets[-1] == pad - less


def test_the_way_to_19() -> None:
    """The fractions on the way through FCN-32s: 99 behind conv1_1, 49.25 behind pool1, -25/64 behind fc6, 19 at last."""
    network = models.FCN32s(width=1)
    layers = list(network.features)
    assert Placement().through(layers[:1]).shift == 99
    assert Placement().through(layers[:5]) == Placement(Fraction(1, 2), Fraction("49.25"))
    deep = Placement().through(layers)
    assert deep.scale == Fraction(1, 32) and round(float(deep.shift), 3) == 2.609
    fc6 = deep.through(network.classifier)
    assert fc6 == Placement(Fraction(1, 32), Fraction(-25, 64))
    assert fc6.through([network.score_fr, network.upscore]) == Placement(Fraction(1), Fraction(19))


@pytest.mark.parametrize(
    "layer, axis",
    [(nn.Conv2d(1, 1, (3, 4), (2, 3), (1, 0), (2, 1)), a) for a in (0, 1)]
    + [(nn.ConvTranspose2d(1, 1, (3, 4), (2, 3), (1, 2)), a) for a in (0, 1)]
    + [(nn.AvgPool2d((3, 2), (2, 1), (1, 0)), a) for a in (0, 1)]
    + [(nn.Conv2d(1, 1, (3, 5), padding="same", dilation=(2, 1)), a) for a in (0, 1)],
)
def test_a_placement_is_where_the_centres_of_windows_lie(layer: nn.Module, axis: int) -> None:
    """By computing. Averaging windows turn an image of coordinates into the coordinates of their centres; transposed ones spread a pixel."""
    for kind, value in (("weight", 1.0), ("bias", 0.0)):
        if getattr(layer, kind, None) is not None:
            init.constant_(getattr(layer, kind), value)
    placement = Placement().through([layer], axis)
    coordinates = np.arange(24, dtype=np.float32).reshape((1, 1, 24, 1) if axis == 0 else (1, 1, 1, 24)) * np.ones(
        (1, 1, 24, 24), np.float32
    )
    if isinstance(layer, nn.ConvTranspose2d):
        for x in range(5, 15):
            spread = layer(Tensor((coordinates == x).astype(np.float32))).numpy()[0, 0].sum(1 - axis)
            centre = (spread * np.arange(len(spread))).sum() / spread.sum()
            np.testing.assert_allclose(centre, float(placement.scale * x + placement.shift), rtol=1e-5)
    else:
        centres = layer(Tensor(coordinates)).numpy()[0, 0] / (1 if isinstance(layer, nn.AvgPool2d) else window_of(layer).taps)  # type: ignore[union-attr]
        line = centres[:, 4] if axis == 0 else centres[4]
        for i in range(3, len(line) - 3):
            np.testing.assert_allclose(float(placement.scale) * line[i] + float(placement.shift), i, rtol=1e-5)


def test_maps_that_cropping_cannot_match() -> None:
    half = Placement().through([nn.MaxPool2d(2)])
    with pytest.raises(ValueError, match=r"1/2 x \+ -1/4 and at 1 x \+ 0 cannot be matched by cropping"):
        half.offset(Placement())
    with pytest.raises(ValueError, match="cannot be matched"):
        half.offset(Placement(Fraction(1, 2), Fraction(0)))


def test_windows_of_layers() -> None:
    assert window_of(nn.ReLU()) is None
    assert window_of(nn.Conv2d(1, 1, 3, padding="valid")) == Window((3, 3))
    assert window_of(nn.Conv2d(1, 1, (3, 5), padding="same")) == Window((3, 5), padding=(1, 2))
    assert window_of(nn.MaxPool2d(3, 2, 1, ceil_mode=True)) == Window((3, 3), (2, 2), (1, 1), ceil_mode=True)
    with pytest.raises(ValueError, match="not the same on both sides"):
        window_of(nn.Conv2d(1, 1, 4, padding="same"))
    assert size_behind([nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(1, 1, 4, 2)], 11) == 10
    assert size_behind([nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)], 3) == 0


def test_padding_100_and_rounding_up_cover_every_size() -> None:
    """Every size from 1 to 1024 is covered. If poolings rounded down, FCN-32s could not run on 25 of them, and 372 would come out short."""
    network = models.FCN32s(width=1)
    layers = [*network.features, *network.classifier, network.score_fr, network.upscore]
    assert all(size_behind(layers, n) - 19 >= n for n in range(1, 1025))
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = False
    sizes = {n: size_behind(layers, n) for n in range(1, 1025)}
    assert [n for n, size in sizes.items() if not size] == list(range(1, 26))
    assert sum(0 < size < n + 19 for n, size in sizes.items()) == 372


@pytest.mark.parametrize(
    "kind, options, least",
    [
        (models.FCN32s, {"pad": 60}, 97),
        (models.FCN16s, {"pad": 96}, 97),
        (models.FCN8s, {"pad": 0, "fc_kernel": 1}, 1),
        (models.FCN8s, {"pad": 1, "fc_kernel": 3}, 33),
        (models.FCNAlexNet, {"pad": 98, "width": 6}, 99),
    ],
)
def test_padding_that_leaves_images_uncovered_is_refused(kind: Any, options: dict[str, int], least: int) -> None:
    options = {"width": 1, **options}
    with pytest.raises(ValueError, match=f"does not cover the whole image; use pad={least} or more"):
        kind(**options)
    network = kind(**{**options, "pad": least})
    assert network.config["pad"] == least and network.features[0].padding == (least, least)


def test_receptive_fields() -> None:
    """VGG16's last pooling sees 212 pixels, 32 apart, the first layer of the classifier 404; the paper's U-Net is no wider than 204."""
    rows = {row.name: row for row in nn.summary(models.FCN8s(), (1, 3, 500, 375)).rows}
    assert rows["features.30"].field.size == (212, 212) and rows["features.30"].field.jump == (32, 32)  # type: ignore[union-attr]
    assert rows["classifier.0"].field.size == (404, 404)  # type: ignore[union-attr]
    assert rows["upscore8"].output_shape[0] == 1 and rows["upscore8"].field.jump == (1, 1)  # type: ignore[union-attr]
    unet = nn.summary(models.UNet(), (1, 1, 572, 572)).rows
    assert next(row for row in unet if row.name == "encoder.4.3").field.size == (140, 140)  # type: ignore[union-attr]
    assert unet[-1].field.size == (204, 204) and unet[-1].output_shape == (1, 2, 388, 388)  # type: ignore[union-attr]


def test_maps_of_other_resolutions_are_not_matched_by_cropping() -> None:
    with pytest.raises(ValueError, match="cannot be matched by cropping"):
        Placement(Fraction(1), Fraction(1)).offset(Placement(Fraction(1, 2), Fraction(0)))
