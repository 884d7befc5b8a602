"""The loader: every sample once, the same in whatever order it is asked for, with clear words when samples don't fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minidcnn.data import (
    Arrays,
    Batch,
    Cells,
    Compose,
    DataError,
    Loader,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    Sample,
    UNetWeights,
    collate,
)

CELLS = Cells(count=7, size=(24, 40))
AUGMENT = Compose(RandomRotation(15), RandomCrop((16, 20)), RandomHorizontalFlip())


def bits(batches: object) -> list[tuple[bytes, bytes, tuple[str, ...]]]:
    return [(b.images.tobytes(), b.masks.tobytes(), b.names) for b in batches]  # type: ignore[attr-defined]


def test_batches_keep_the_contract() -> None:
    loader = Loader(CELLS, 3)
    batches = list(loader.batches(0))
    assert len(loader) == len(batches) == 3 and [len(b) for b in batches] == [3, 3, 1]
    batch = batches[0]
    assert batch.images.shape == (3, 1, 24, 40) and batch.images.dtype == np.float32
    assert batch.masks.shape == (3, 24, 40) and batch.masks.dtype == np.int64 and batch.weights is None
    for i in range(3):
        assert np.array_equal(batch.images[i], CELLS[i].image) and np.array_equal(batch.masks[i], CELLS[i].mask)
        assert batch.names[i] == CELLS[i].name
    assert bits(loader) == bits(batches)  # iterating means epoch 0


def test_images_are_channels_last_in_memory() -> None:
    data = Arrays([np.random.default_rng(i).random((3, 5, 8)) for i in range(2)], [np.zeros((5, 8), int)] * 2, 1)
    images = next(Loader(data, 2).batches(0)).images
    assert images.shape == (2, 3, 5, 8) and images.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(images[1], data[1].image)


@pytest.mark.parametrize(("batch_size", "drop_last", "count"), [(1, False, 7), (2, False, 4), (2, True, 3), (7, True, 1), (9, False, 1)])
def test_number_of_batches(batch_size: int, drop_last: bool, count: int) -> None:
    loader = Loader(CELLS, batch_size, drop_last=drop_last)
    assert len(loader) == len(list(loader.batches(3))) == count


def test_shuffling_shows_every_sample_once_in_a_new_order_each_epoch() -> None:
    loader = Loader(CELLS, 2, shuffle=True, seed=1)
    orders = [tuple(n for b in loader.batches(e) for n in b.names) for e in range(5)]
    assert len(set(orders)) == 5 and all(sorted(o) == [s.name for s in CELLS] for o in orders)
    assert tuple(n for b in Loader(CELLS, 3, shuffle=True, seed=1).batches(4) for n in b.names) == orders[4]
    assert tuple(n for b in Loader(CELLS, 2, shuffle=True, seed=2).batches(0) for n in b.names) != orders[0]


def test_a_resumed_run_draws_the_same_as_an_uninterrupted_one() -> None:
    def make(**options: object) -> Loader:
        return Loader(CELLS, 2, shuffle=True, seed=3, transform=AUGMENT, **options)  # type: ignore[arg-type]

    whole = make()
    uninterrupted = [bits(whole.batches(epoch)) for epoch in range(4)]
    assert bits(make().batches(3)) == uninterrupted[3] and bits(make().batches(1)) == uninterrupted[1]
    assert len({images for epoch in uninterrupted for images, _, _ in epoch}) == 16  # and nothing is drawn twice
    half = whole.batches(2)
    next(half)
    assert bits(whole.batches(2)) == uninterrupted[2]  # a half-read epoch leaves no trace


def test_a_sample_is_augmented_alike_in_any_batch() -> None:
    one = {b.names[0]: b.images[0].tobytes() for b in Loader(CELLS, 1, shuffle=True, transform=AUGMENT).batches(5)}
    for batch in Loader(CELLS, 4, transform=AUGMENT).batches(5):
        for image, name in zip(batch.images, batch.names, strict=True):
            assert image.tobytes() == one[name]
    assert Loader(CELLS, 1, transform=AUGMENT).sample(5, 2).image.tobytes() == one[CELLS[2].name]


def test_every_seed_epoch_and_index_draws_its_own() -> None:
    def draw(sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(sample.image + rng.random(dtype=np.float32), sample.mask, sample.name)

    same = [CELLS[0]] * 5
    drawn = [
        i.tobytes() for seed in (0, 1) for e in (0, 1) for b in Loader(same, 5, seed=seed, transform=draw).batches(e) for i in b.images
    ]
    assert len(drawn) == 20 == len(set(drawn))


@pytest.mark.parametrize("prefetch", [1, 2, 50])
def test_prefetching_changes_no_bit(prefetch: int) -> None:
    plain = Loader(CELLS, 2, shuffle=True, transform=AUGMENT)
    ahead = Loader(CELLS, 2, shuffle=True, transform=AUGMENT, prefetch=prefetch)
    for epoch in range(2):
        assert bits(plain.batches(epoch)) == bits(ahead.batches(epoch))


def test_prefetching_ends_its_thread_and_passes_errors_on() -> None:
    def running() -> int:
        return sum(t.name.startswith("minidcnn-loader") for t in threading.enumerate())

    batches = Loader(CELLS, 1, prefetch=2).batches(0)
    next(batches)
    assert running() == 1
    batches.close()  # type: ignore[attr-defined]
    assert running() == 0

    def fail(sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.name == CELLS[3].name:
            raise DataError("three is bad")
        return sample

    seen = []
    with pytest.raises(DataError, match="three is bad"):
        for batch in Loader(CELLS, 1, transform=fail, prefetch=2).batches(0):
            seen.append(batch.names[0])
    assert seen == [CELLS[i].name for i in range(3)] and running() == 0


def test_weights_are_stacked_too() -> None:
    batch = next(Loader(CELLS, 2, transform=UNetWeights()).batches(0))
    assert batch.weights is not None and batch.weights.shape == (2, 24, 40) and batch.weights.dtype == np.float32
    plain = Sample(CELLS[0].image, CELLS[0].mask, "plain")
    with pytest.raises(DataError, match="only one carries a weight map"):
        collate([plain, UNetWeights()(CELLS[1])])


def test_samples_of_different_sizes_are_named() -> None:
    data = Arrays([np.zeros((4, 6)), np.zeros((4, 6)), np.zeros((6, 4))], [np.zeros((4, 6), int)] * 2 + [np.zeros((6, 4), int)], 2)
    batches = Loader(data, 3).batches(0)
    expected = r"0000 is 4x6 and 0002 is 6x4, so that they cannot share a batch; crop them to one size .* or use batch_size=1"
    with pytest.raises(DataError, match=expected):
        next(batches)
    assert [b.images.shape[2:] for b in Loader(data, 1).batches(0)] == [(4, 6), (4, 6), (6, 4)]
    assert [len(b) for b in Loader(data, 3, transform=RandomCrop((5, 5))).batches(0)] == [3]


def test_samples_that_do_not_fit_are_named() -> None:
    good = CELLS[0]
    with pytest.raises(DataError, match=f"{good.name} has 1 channels and rgb has 3"):
        collate([good, Sample(np.zeros((3, 24, 40), np.float32), good.mask, "rgb")])
    with pytest.raises(DataError, match="short: the image is 24x40 but its mask 23x40"):
        collate([Sample(good.image, good.mask[1:], "short")])
    with pytest.raises(DataError, match=r"floats: a mask must hold integer class indices .* got float64"):
        collate([Sample(good.image, good.mask * 1.0, "floats")])
    with pytest.raises(DataError, match="bytes: an image must be floating point"):
        collate([Sample((good.image * 255).astype(np.uint8), good.mask, "bytes")])
    with pytest.raises(DataError, match=r"must yield Sample.*got tuple"):
        next(Loader([(1, 2)], 1).batches(0))  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"must yield Sample.*got tuple"):
        collate([good, (1, 2)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loader(CELLS, 0), "batch_size must be at least 1.*batch_size=0"),
        (lambda: Loader(CELLS, 2, prefetch=-1), "prefetch=-1"),
        (lambda: Loader(CELLS[:0], 2), "is empty"),
        (lambda: Loader(CELLS, 8, drop_last=True), "7 samples and batch_size is 8; use a smaller batch"),
        (lambda: Loader(CELLS, 2).batches(-1), "epoch must not be negative"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_list_of_samples_is_a_data_set_too() -> None:
    assert isinstance(next(Loader([CELLS[2], CELLS[5]], 2).batches(0)), Batch)
