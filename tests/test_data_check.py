"""check() and the statistics of a data set, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from minidcnn.data import (
    Arrays,
    Cells,
    DataError,
    Dataset,
    Sample,
    channel_statistics,
    check,
    class_frequencies,
    count_labels,
    median_frequency_weights,
)
from minidcnn.data.statistics import LabelCounts

rng = np.random.default_rng(2)


def arrays(*masks: object, classes: int = 3, ignore_index: int = 255) -> Arrays:
    found = [np.asarray(m, np.int64) for m in masks]
    return Arrays([rng.random((2, *m.shape)) for m in found], found, classes, ignore_index=ignore_index)


def test_class_frequencies_leave_ignored_pixels_out() -> None:
    data = arrays([[0, 0, 1, 255]], [[0, 255, 255, 255]])
    np.testing.assert_allclose(class_frequencies(data), [3 / 4, 1 / 4, 0])
    counts = count_labels(data)
    assert counts.pixels.tolist() == [3, 1, 0] and counts.images.tolist() == [2, 1, 0] and counts.seen.tolist() == [8, 4, 0]
    assert (counts.ignored, counts.ignored_seen, counts.total) == (4, 8, 8)
    np.testing.assert_array_equal(class_frequencies(arrays([[255, 255]])), [0, 0, 0])


def test_median_frequency_weights() -> None:
    data = arrays([[0, 0, 1, 1]], [[0, 0, 0, 2]], [[0, 0, 0, 255]])
    frequency = np.array([8 / 12, 2 / 4, 1 / 4])  # pixels of the class / all pixels of images that have it
    np.testing.assert_allclose(median_frequency_weights(data), 0.5 / frequency)
    # the ignored pixels as one class more: 1 of 4 pixels of the image that has them; the median is that of four numbers
    np.testing.assert_allclose(median_frequency_weights(data, ignored_as_class=True), (0.5 + 0.25) / 2 / frequency)


def test_absent_classes_weigh_nothing_and_give_no_nan() -> None:
    weights = median_frequency_weights(arrays([[0, 2, 2, 2]]))
    np.testing.assert_allclose(weights, [2, 0, 2 / 3])
    np.testing.assert_array_equal(median_frequency_weights(arrays([[255]])), [0, 0, 0])
    np.testing.assert_array_equal(median_frequency_weights(arrays([[255]]), ignored_as_class=True), [0, 0, 0])


def test_channel_statistics_agree_with_numpy_on_all_pixels() -> None:
    images = [rng.random((3, *size)) * [[[0.1]], [[1]], [[0.5]]] + 0.3 for size in ((4, 6), (5, 3), (1, 1))]
    data = Arrays(images, [np.zeros(i.shape[1:], int) for i in images], 1)
    pixels = np.concatenate([i.reshape(3, -1) for i in images], axis=1)
    mean, std = channel_statistics(data)
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-6)
    with pytest.raises(DataError, match="no pixels"):
        channel_statistics(data[:0])


def test_labels_that_are_no_class_are_named() -> None:
    with pytest.raises(DataError, match=r"0000: the mask holds class 3, but there are 3 classes, 0 to 2.*is background missing"):
        class_frequencies(arrays([[0, 3]]))
    with pytest.raises(DataError, match="holds class -1"):
        class_frequencies(arrays([[0, -1]]))


def test_a_good_data_set_is_ok() -> None:
    report = check(Cells(count=5))
    assert report.ok and not report.warnings and report.sizes == {(96, 128): 5} and report.images == 5
    text = str(report)
    assert "cells train: 5 images, 1 channel, 2 classes, sizes 96x128" in text and text.endswith("\nok")
    np.testing.assert_allclose(report.frequencies.sum(), 1)


def test_everything_wrong_is_in_the_report() -> None:
    class Broken(Dataset):
        name, classes, channels = "broken", ("a", "b", "c"), 2
        palette = np.zeros((3, 3), np.uint8)
        problems = ("x.png has no mask",)

        def __len__(self) -> int:
            return 9

        def load(self, index: int) -> Sample:
            image, mask = rng.random((2, 4, 6)).astype(np.float32), np.arange(24).reshape(4, 6) % 2
            match index:
                case 0:
                    raise DataError("0.png cannot be read")
                case 1:
                    return Sample(image, mask[:3], "one")
                case 2:
                    return Sample(image, mask + 7, "two")
                case 3:
                    return Sample(image[:1], mask, "three")
                case 4:
                    return Sample(np.zeros_like(image), mask, "four")
                case 5:
                    return Sample(image, np.full_like(mask, 255), "five")
                case 6:
                    return Sample(np.full_like(image, np.nan), mask, "six")
            return Sample(image, mask, "twin")

    report = check(Broken())
    assert not report.ok
    assert report.errors == (
        "x.png has no mask",
        "0.png cannot be read",
        "one: the image is 4x6 but its mask 3x6 (height x width)",
        (
            "two: the mask holds class 7, but there are 3 classes, 0 to 2, and the ignore index 255; "
            "is background missing from the classes, or are the masks not indices?"
        ),
        "three: the image has 1 channel, the data set 2",
        "six: the image holds NaN or infinity",
    )
    warnings = "\n".join(report.warnings)
    for part in ("twin: several samples have one name", "four: the image is one colour", "five: every pixel is ignored", "no pixel is c:"):
        assert part in warnings
    text = str(report)
    assert all(message in text for message in (*report.errors, *report.warnings)) and "6 errors, 4 warnings" in text


def test_warnings_about_classes() -> None:
    mostly = np.zeros((40, 50), int)
    some = mostly.copy()
    some[0, :3] = 1
    report = check(arrays(some, mostly, mostly, classes=2))
    assert report.ok and len(report.warnings) == 2
    assert report.warnings[0].startswith("class 1: below 0.5 % of the pixels")
    assert report.warnings[1] == "2 of 3 masks hold nothing but class 0"
    half = np.where(np.arange(24).reshape(4, 6) % 3, 255, np.arange(24).reshape(4, 6) % 2)
    assert any("67 % of the pixels are ignored" in w for w in check(arrays(half, classes=2)).warnings)


def test_warnings_about_values() -> None:
    mask = [np.arange(24).reshape(4, 6) % 2]
    assert any("white=4095" in w for w in check(Arrays([rng.integers(0, 4096, (4, 6), np.uint16)], mask, 2)).warnings)
    assert any("0 to 1 is expected" in w for w in check(Arrays([rng.random((4, 6)) * 255], mask, 2)).warnings)


def test_notes_about_sizes() -> None:
    odd = np.arange(40 * 50).reshape(40, 50) % 2
    assert not check(arrays(odd[:31, :47], classes=2)).notes  # networks take every size: training and prediction pad
    report = check(arrays(odd[:30], odd[:, :44], odd[:30], classes=2))
    assert report.sizes == {(30, 50): 2, (40, 44): 1}
    (note,) = report.notes
    assert note.startswith("the images differ in size, the smallest height is 30, the smallest width 44: training takes crops of one size")
    assert "30x50 (2), 40x44 (1)" in str(report)
    several = arrays(odd[:30], *(odd[:, :width] for width in (44, 45, 46, 47)), odd[:30], classes=2)
    assert ", sizes 30x50 (2), 40x44 (1), 40x45 (1) and 2 more\n" in str(check(several))


def test_one_of_a_kind_is_said_in_the_singular() -> None:
    data = arrays([[0, 1, 2, 255]])
    assert "arrays: 1 image, 2 channels, 3 classes, sizes 1x4" in str(check(data))
    assert "arrays: 0 images, 1 channel, 1 class, sizes unknown" in str(check(Arrays([], [], 1)))
    assert repr(data) == "<arrays: 1 image, 2 channels, 3 classes>"
    with pytest.raises(IndexError, match="index 1 is out of range: arrays has 1 image$"):
        data[1]


def test_an_empty_data_set_is_an_error() -> None:
    report = check(Cells(count=0))
    assert report.errors == ("cells train is empty",) and "unknown" in str(report)


def test_check_tells_what_stands_for_each_class_in_the_masks_and_which_occur_once() -> None:
    masks = [[[0, 0, 1, 1]]] * 5 + [[[0, 1, 2, 2]]]
    data = arrays(*masks)
    assert [w for w in check(data).warnings if "one image only, 0005: is it meant" in w and w.startswith("class 2 occurs")]
    assert "in masks" not in str(check(data))
    data.mask_values = (0, 255, 7)
    shown = str(check(data)).splitlines()
    assert shown[1].split()[:3] == ["class", "in", "masks"] and shown[3].split()[:4] == ["1", "class", "1", "255"]
    assert len({line.index("%") for line in shown[2:5]}) == 1 == len({len(line) for line in shown[1:5]})  # columns stand below each other
    assert any(w.startswith("class 2 (7 in the masks) occurs in one image only") for w in check(data).warnings)
    data.mask_values = ((0, 0, 0), (255, 0, 0), (0, 128, 255))
    assert "255/0/0" in str(check(data))
    assert not any("one image only" in w for w in check(arrays(*masks[2:])).warnings)  # of four images, that is nothing odd


def test_of_many_absent_classes_only_some_are_listed() -> None:
    (warning,) = (text for text in check(arrays([[0, 1, 1]], classes=150)).warnings if "no pixel is" in text)
    assert warning.startswith("no pixel is class 2, class 3, class 4, class 5, class 6 and 143 more: from these images")


def test_shares_of_what_is_ignored_are_of_the_images_that_have_some() -> None:
    counts = LabelCounts.empty(2)
    for mask in ([[0, 1, 255, 255]], [[0, 0, 0, 1]]):
        counts.add(Sample(np.zeros((1, 1, 4), np.float32), np.array(mask), "a", 255))
    assert (counts.ignored, counts.ignored_seen, counts.total) == (2, 4, 8)
