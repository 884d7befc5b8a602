"""The generated cells: repeatable, varied, correctly labelled, and neither trivial nor hopeless."""

from __future__ import annotations

import time

import numpy as np
import pytest

from minidcnn.data import Cells, DataError


def test_the_same_arguments_give_the_same_bits() -> None:
    for split in ("train", "val"):
        first, second = Cells(split, 3, (48, 64), seed=5), Cells(split, 3, (48, 64), seed=5)
        for i in (2, 0, 1):  # the order of access does not matter
            assert np.array_equal(first[i].image, second[i].image) and np.array_equal(first[i].mask, second[i].mask)


def test_an_image_does_not_depend_on_the_count() -> None:
    assert np.array_equal(Cells(count=2)[1].image, Cells(count=7)[1].image)


def test_seeds_splits_and_indices_give_different_images() -> None:
    images = [Cells(split, 2, (48, 64), seed)[i].image for split in ("train", "val") for seed in (0, 1) for i in (0, 1)]
    assert len({x.tobytes() for x in images}) == len(images)


def test_samples_keep_the_contract() -> None:
    cells = Cells("val", 4, (40, 72))
    assert len(cells) == 4 and cells.classes == ("background", "cell") and cells.channels == 1
    assert cells.palette.shape == (2, 3) and cells.palette.dtype == np.uint8
    for sample in cells:
        assert sample.image.shape == (1, 40, 72) and sample.image.dtype == np.float32
        assert 0 <= sample.image.min() and sample.image.max() <= 1
        assert sample.mask.shape == (40, 72) and sample.mask.dtype == np.int64
        assert set(np.unique(sample.mask)) <= {0, 1}
    assert len({s.name for s in cells}) == 4
    assert cells[-1].name == cells[3].name and len(cells[1:3]) == 2 and cells[1:3][0].name == cells[1].name
    with pytest.raises(IndexError, match="4 images"):
        cells[4]


def test_the_mask_is_the_instances_and_membranes_keep_touching_cells_apart() -> None:
    from scipy import ndimage

    cells = Cells("train", 6)
    for i in range(6):
        instances, mask = cells.instances(i), cells[i].mask
        assert np.array_equal(instances > 0, mask == 1)
        # no two different cells are side by side
        for a, b in ((instances[1:], instances[:-1]), (instances[:, 1:], instances[:, :-1])):
            assert not ((a > 0) & (b > 0) & (a != b)).any()
        # yet many nearly touch: closing a gap of a few pixels merges cells
        before, after = ndimage.label(mask)[1], ndimage.label(ndimage.binary_dilation(mask, iterations=2))[1]
        assert after < 0.6 * before


def test_cells_vary_in_size_and_share() -> None:
    cells = Cells("train", 20)
    areas = np.concatenate([np.bincount(cells.instances(i).ravel())[1:] for i in range(20)])
    areas = areas[areas > 0]
    assert np.quantile(areas, 0.9) > 3 * np.quantile(areas, 0.1)
    shares = np.array([s.mask.mean() for s in cells])
    assert 0.3 < shares.mean() < 0.6 and shares.std() > 0.04


def test_no_threshold_solves_it_but_cells_are_brighter_than_what_is_beside_them() -> None:
    from scipy import ndimage

    samples = list(Cells("val", 12))
    images, masks = np.stack([s.image[0] for s in samples]), np.stack([s.mask for s in samples]) == 1

    def mean_iou(guess: np.ndarray) -> float:
        return float(np.mean([(g & m).sum() / (g | m).sum() for g, m in ((guess, masks), (~guess, ~masks))]))

    assert max(mean_iou(images > t) for t in np.linspace(0, 1, 50)) < 0.75
    local = np.stack([image - ndimage.uniform_filter(image, 41) for image in images])
    assert max(mean_iou(local > t) for t in np.linspace(-0.2, 0.2, 41)) > 0.75  # what is left for learning is fine detail


def test_the_default_set_is_generated_within_seconds() -> None:
    start = time.perf_counter()
    assert sum(sample.mask.size > 0 for split in ("train", "val") for sample in Cells(split)) == 300
    assert time.perf_counter() - start < 8  # about 0.7 s on one quiet core


@pytest.mark.parametrize("size", [(16, 16), (17, 130), (257, 40)])
def test_any_size(size: tuple[int, int]) -> None:
    sample = Cells(count=1, size=size)[0]
    assert sample.image.shape == (1, *size) and sample.mask.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "train, val, got 'test'"),
        ({"count": -1}, "count -1"),
        ({"seed": -1}, "seed -1"),
        ({"size": 8}, "at least 16, got 8"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cells(**arguments)  # type: ignore[arg-type]
    assert issubclass(DataError, ValueError)
