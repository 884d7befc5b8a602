"""Batches that travel while others are computed: in the right order, on a stand-in that knows of no order but what events make."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import training
from cupy_streams import Event, Stream
from simulated import ON_DEVICE

import minidcnn
from minidcnn.backend import Kernels, switch
from minidcnn.backend.uploads import PinnedUploads, Uploads

watched = pytest.mark.skipif(ON_DEVICE, reason="watches the stand-in's streams")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, which compares every access to memory with the order that events make; on a device CuPy itself."""
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module(streams=True))
    monkeypatch.setattr(switch, "_made", {})
    with minidcnn.use_kernels("reference"):
        yield importlib.import_module("cupy")
    minidcnn.use("numpy")
    if not ON_DEVICE:
        cupy_stand_in.make_module()


def batches(count: int = 7) -> list[tuple[np.ndarray, np.ndarray, None]]:
    """Images in channels-last memory, masks cut out of larger ones, no weights."""
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((2, 4, 5, 3)).astype(np.float32).transpose(0, 3, 1, 2) for _ in range(count)]
    return [(x, rng.integers(0, 9, (2, 6, 7))[:, 1:-1, 1:-1], None) for x in images]


def transported(uploads: Uploads, ahead: int, cupy: Any) -> list[float]:
    """Every batch put `ahead` of its use; what a computation makes of each."""
    waiting, results, todo = [], [], iter(batches())
    while True:
        for batch in todo:
            waiting.append(uploads.put(batch))
            if len(waiting) > ahead:
                break
        if not waiting:
            return results
        x, labels, nothing = uploads.take(waiting.pop(0))
        assert nothing is None and x is not None and labels is not None
        assert (x.shape, labels.shape, labels.dtype) == ((2, 3, 4, 5), (2, 4, 5), np.int64)
        results.append(x * 2 + labels[:, None])


def expected() -> list[np.ndarray]:
    return [x * 2 + labels[:, None] for x, labels, _ in batches()]


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_every_batch_arrives_whole_and_in_order(ahead: int, cupy: Any) -> None:
    uploads = PinnedUploads(cupy)
    for result, wanted in zip(transported(uploads, ahead, cupy), expected(), strict=True):
        np.testing.assert_array_equal(result.get(), wanted)
    assert len(uploads._free) == ahead + 1 and not uploads._placed  # memory is used again
    assert ON_DEVICE or uploads.stream.non_blocking
    assert uploads.stream is not cupy_stand_in.device.default


def test_the_layout_is_kept(cupy: Any) -> None:
    uploads = PinnedUploads(cupy)
    x, _, _ = uploads.take(uploads.put(batches()[0]))
    assert x is not None and x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_other_shapes_and_batches_that_nobody_took(cupy: Any) -> None:
    uploads = PinnedUploads(cupy)
    for height in (4, 6, 4, 2):
        kept = [uploads.put((np.full((2, 3, height, 5), i, np.float32), None)) for i in range(3)]
        first, _ = uploads.take(kept[0])
        assert first is not None and first.shape == (2, 3, height, 5) and not first.get().any()
        uploads.clear()  # the other two
        assert not uploads._placed
    assert len(uploads._free) == 3


def test_a_thread_puts_and_another_takes(cupy: Any) -> None:
    uploads = PinnedUploads(cupy)
    placed: list[Any] = []
    thread = threading.Thread(target=lambda: placed.extend(uploads.put(b) for b in batches(3)))
    thread.start()
    thread.join()
    for one, wanted in zip(placed, batches(3), strict=True):
        np.testing.assert_array_equal(uploads.take(one)[0].get(), wanted[0])  # type: ignore[union-attr]


def test_on_numpy_nothing_travels() -> None:
    uploads = Kernels(np).uploads()
    batch = batches()[0]
    assert type(uploads) is Uploads
    assert all(a is b for a, b in zip(uploads.take(uploads.put(batch)), batch, strict=True))


# -- the stand-in finds what is missing ----------------------------------------------------------------------------------------------------


def no_wait(target: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Stream.wait_event
        monkeypatch.setattr(Stream, "wait_event", lambda self, event: None if target(self) else real(self, event))

    return plant


def no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """`released` is never recorded: the copy into a slot waits for nothing."""
    real = Event.record
    monkeypatch.setattr(Event, "record", lambda self, stream=None: None if stream is self.device.default else real(self, stream))


def no_host_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Event, "synchronize", lambda self: None)


PLANTED = {
    "the computing stream does not wait for the copy": no_wait(lambda stream: stream is stream.device.default),
    "the copy does not wait until its target has been read": no_wait(lambda stream: stream is not stream.device.default),
    "nobody says that the target has been read": no_record,
    "the host fills pinned memory without waiting for the copy before": no_host_wait,
}


@watched
@pytest.mark.parametrize("bug", PLANTED)
def test_a_missing_wait_is_a_race(bug: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)
    with pytest.raises(AssertionError, match="race: "):
        transported(PinnedUploads(cupy), 1, cupy)


@watched
def test_without_the_wait_the_numbers_are_wrong_as_well(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED["the computing stream does not wait for the copy"](monkeypatch)
    monkeypatch.setattr(cupy_stand_in, "tracking", False)
    results = transported(PinnedUploads(cupy), 1, cupy)
    assert not any(np.array_equal(r._host, wanted) for r, wanted in zip(results, expected(), strict=True))


# -- the trainer ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_training_sends_its_batches_ahead(prefetch: int, cupy: Any, tmp_path: Path) -> None:
    minidcnn.use("cupy")
    config = training.options(backend="cupy", prefetch=prefetch, epochs=2, limit=1)
    trainer = training.make(tmp_path / "there", config)
    there = trainer.fit()
    assert isinstance(trainer.uploads, PinnedUploads) and not trainer.uploads._placed  # also those prepared for nothing
    assert ON_DEVICE or f"0 waits for {trainer.uploads.stream.number}" in cupy_stand_in.device.log
    minidcnn.use("numpy")
    here = training.make(tmp_path / "here", training.options(backend="numpy", prefetch=prefetch, epochs=2, limit=1)).fit()
    for a, b in zip(there, here, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4) and a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3)
