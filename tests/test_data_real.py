"""The real data sets, where they are there: what the loaders find agrees with what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minidcnn.data import (
    CAMVID_CLASS_WEIGHTS,
    CAMVID_CLASSES,
    Compose,
    ElasticDeformation,
    Folder,
    Loader,
    RandomCrop,
    RandomHorizontalFlip,
    check,
    count_labels,
    open_dataset,
    unet_weight_map,
)


def test_camvid(shared_data: Path) -> None:
    train, val = (open_dataset("camvid", shared_data / "camvid", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    sample = train[0]
    assert sample.image.shape == (3, 360, 480) and sample.mask.max() <= 11
    batch = next(Loader(train, 4, shuffle=True, transform=Compose(RandomCrop((180, 240)), RandomHorizontalFlip())).batches(0))
    assert batch.images.shape == (4, 3, 180, 240)
    report = check(val)
    assert report.ok and report.sizes == {(360, 480): 101}


def test_camvid_weights_are_the_published_ones_but_for_one(shared_data: Path) -> None:
    train = open_dataset("camvid", shared_data / "camvid")
    weights = count_labels(train).median_weights(ignored_as_class=True)
    ratio = dict(zip(CAMVID_CLASSES, weights / CAMVID_CLASS_WEIGHTS, strict=True))
    assert round(float(weights[6]), 2) == 3.53 and ratio.pop("SignSymbol") < 0.4  # the known discrepancy
    assert all(0.89 < r < 1.11 for r in ratio.values())


def test_isbi(shared_data: Path) -> None:
    train, val = (open_dataset("isbi", shared_data / "isbi", split) for split in ("train", "val"))
    assert [s.name for s in train] == [str(i) for i in range(20)] and [s.name for s in val] == ["20", "21", "22", "23"]
    for data in (train, val):
        report = check(data)
        assert report.ok and report.sizes == {(512, 512): len(data)} and data.channels == 1
        assert 0.75 < report.frequencies[1] < 0.82  # always answering "cell" is right for nearly 0.8 of the pixels
    # membranes are dark
    sample = val[0]
    assert sample.image[0][sample.mask == 0].mean() < sample.image[0][sample.mask == 1].mean() - 0.1
    weights = unet_weight_map(sample.mask)
    assert weights[sample.mask == 0].mean() > 3 and (weights[sample.mask == 1] == 1).all()
    warped = ElasticDeformation()(sample, np.random.default_rng(0))
    assert warped.image.shape == sample.image.shape and (warped.mask != 255).mean() > 0.85


def test_real_folders_open_as_anyones(shared_data: Path) -> None:
    data = Folder(shared_data / "isbi", "val")  # images/ and labels/, 0 and 255
    assert data.mask_values == (0, 255) and data.channels == 1 and len(data) == 5
