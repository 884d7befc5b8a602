"""Transforms: image and mask stay together, whatever is done to them; everything is pure and repeatable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.data import (
    Cells,
    CenterCrop,
    ColorJitter,
    Compose,
    DataError,
    ElasticDeformation,
    Normalize,
    PadToMultiple,
    RandomApply,
    RandomCrop,
    RandomGamma,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomRotation,
    RandomScale,
    RandomVerticalFlip,
    Resize,
    Sample,
    Transform,
    UNetWeights,
    channel_statistics,
    unet_weight_map,
)
from minidcnn.data.transforms.colour import hue_matrix
from minidcnn.data.transforms.geometry import cubic_matrix, warp

# With each: how far apart, in pixels of the source, image and mask may claim to come from. Whole moves are exact; the nearest pixel is
# at most half a pixel away; where an image shrinks, a pixel at the edge averages over what is left of its surroundings.
EXACT: list[tuple[Transform, float]] = [
    (RandomHorizontalFlip(1.0), 0),
    (RandomVerticalFlip(1.0), 0),
    (RandomQuarterTurn(), 0),
    (RandomQuarterTurn(keep_size=False), 0),
    (RandomCrop((9, 14)), 0),
    (RandomCrop((40, 31)), 0),  # larger than some images: pads
    (CenterCrop((11, 7)), 0),
    (PadToMultiple((8, 5)), 0),
]
NEAREST: list[tuple[Transform, float]] = [
    (Resize((21, 50)), 0.5 + 0.35 * 40 / 21),
    (RandomScale(0.4, 2.5), 0.5 + 0.35 * 2.6),
    (RandomRotation(180), 0.501),
    (ElasticDeformation(2.5), 0.501),
    (Compose(RandomScale(0.7, 1.5), RandomRotation(30), ElasticDeformation(1.5), RandomCrop((16, 24)), RandomHorizontalFlip()), 2.5),
]
MOVING = [transform for transform, _ in EXACT + NEAREST]
STILL: list[Transform] = [ColorJitter(0.4, 0.4, 0.4, 0.2), RandomGamma(), Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.1)), UNetWeights()]

sizes = st.tuples(st.integers(12, 40), st.integers(12, 40)).filter(lambda s: s[0] != s[1])
seeds = st.integers(0, 2**32)


def maps(size: tuple[int, int]) -> Sample:
    """The image says where each pixel is (row / H, column / W, 1 inside), and so does the mask: row * 1000 + column."""
    row, column = np.mgrid[: size[0], : size[1]]
    image = np.stack([row / size[0], column / size[1], np.ones(size)]).astype(np.float32)
    return Sample(image, row * 1000 + column, "maps", ignore_index=-7, weight=(row * 1000 + column + 1).astype(np.float32))


def ids(transform: object) -> str:
    return type(transform).__name__ if callable(transform) else ""


@pytest.mark.parametrize(("transform", "tolerance"), EXACT + NEAREST, ids=ids)
@given(size=sizes, seed=seeds)
def test_image_mask_and_weight_move_together(transform: Transform, tolerance: float, size: tuple[int, int], seed: int) -> None:
    """A mask that can be computed from its image can be computed from the transformed image."""
    sample = maps(size)
    moved = transform(sample, np.random.default_rng(seed))
    assert moved.image.shape[1:] == moved.mask.shape and moved.image.dtype == np.float32 and moved.mask.dtype == np.int64
    inside = moved.mask != sample.ignore_index
    assert inside.any() and set(moved.mask[inside].tolist()) <= set(sample.mask.ravel().tolist())  # no label was made up
    np.testing.assert_allclose(moved.image[2], 1, atol=1e-5)  # nor was any of the image left black
    for labelled, plane, n in ((moved.mask // 1000, moved.image[0], size[0]), (moved.mask % 1000, moved.image[1], size[1])):
        assert np.abs(plane * n - labelled)[inside].max() <= tolerance + 1e-5
    # the weight is that of the labelled pixel, and 0 where nothing is labelled
    assert moved.weight is not None and moved.weight.dtype == np.float32
    np.testing.assert_array_equal(moved.weight, np.where(inside, moved.mask + 1, 0))


@given(size=sizes, seed=seeds)
def test_a_mask_found_by_a_threshold_is_still_found_by_it(size: tuple[int, int], seed: int) -> None:
    """On smooth images thresholding and warping commute, up to the pixels beside the border between the classes."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.standard_normal(size), 4, mode="mirror").astype(np.float32)[None]
    step = max(np.abs(np.diff(image[0], axis=a)).max() for a in (0, 1))
    for transform in (RandomRotation(180), ElasticDeformation(2.0), RandomHorizontalFlip(1)):
        moved = transform(Sample(image, (image[0] > 0).astype(np.int64), "smooth"), rng)
        clear = (moved.mask != 255) & (np.abs(moved.image[0]) > 1.5 * step)
        assert np.array_equal(moved.mask[clear], (moved.image[0] > 0)[clear])


@pytest.mark.parametrize("transform", [*MOVING, *STILL], ids=ids)
@given(size=sizes, seed=seeds)
def test_transforms_are_pure(transform: Transform, size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = Sample(rng.random((3, *size), np.float32), rng.integers(0, 3, size), "x")
    before = [a.copy() for a in (sample.image, sample.mask)]
    sample.image.flags.writeable = sample.mask.flags.writeable = False
    first, second = transform(sample, np.random.default_rng(seed)), transform(sample, np.random.default_rng(seed))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert all(np.array_equal(a, b) for a, b in zip(before, (sample.image, sample.mask), strict=True))
    assert first.name == "x" and first.ignore_index == 255
    assert set(np.unique(first.mask)) <= {0, 1, 2, 255}


@pytest.mark.parametrize("transform", [*MOVING, *STILL], ids=ids)
def test_as_many_numbers_are_drawn_whatever_the_sample(transform: Transform) -> None:
    """So that a transform later in the chain does not depend on the sizes of images."""
    after = set()
    for size in ((12, 40), (30, 14), (20, 20)):
        rng = np.random.default_rng(3)
        transform(maps(size), rng)
        after.add(rng.random())
    assert len(after) == 1


@pytest.mark.parametrize("transform", [*MOVING, *STILL], ids=ids)
def test_transforms_are_frozen_and_print_their_parameters(transform: Transform) -> None:
    assert eval(repr(transform)) == transform
    with pytest.raises(FrozenInstanceError):
        setattr(transform, fields(transform)[0].name, 1)  # type: ignore[arg-type]
    assert hash(transform) == hash(eval(repr(transform)))


# -- each one ------------------------------------------------------------------------------------------------------


def test_flips() -> None:
    sample, rng = maps((4, 7)), np.random.default_rng(0)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(sample, rng).mask, sample.mask[:, ::-1])
    np.testing.assert_array_equal(RandomVerticalFlip(1)(sample, rng).mask, sample.mask[::-1])
    for flip in (RandomHorizontalFlip(0), RandomVerticalFlip(0)):
        assert flip(sample, rng) is sample
    turned = [RandomHorizontalFlip()(sample, rng) is not sample for _ in range(400)]
    assert 140 < sum(turned) < 260


def test_quarter_turns_reach_all_four_positions() -> None:
    sample, rng = maps((4, 7)), np.random.default_rng(0)
    seen = {RandomQuarterTurn(keep_size=False)(sample, rng).mask.tobytes() for _ in range(60)}
    assert seen == {np.rot90(sample.mask, k).tobytes() for k in range(4)}
    kept = {RandomQuarterTurn()(sample, rng).mask.tobytes() for _ in range(60)}
    assert kept == {np.rot90(sample.mask, k).tobytes() for k in (0, 2)}
    square = maps((5, 5))
    assert len({RandomQuarterTurn()(square, rng).mask.tobytes() for _ in range(60)}) == 4


def test_crops_reach_every_corner() -> None:
    sample, rng = maps((5, 8)), np.random.default_rng(0)
    tops = {int(RandomCrop((3, 6))(sample, rng).mask[0, 0]) for _ in range(300)}
    assert tops == {r * 1000 + c for r in range(3) for c in range(3)}
    assert CenterCrop((3, 6))(sample).mask[0, 0] == 1001
    assert RandomCrop((5, 8))(sample, rng).mask.tolist() == sample.mask.tolist()


def test_padding_mirrors_the_image_and_ignores_the_mask() -> None:
    sample, rng = maps((3, 4)), np.random.default_rng(0)
    padded = RandomCrop((5, 9))(sample, rng)
    np.testing.assert_array_equal(padded.image, np.pad(sample.image, ((0, 0), (1, 1), (2, 3)), mode="reflect"))
    np.testing.assert_array_equal(padded.mask, np.pad(sample.mask, ((1, 1), (2, 3)), constant_values=-7))
    below = PadToMultiple((2, 8))(sample)
    assert below.size == (4, 8) and (below.mask[3] == -7).all() and np.array_equal(below.mask[:3, :4], sample.mask)
    assert PadToMultiple(1)(sample) is sample
    one = Sample(np.full((1, 1, 1), 0.25, np.float32), np.array([[1]]), "one")
    assert (RandomCrop((6, 5))(one, rng).image == 0.25).all()  # padding of many times the size


def test_rotation_by_ninety_degrees_is_a_quarter_turn() -> None:
    for size in ((7, 7), (8, 8)):
        sample = maps(size)
        turned = RandomRotation((90, 90))(sample, np.random.default_rng(0))
        np.testing.assert_array_equal(turned.mask, np.rot90(sample.mask))
        np.testing.assert_allclose(turned.image, np.rot90(sample.image, axes=(1, 2)), atol=1e-5)
    nothing = RandomRotation(0)(maps((5, 8)), np.random.default_rng(0))
    np.testing.assert_array_equal(nothing.mask, maps((5, 8)).mask)


def test_what_a_rotation_brings_in_is_ignored() -> None:
    turned = RandomRotation((45, 45))(maps((21, 21)), np.random.default_rng(0))
    assert (turned.mask[[0, 0, -1, -1], [0, -1, 0, -1]] == -7).all() and turned.mask[10, 10] == 10010
    assert 0.1 < (turned.mask == -7).mean() < 0.25  # an octagon is left: 2 sqrt(2) - 2 = 0.83 of the square


def test_scale_factors_are_spread_evenly_over_halving_and_doubling() -> None:
    rng = np.random.default_rng(0)
    heights = np.array([RandomScale(0.5, 2.0)(maps((40, 41)), rng).size[0] for _ in range(300)])
    assert heights.min() < 24 and heights.max() > 70 and 0.4 < (heights < 40).mean() < 0.6


def test_shrinking_averages() -> None:
    checks = (np.indices((32, 48)).sum(0) % 2).astype(np.float32)[None]
    small = Resize((8, 12))(Sample(checks, np.zeros((32, 48), np.int64), "checks"))
    np.testing.assert_allclose(small.image[:, 1:-1, 1:-1], 0.5, atol=0.05)


def test_warp_outside_is_mirrored() -> None:
    sample = maps((6, 9))
    rows, columns = np.mgrid[-3:9, -4:13]
    moved = warp(sample, rows, columns)
    np.testing.assert_allclose(moved.image, np.pad(sample.image, ((0, 0), (3, 3), (4, 4)), mode="reflect"), atol=1e-6)
    np.testing.assert_array_equal(moved.mask, np.pad(sample.mask, ((3, 3), (4, 4)), constant_values=-7))


@pytest.mark.parametrize(("size", "grid"), [(9, 3), (50, 3), (33, 5), (2, 2)])
def test_cubic_interpolation(size: int, grid: int) -> None:
    matrix = cubic_matrix(size, grid)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    if (size - 1) % (grid - 1) == 0:  # pixels that lie on points have the points' values
        np.testing.assert_allclose(matrix[:: (size - 1) // (grid - 1)], np.eye(grid), atol=1e-12)
    if grid == 5:  # away from the ends a parabola is reproduced
        at = np.linspace(0, 4, size)
        middle = (at >= 1) & (at <= 3)
        np.testing.assert_allclose((matrix @ np.arange(5.0) ** 2)[middle], (at**2)[middle], atol=1e-12)


def test_elastic_deformation_has_the_papers_strength() -> None:
    size, rng = (101, 141), np.random.default_rng(0)
    shifts = []
    for _ in range(60):
        moved = ElasticDeformation()(maps(size), rng)
        shifts.append(moved.image[0, 50, 70] * size[0] - 50)  # the middle pixel lies on a point of the 3x3 grid
    assert 7.5 < np.std(shifts) < 12.5 and abs(np.mean(shifts)) < 4
    assert ElasticDeformation() == ElasticDeformation(sigma=10.0, grid=3)
    sample = maps((20, 30))
    assert ElasticDeformation(p=0)(sample, rng) is sample
    np.testing.assert_array_equal(ElasticDeformation(sigma=0)(sample, rng).mask, sample.mask)


# -- colours -------------------------------------------------------------------------------------------------------


def coloured(size: tuple[int, int] = (6, 9), channels: int = 3) -> Sample:
    return Sample(np.random.default_rng(4).random((channels, *size), np.float32), np.zeros(size, np.int64), "coloured")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_jitter_stays_in_range_and_leaves_masks_alone(channels: int) -> None:
    sample, rng = coloured(channels=channels), np.random.default_rng(0)
    for _ in range(10):
        changed = ColorJitter(1.0, 1.0, 1.0, 0.5)(sample, rng)
        assert changed.image.dtype == np.float32 and 0 <= changed.image.min() and changed.image.max() <= 1
        assert changed.mask is sample.mask and changed.image.shape == sample.image.shape
    np.testing.assert_allclose(ColorJitter()(sample, rng).image, sample.image, atol=1e-6)


def test_brightness_and_contrast() -> None:
    sample, rng = coloured(channels=1), np.random.default_rng(0)
    half = Sample(sample.image * 0.4 + 0.3, sample.mask, "half")
    ratios = [ColorJitter(brightness=0.3)(half, rng).image.mean() / half.image.mean() for _ in range(100)]
    assert 0.7 <= min(ratios) < 0.8 and 1.2 < max(ratios) <= 1.3001
    changed = [ColorJitter(contrast=0.3)(half, rng).image for _ in range(100)]
    assert all(abs(c.mean() - half.image.mean()) < 1e-4 for c in changed)
    spread = [c.std() / half.image.std() for c in changed]
    assert 0.69 < min(spread) < 0.8 and 1.2 < max(spread) < 1.31


def test_hue_turns_about_gray() -> None:
    np.testing.assert_allclose(hue_matrix(0), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(hue_matrix(1 / 3) @ [1, 0, 0], [0, 1, 0], atol=1e-6)  # red becomes green
    np.testing.assert_allclose(hue_matrix(0.123) @ [0.4, 0.4, 0.4], [0.4] * 3, atol=1e-6)
    np.testing.assert_allclose(hue_matrix(0.2) @ hue_matrix(0.3), hue_matrix(0.5), atol=1e-6)


def test_saturation_zero_is_gray() -> None:
    class Zero(np.random.Generator):
        def uniform(self, *_: object) -> np.ndarray:  # type: ignore[override]
            return np.array([0, 0, -1, 0])

    image = ColorJitter(saturation=1.0)(coloured(), Zero(np.random.PCG64(0))).image
    np.testing.assert_allclose(image[0], image[1], atol=1e-6)
    np.testing.assert_allclose(image[0], image[2], atol=1e-6)


def test_gamma() -> None:
    sample = coloured()
    np.testing.assert_allclose(RandomGamma(2, 2)(sample, np.random.default_rng(0)).image, sample.image**2, rtol=1e-5)


def test_normalize() -> None:
    cells = Cells(count=6, size=(32, 48))
    normalize = Normalize(*channel_statistics(cells))
    pixels = np.stack([normalize(s).image for s in cells])
    assert abs(pixels.mean()) < 1e-4 and abs(pixels.std() - 1) < 1e-4 and pixels.dtype == np.float32
    np.testing.assert_allclose(Normalize(0.5, 0.25)(coloured()).image, (coloured().image - 0.5) / 0.25, rtol=1e-6)
    with pytest.raises(DataError, match="mean has 2 channels, but coloured has 3"):
        Normalize((0, 0), (1, 1))(coloured())
    with pytest.raises(ValueError, match="std must be positive"):
        Normalize(0.5, 0.0)
    with pytest.raises(ValueError, match="got 2 and 1"):
        Normalize((0.5, 0.5), 1)


def test_unet_weights_see_the_mask_as_it_is_then() -> None:
    sample = Cells(count=1)[0]
    both = Compose(RandomCrop((40, 60)), UNetWeights(8.0, 4.0, (1.0, 0.5)))(sample, np.random.default_rng(0))
    assert both.weight is not None
    np.testing.assert_array_equal(both.weight, unet_weight_map(both.mask, 8.0, 4.0, class_weights=(1.0, 0.5)))


# -- combining -----------------------------------------------------------------------------------------------------


def test_compose_is_one_after_the_other() -> None:
    sample = maps((20, 30))
    steps: list[Transform] = [RandomCrop((10, 12)), RandomVerticalFlip(), RandomRotation(20)]
    rng = np.random.default_rng(1)
    expected = sample
    for step in steps:
        expected = step(expected, rng)
    for composed in (Compose(*steps), Compose(steps), Compose([steps[0], Compose(steps[1:])])):
        np.testing.assert_array_equal(composed(sample, np.random.default_rng(1)).image, expected.image)
    assert Compose()(sample, rng) is sample
    with pytest.raises(TypeError, match="Compose takes transforms, got 3"):
        Compose(3)  # type: ignore[arg-type]


def test_random_apply() -> None:
    sample, rng = maps((4, 7)), np.random.default_rng(0)
    assert RandomApply(RandomVerticalFlip(1), 0)(sample, rng) is sample
    done = [RandomApply(RandomVerticalFlip(1), 0.25)(sample, rng) is not sample for _ in range(400)]
    assert 60 < sum(done) < 140


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomHorizontalFlip(1.5), "p must be a probability between 0 and 1, got 1.5"),
        (lambda: RandomCrop(0), "RandomCrop: size must be at least 1, got 0"),
        (lambda: RandomScale(2, 0.5), r"RandomScale: the range must lie above 0 and ascend, got 2 to 0.5"),
        (lambda: RandomScale(0, 1), "got 0 to 1"),
        (lambda: RandomRotation((3, -3)), "RandomRotation: the range must ascend, got 3 to -3"),
        (lambda: ElasticDeformation(grid=1), "grid be at least 2"),
        (lambda: ColorJitter(hue=0.7), "hue must lie between 0 and 0.5, got 0.7"),
        (lambda: RandomGamma(0, 1), "RandomGamma: the range must lie above 0"),
    ],
)
def test_wrong_parameters(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_without_contrast_all_is_the_mean_brightness() -> None:
    """Not the mean of the numbers: blue is dark."""
    image = np.zeros((3, 2, 2), np.float32)
    image[2] = 0.5

    class NoContrast:
        def uniform(self, low: float, high: float, count: int) -> np.ndarray:
            return np.array([0.0, -1.0, 0.0, 0.0])

    out = ColorJitter(contrast=1.0)(Sample(image, np.zeros((2, 2), int), "a", 255), NoContrast())
    np.testing.assert_allclose(out.image, 0.114 * 0.5, rtol=1e-5)
