"""Prediction of images of any size: sizes, mirrored borders, tiles without seams, flips, bounded memory, errors."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from cupy_stand_in import make_module
from hypothesis import given
from hypothesis import strategies as st

import minidcnn
from minidcnn import functional as F
from minidcnn import models, nn
from minidcnn.backend import switch
from minidcnn.segmentation import predict_mask, scores
from minidcnn.segmentation.predict import smallest_tile, usual_tile, whole_scores
from minidcnn.segmentation.tiles import cut, mirrored, tile_and_period


class Net(nn.Module):
    """A little U-Net of one pooling by 4 with what the models promise: in_channels, classes, margin, suitable_size.

    kind: "padded" takes multiples of 4; "any" takes every size and works on its own padding; "valid" pads nothing and lacks a margin.
    """

    def __init__(self, kind: str = "padded", in_channels: int = 2, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.kind, self.in_channels, self.classes = kind, in_channels, classes
        pad = 0 if kind == "valid" else 1
        self.first = nn.Conv2d(in_channels, width, 3, padding=pad)
        self.pool = nn.MaxPool2d(4)
        self.inner = nn.Conv2d(width, width, 3, padding=pad)
        self.up = nn.ConvTranspose2d(width, width, 4, stride=4)
        self.last = nn.Conv2d(2 * width, classes, 3, padding=pad)
        self.sizes: list[tuple[int, ...]] = []
        self.modes: list[bool] = []
        self.recorded = False

    @property
    def margin(self) -> int:
        return 6 if self.kind == "valid" else 0  # 1 + 4 + 1: one pixel each of first and last, one of inner, four times as large

    def suitable_size(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.kind == "any":
            return size
        if self.kind == "padded":
            return tuple(-(-n // 4) * 4 for n in size)
        return tuple(max(-(-(n - 2) // 4) * 4, 0) + 14 for n in size)  # 4 k + 14 pixels -> 4 k + 2

    def forward(self, x: minidcnn.Tensor) -> minidcnn.Tensor:
        self.sizes.append(x.shape)
        self.modes.append(self.pool.training)
        assert self.kind == "any" or not any((n - (2 if self.kind == "valid" else 0)) % 4 for n in x.shape[2:])
        skip = F.maximum(self.first(x), 0)
        if self.kind == "any":
            h, w = skip.shape[2:]
            skip = F.cat([skip, F.broadcast_to(skip[:, :, -1:], (*skip.shape[:2], -h % 4, w))], 2)
            skip = F.cat([skip, F.broadcast_to(skip[..., -1:], (*skip.shape[:3], -w % 4))], 3)
        deep = self.up(F.maximum(self.inner(self.pool(skip)), 0))
        if self.kind == "valid":
            skip = skip[:, :, 4:-4, 4:-4]
        result = self.last(F.cat([skip, deep], 1))
        self.recorded |= result.requires_grad
        return result[:, :, :h, :w] if self.kind == "any" else result


REACH = 10  # no answer of Net depends on pixels farther away: 1 + 4 + 1, and up to 4 within a pooling window


@pytest.fixture(params=["padded", "any", "valid"])
def net(request: pytest.FixtureRequest) -> Net:
    return Net(request.param)


def image(rng: np.random.Generator, height: int, width: int, n: int = 1) -> np.ndarray:
    return rng.standard_normal((n, 2, height, width)).astype(np.float32)


def alone(net: Net, x: np.ndarray) -> np.ndarray:
    """Probabilities of an input that suits the network, without anything of predict's."""
    z = np.asarray(net(minidcnn.Tensor(x)), np.float64)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# -- cutting ---------------------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 9), before=st.integers(0, 40), after=st.integers(0, 40))
def test_mirrored_is_numpys_reflection(n: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(n), (before, after), "reflect" if n > 1 else "edge")
    np.testing.assert_array_equal(mirrored(np.arange(-before, n + after), n), expected)


@given(size=st.integers(1, 700), tile=st.integers(76, 300), kind=st.sampled_from(["padded", "any", "valid"]))
def test_windows_cover_the_axis_once(size: int, tile: int, kind: str) -> None:
    net = Net(kind)
    axis = cut(size, lambda n: net.suitable_size((n, 1))[0], net.margin, tile)
    total = np.zeros(size)
    for i, (begin, end) in enumerate(axis.windows):
        taken = end - begin + 2 * net.margin
        assert taken <= tile and net.suitable_size((end - begin, 1))[0] == taken
        assert begin % (32 if kind == "any" else 4) == 0 and len(axis.source(i)) == taken
        source, target = axis.target(i)
        total[target] += axis.weights(i)[source]
        assert (np.arange(size)[target] == axis.source(i)[net.margin : taken - net.margin][source]).all()  # answers land where they belong
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    bands = axis.bands()
    assert [*bands[0][:1], *(stop for _, stop in bands)] == sorted({0, size, *(stop for _, stop in bands)})
    assert max(len(axis.meeting(*band)) for band in bands) <= 4
    if net.margin == 0 and size > 2 * tile:
        assert all(axis.windows[i][1] - axis.windows[i + 1][0] >= 16 for i in range(len(axis.windows) - 1))  # neighbours overlap


@pytest.mark.parametrize(
    ("margin", "tile", "shared"), [(0, 512, 128), (0, 256, 128), (0, 200, 100), (0, 96, 48), (6, 110, 2)]
)  # half a tile at most; with a margin, answers are exact to the edge, and windows only begin at multiples of 4
def test_neighbours_share_what_is_promised(margin: int, tile: int, shared: int) -> None:
    net = Net("valid" if margin else "padded")
    windows = cut(3001, lambda n: net.suitable_size((n, 1))[0], margin, tile).windows
    assert {end - begin + 2 * margin for begin, end in windows[:-1]} == {tile}
    ends = [end - begin for (_, end), (begin, _) in pairwise(windows)]
    assert len(ends) > 5 and set(ends[:-1]) == {shared} and ends[-1] >= shared  # the last one ends where the image does


def test_a_window_fades_over_all_that_it_shares() -> None:
    axis = cut(800, lambda n: -(-n // 4) * 4, 0, 512)
    assert axis.windows == ((0, 512), (288, 800))
    t = (np.arange(224) + 0.5) / 224
    rising = np.concatenate([3 * t**2 - 2 * t**3, np.ones(288)])
    np.testing.assert_allclose(axis.weights(1), rising, rtol=1e-6)
    np.testing.assert_allclose(axis.weights(0), rising[::-1], rtol=1e-6)


@pytest.mark.parametrize("least", [1, 40])
def test_no_tile_is_smaller_than_a_network_takes_that_takes_every_size_above(least: int) -> None:
    tile = tile_and_period(lambda n: max(n, least), 0)[0]
    for size in range(tile + 1, 5 * tile):
        assert all(least <= end - begin <= tile for begin, end in cut(size, lambda n: max(n, least), 0, tile).windows)


# -- sizes -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (13, 4), (8, 12), (31, 57)])
def test_any_size_comes_back_at_its_own_size(net: Net, size: tuple[int, int], rng: np.random.Generator) -> None:
    x = image(rng, *size)
    result = scores(net, x)
    assert result.shape == (1, 3, *size) and result.dtype == np.float32
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)
    mask = predict_mask(net, x[0])
    assert mask.shape == size and mask.dtype == np.int64
    np.testing.assert_array_equal(mask, result[0].argmax(axis=0))


def test_a_suitable_image_is_the_network_itself(rng: np.random.Generator) -> None:
    net = Net("padded")
    x = image(rng, 12, 20, n=2)
    np.testing.assert_allclose(scores(net, x), alone(net, x), rtol=1e-5)


def test_other_sizes_are_padded_by_mirroring(rng: np.random.Generator) -> None:
    net = Net("padded")
    x = image(rng, 9, 14)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 1)), "reflect")  # 9 -> 12, 14 -> 16, the image in the middle
    np.testing.assert_allclose(scores(net, x), alone(net, padded)[:, :, 1:10, 1:15], rtol=1e-5)


def test_without_padding_the_margin_is_mirrored(rng: np.random.Generator) -> None:
    net = Net("valid")
    x = image(rng, 5, 10)
    padded = np.pad(x, ((0, 0), (0, 0), (6, 7), (6, 6)), "reflect")  # answers for 6 x 10; 5 rows need 17 + 1 pixels, mirrored twice
    assert padded.shape[2:] == (18, 22)
    np.testing.assert_allclose(scores(net, x), alone(net, padded)[:, :, :5], rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_whole_scores_are_scores(double: bool, net: Net, rng: np.random.Generator) -> None:
    model, x = net.double() if double else net, image(rng, 13, 30, n=2)
    for images in (x, x[:0]):
        found, expected = whole_scores(model, images), scores(model, images)
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_images_become_what_the_network_is_made_of(dtype: type, rng: np.random.Generator) -> None:
    net, x = Net("padded"), image(rng, 9, 14).astype(dtype)
    seen = set()
    net.first.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    for function in (scores, whole_scores):
        np.testing.assert_array_equal(function(net, x), function(net, x.astype(np.float32)))
    assert seen == {np.dtype(np.float32)}


def test_of_equal_classes_the_first_wins(net: Net, rng: np.random.Generator) -> None:
    net.last.weight.data[:] = 0
    net.last.bias.data[:] = (-1, 2, 2)
    for options in ({}, {"tile": 64}, {"flips": True}):
        assert (predict_mask(net, image(rng, 70, 11)[0], **options) == 1).all()


def test_images_together_are_as_images_alone(net: Net, rng: np.random.Generator) -> None:
    x = image(rng, 70, 11, n=3)
    for options in ({}, {"tile": 64}, {"flips": True}):
        np.testing.assert_allclose(scores(net, x, **options), np.concatenate([scores(net, one[None], **options) for one in x]), rtol=2e-5)
    net.sizes.clear()
    scores(net, x)
    assert [s[0] for s in net.sizes] == [3]  # one run for all, since nothing was cut
    assert scores(net, x[:0]).shape == (0, 3, 70, 11)


# -- tiles -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 131), (64, 200), (30, 90)])
def test_tiles_without_padding_equal_the_whole(size: tuple[int, int], rng: np.random.Generator) -> None:
    net = Net("valid").double()
    x = image(rng, *size).astype(np.float64)
    whole = scores(net, x)
    net.sizes.clear()
    tiled = scores(net, x, tile=48)
    assert len(net.sizes) > 2 and all(max(s[2:]) <= 48 for s in net.sizes)
    np.testing.assert_allclose(tiled, whole, rtol=1e-6)
    np.testing.assert_array_equal(predict_mask(net, x[0], tile=48), whole[0].argmax(axis=0))


@pytest.mark.parametrize("kind", ["padded", "any"])
def test_tiles_equal_the_whole_away_from_their_borders(kind: str, rng: np.random.Generator) -> None:
    """Where only tiles count whose border is farther than the network sees, the result is exactly that of the whole image."""
    net = Net(kind).double()
    x = image(rng, 100, 203).astype(np.float64)
    whole, tiled = scores(net, x), scores(net, x, tile=96)
    exact = np.ones(x.shape[2:], bool)
    for axis, size in enumerate(x.shape[2:]):
        cuts = cut(size, lambda n: net.suitable_size((n, n))[0], 0, 96)
        near = np.zeros(size, bool)
        for begin, end in cuts.windows:
            inside = np.arange(size) + cuts.offset
            near |= (begin > 0) & (inside >= begin) & (inside < begin + REACH)
            near |= (end < size) & (inside < end) & (inside >= end - REACH)
        exact &= ~(near[:, None] if axis == 0 else near)
    assert 0.3 < exact.mean() < 0.95
    np.testing.assert_allclose(tiled[0][:, exact], whole[0][:, exact], rtol=1e-6)
    assert abs(tiled - whole).max() > 1e-4  # elsewhere the padding shows a little: the comparison above is no tautology


@pytest.mark.parametrize("kind", ["padded", "any"])
def test_seams_do_not_show(kind: str) -> None:
    """On a constant image the whole's answer is constant inside; in the tiled one, no step from pixel to pixel may stand out.

    Tiles set side by side would step by what the padding changes: the reference for "visible" is that step.
    """
    net = Net(kind)
    x = np.full((1, 2, 260, 70), 0.7, np.float32)
    whole, tiled = scores(net, x)[0], scores(net, x, tile=128)[0]
    inside = np.s_[:, REACH:-REACH, REACH:-REACH]
    steps = abs(np.diff(tiled[inside], axis=1)).max() - abs(np.diff(whole[inside], axis=1)).max()
    visible = abs(whole[:, 0] - whole[:, 130]).max()
    assert visible > 0.02 and steps < 0.05 * visible


def test_a_tile_larger_than_the_image_changes_nothing(net: Net, rng: np.random.Generator) -> None:
    x = image(rng, 21, 33)
    np.testing.assert_array_equal(scores(net, x, tile=64), scores(net, x))


def test_a_tile_as_large_as_the_image_cuts_nothing_however_small_that_is(net: Net, rng: np.random.Generator) -> None:
    x = image(rng, 20, 34) if net.kind == "valid" else image(rng, 20, 36)
    tile = max(net.suitable_size(x.shape[2:]))
    np.testing.assert_array_equal(scores(net, x, tile=tile), scores(net, x))
    assert len(set(net.sizes)) == 1


@pytest.mark.parametrize("flips", [False, True])
def test_memory_does_not_grow_with_the_image(flips: bool) -> None:
    """Beside the mask itself, an image three times as high needs no more memory; its probabilities would."""
    net = Net("padded", classes=32, width=2)

    def peak(height: int) -> int:
        x = np.zeros((2, height, 96), np.float32)
        tracemalloc.start()
        mask = predict_mask(net, x, tile=96, flips=flips)
        result = tracemalloc.get_traced_memory()[1] - mask.nbytes
        tracemalloc.stop()
        return result

    peak(300)  # compiles
    probabilities = 32 * 2 * 400 * 96 * 4  # bytes by which those of all pixels would grow
    assert peak(1200) - peak(400) < 0.05 * probabilities


def test_progress_counts_every_run(net: Net, rng: np.random.Generator) -> None:
    calls: list[tuple[int, int]] = []
    scores(net, image(rng, 130, 40, n=2), tile=64, flips=True, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(net.sizes) + 1))
    assert {total for _, total in calls} == {len(net.sizes)} and len(net.sizes) % 8 == 0 and len(net.sizes) >= 16


# -- flips -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("axis", [2, 3])
def test_flipping_the_image_flips_the_prediction(net: Net, tile: int | None, axis: int, rng: np.random.Generator) -> None:
    x = image(rng, 83, 70)  # suits no network: what is padded differs between the two ends
    there = scores(net, np.flip(x, axis), flips=True, tile=tile)
    np.testing.assert_allclose(np.flip(there, axis), scores(net, x, flips=True, tile=tile), rtol=1e-4, atol=1e-6)
    assert abs(np.flip(scores(net, np.flip(x, axis)), axis) - scores(net, x)).max() > 1e-3  # without, it does not


def test_flips_are_averaged(rng: np.random.Generator) -> None:
    net, x = Net("padded"), image(rng, 8, 12)
    turns = [np.flip(alone(net, np.flip(x, axes)), axes) for axes in ((), (2,), (3,), (2, 3))]
    np.testing.assert_allclose(scores(net, x, flips=True), np.mean(turns, axis=0), rtol=1e-5)


# -- modes, memory layout, errors --------------------------------------------------------------------------------------------------------


def test_the_network_runs_in_eval_mode_and_gets_its_modes_back(rng: np.random.Generator) -> None:
    net = Net("padded").train()
    net.first.eval()  # frozen, as batch norm often is
    scores(net, image(rng, 8, 8))
    assert net.modes == [False] and not net.recorded
    assert net.training and net.pool.training and not net.first.training

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scores(net, image(rng, 8, 8), progress=stop)
    assert net.training and net.pool.training and not net.first.training
    x = minidcnn.Tensor(image(rng, 8, 8))
    assert net(x).requires_grad  # recording goes on, too


def test_predictions_repeat_to_the_bit(net: Net, rng: np.random.Generator) -> None:
    x = image(rng, 80, 90)
    np.testing.assert_array_equal(scores(net, x, tile=64, flips=True), scores(net, x.copy(), tile=64, flips=True))


def test_wrong_images_are_told() -> None:
    net = Net("padded")
    cases = {
        r"\(N, channels, height, width\), got \(2, 8, 8\)": np.zeros((2, 8, 8), np.float32),
        "floating point and normalised as in training, got uint8": np.zeros((1, 2, 8, 8), np.uint8),
        r"takes images of 2 channels, got 3": np.zeros((1, 3, 8, 8), np.float32),
        "at least one pixel, got 0x8": np.zeros((1, 2, 0, 8), np.float32),
    }
    for message, x in cases.items():
        with pytest.raises(ValueError, match=message):
            scores(net, x)
    with pytest.raises(ValueError, match=r"takes one image .*got \(1, 2, 8, 8\); scores takes several"):
        predict_mask(net, np.zeros((1, 2, 8, 8), np.float32))


@pytest.mark.parametrize(("kind", "least"), [("padded", 4), ("valid", 14), ("any", 64)])
def test_the_smallest_tile_is_named(kind: str, least: int) -> None:
    net, x = Net(kind), np.zeros((1, 2, 99, 99), np.float32)
    with pytest.raises(ValueError, match=f"tile must be at least {least} pixels for this network, got {least - 1}"):
        scores(net, x, tile=least - 1)
    scores(net, x[..., :70], tile=least)


def test_the_usual_tile_is_1024_or_what_the_network_needs() -> None:
    net = Net("padded")
    assert usual_tile(net) == 1024
    net.suitable_size = lambda size: tuple(-(-n // 1536) * 1536 for n in size)  # type: ignore[method-assign]
    assert usual_tile(net) == smallest_tile(net) == 1536


def test_nan_is_no_class() -> None:
    net = Net("padded")
    net.last.bias.data = np.array([0, np.nan, 0], np.float32)
    with pytest.raises(FloatingPointError, match="answers with NaN"):
        predict_mask(net, np.zeros((2, 8, 8), np.float32))


# -- the real networks, and the other backend ----------------------------------------------------------------------------------------------

NETWORKS: dict[str, Callable[[], models.Segmenter]] = {
    "unet valid": lambda: models.UNet(2, 3, base=2, depth=2),
    "unet same": lambda: models.UNet(2, 3, base=2, padding="same", norm="batch"),
    "unet bilinear": lambda: models.UNet(2, 3, base=2, depth=3, padding="same", upsample="bilinear"),
    "segnet": lambda: models.SegNet(2, 3, width=1),
    "segnet_basic": lambda: models.SegNetBasic(2, 3, width=4),
    "fcn8s": lambda: models.FCN8s(3, 2, width=1),
    "fcn16s, light": lambda: models.FCN16s(3, 2, width=1, pad=1, fc_kernel=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_predicts_every_size(name: str, rng: np.random.Generator) -> None:
    model = NETWORKS[name]()
    state = model.state_dict()
    model.load_state_dict({k: v + 0.05 * rng.standard_normal(v.shape) if v.dtype.kind == "f" else v for k, v in state.items()})
    for size in ((1, 1), (17, 50)):
        whole = scores(model, image(rng, *size))
        assert whole.shape == (1, 3, *size)
        np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    x = image(rng, 40, 290)
    whole, tiled = scores(model, x), scores(model, x, tile=224)
    assert tiled.shape == whole.shape
    if model.margin:
        np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-6)
    else:  # these see farther than a tile reaches
        assert np.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.95
    with pytest.raises(ValueError, match="tile must be at least"):
        scores(model, x, tile=smallest_tile(model) - 1)


def test_the_u_net_of_the_paper_is_tiled_exactly(rng: np.random.Generator) -> None:
    """Depth 4, margin 92: tiles of 348 pixels answer for 164, and fit together to what the whole image gives."""
    model = models.UNet(2, 2, base=1).double()
    x = image(rng, 200, 300).astype(np.float64)
    runs: list[int] = []
    tiled = scores(model, x, tile=350, progress=lambda done, total: runs.append(total))
    assert model.margin == 92 and len(runs) == 4
    np.testing.assert_allclose(tiled, scores(model, x), rtol=1e-6)


def test_on_the_cupy_backend(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The network where it lives, images and results on NumPy; played by a strict stand-in for CuPy, with the reference kernels."""
    x, model = image(rng, 50, 21), models.UNet(2, 3, base=2, depth=2, padding="same")
    expected = scores(model, x, tile=32, flips=True)
    monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    with minidcnn.use_kernels("reference"):
        found = scores(model.to("cupy"), x, tile=32, flips=True)
    minidcnn.use("numpy")
    assert type(found) is np.ndarray and next(model.parameters()).backend == "cupy"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
