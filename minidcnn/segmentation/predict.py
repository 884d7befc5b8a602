"""Predicting images of any size: padded by mirroring, cut into tiles whose seams do not show, averaged over flips.

    probabilities = scores(model, images)                   # (N, C, H, W) -> (N, classes, H, W)
    mask = predict_mask(model, image, tile=512, flips=True)  # (C, H, W) -> (H, W)

Source of the tiles: Ronneberger, Fischer & Brox, "U-Net", 2015, section 2 ("overlap-tile strategy").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..backend import Array, image_dtype, kernels_of, nchw, nhwc, to_backend
from ..nn import constant_weights
from ..nn.module import evaluating
from ..tensor import Tensor
from .tiles import Axis, cut, tile_and_period

if TYPE_CHECKING:
    from ..models import Segmenter

TILE = 1024  # larger images are cut where nothing else is said: a network of 64 channels needs some GB for this many pixels squared
Progress = Callable[[int, int], object]  # (runs of the network done, runs in all)


def scores(model: Segmenter, images: Array, *, tile: int | None = None, flips: bool = False, progress: Progress | None = None) -> Array:
    """The probability of each class at each pixel.

    model: a Segmenter. It runs in eval mode without recording a graph; the mode of all its layers is restored.
    images: (N, C, H, W) floating point, normalised as in training; any N, H and W. They are padded by mirroring to what the network takes.
    tile: the network gets at most tile x tile pixels at once. Larger images are cut into overlapping tiles, one image at a time, so that
        the memory for activations does not grow with the image. Tiles of a network without padding (`model.margin` > 0) fit together
        exactly; those of a padding network fade into each other. None: the images go through whole, all N together.
    flips: average over the four flips of the image, each predicted in full: flipping an image then flips its prediction.
    progress: called with (done, total) after each run of the network.
    Returns (N, classes, H, W) float32 on NumPy. ValueError where images or tile do not fit the network; FloatingPointError if the network
    answers with NaN.
    """
    images = _checked(model, images)
    n, _, height, width = images.shape
    result = np.zeros((n, model.classes, height, width), np.float32)
    for at, (start, stop), band in _predict(model, images, tile, flips, progress):
        result[at, :, start:stop] = band
    return result


def whole_scores(model: Segmenter, images: Array) -> Array:
    """`scores` of images that go through the network whole and once: the same numbers, but left on the network's backend.

    Errors as there; on a GPU, FloatingPointError comes when a value is next read from there.
    """
    images = _checked(model, images)
    if not images.size:
        return np.zeros((len(images), model.classes, *images.shape[2:]), np.float32)
    rows, columns = _axes(model, images, None)
    pixels = nhwc(images)[:, rows.source(0)][:, :, columns.source(0)]
    answer = _answer(model, nchw(np.ascontiguousarray(pixels)))._array
    inner: Array = answer[:, :, rows.target(0)[0], columns.target(0)[0]]
    return inner.astype("float32", order="K", copy=False)


def predict_mask(
    model: Segmenter, image: Array, *, tile: int | None = None, flips: bool = False, progress: Progress | None = None
) -> Array:
    """The most probable class at each pixel: (C, H, W) -> (H, W) int64. See `scores`; of equal classes the first wins.

    With `tile`, no more than a few rows of tiles is kept in probabilities, so that an image of any size needs little more than itself.
    ValueError for anything but one image, else errors as of `scores`.
    """
    if np.ndim(image) != 3:
        raise ValueError(f"predict_mask takes one image (channels, height, width), got {np.shape(image)}; scores takes several")
    images = _checked(model, np.asarray(image)[None])
    mask = np.zeros(images.shape[2:], np.int64)
    for _, (start, stop), band in _predict(model, images, tile, flips, progress):
        mask[start:stop] = band[0].argmax(axis=0)
    return mask


def smallest_tile(model: Segmenter) -> int:
    """The least `tile` that `scores` takes for this network."""
    return tile_and_period(lambda n: model.suitable_size((n, n))[0], model.margin)[0]


def usual_tile(model: Segmenter) -> int:
    """TILE, or the least that the network takes if that is more."""
    return max(TILE, smallest_tile(model))


def _axes(model: Segmenter, images: Array, tile: int | None) -> tuple[Axis, Axis]:
    """How tiles cover the height and the width of the images."""
    height, width = images.shape[2:]
    rows = cut(height, lambda n: model.suitable_size((n, 1))[0], model.margin, tile)
    return rows, cut(width, lambda n: model.suitable_size((1, n))[1], model.margin, tile)


def _predict(
    model: Segmenter, images: Array, tile: int | None, flips: bool, progress: Progress | None
) -> Iterator[tuple[slice, tuple[int, int], Array]]:
    """(which images, [start, stop) of rows, their probabilities (n, classes, stop - start, W)), until all are done."""
    if not images.size:
        return
    rows, columns = _axes(model, images, tile)
    tiled = len(rows.windows) * len(columns.windows) > 1
    groups = [slice(i, i + 1) for i in range(len(images))] if tiled else [slice(0, len(images))]
    turns = [(False, False), (False, True), (True, False), (True, True)] if flips else [(False, False)]  # (up-down, left-right)
    total = len(groups) * len(turns) * len(rows.windows) * len(columns.windows)
    done = 0

    def ran() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with constant_weights(model, total):
        for at in groups:
            passes = [_Pass(model, _flipped(images[at], *turn), rows, columns, ran) for turn in turns]
            for start, stop in rows.bands():
                bands = []
                for turn, one in zip(turns, passes, strict=True):
                    span = (rows.size - stop, rows.size - start) if turn[0] else (start, stop)
                    bands.append(_flipped(one.rows_of(*span), *turn))
                yield at, (start, stop), bands[0] if len(bands) == 1 else np.mean(bands, axis=0)


class _Pass:
    """One turn of the images through all tiles, row of tiles by row of tiles, as their pixels are asked for."""

    def __init__(self, model: Segmenter, images: Array, rows: Axis, columns: Axis, ran: Callable[[], None]) -> None:
        self.model, self.images, self.rows, self.columns, self.ran = model, images, rows, columns, ran
        self.kept: dict[int, Array] = {}  # rows of tiles that the next pixels may need again

    def rows_of(self, start: int, stop: int) -> Array:
        """Probabilities of the image's rows [start, stop): (N, classes, stop - start, W). Ask for rows in one direction, up or down."""
        meeting = self.rows.meeting(start, stop)
        self.kept = {i: row for i, row in self.kept.items() if i in meeting}
        result = np.zeros((len(self.images), self.model.classes, stop - start, self.columns.size), np.float32)
        for i in meeting:
            if i not in self.kept:
                self.kept[i] = self._tile_row(i)
            source, target = self.rows.target(i, start, stop)
            result[:, :, target] += self.kept[i][:, :, source] * self.rows.weights(i)[source, None]
        return result

    def _tile_row(self, i: int) -> Array:
        """Row `i` of the tiles: (N, classes, its height, W)."""
        height = self.rows.windows[i][1] - self.rows.windows[i][0]
        row = np.zeros((len(self.images), self.model.classes, height, self.columns.size), np.float32)
        pixels = nhwc(self.images)[:, self.rows.source(i)]
        for j in range(len(self.columns.windows)):
            source, target = self.columns.target(j)
            answer = _answer(self.model, nchw(np.ascontiguousarray(pixels[:, :, self.columns.source(j)]))).numpy()
            row[..., target] += answer[..., source] * self.columns.weights(j)[source]
            self.ran()
        return row


def _answer(model: Segmenter, images: Array) -> Tensor:
    """One run of the network: (N, C, H, W) -> (N, classes, H - 2 margin, W - 2 margin), left on its backend."""
    weight = next(iter(model.parameters()))
    x = Tensor.wrap(to_backend(images.astype(image_dtype(weight.dtype), order="K", copy=False), weight.backend))
    with evaluating(model), no_grad():
        answer = F.softmax(model(x), 1, dtype=weight.dtype)
    kernels = kernels_of(answer._array)
    wrong = kernels.xp.where(kernels.all_finite([answer._array]), -1, 0)
    sentence = "the network answers with NaN: its training diverged, or the image holds NaN; use an earlier checkpoint"
    kernels.demand(wrong, lambda _: FloatingPointError(sentence))
    return answer


def _checked(model: Segmenter, images: Array) -> Array:
    """`images` as an array. ValueError unless they are floating (N, C, H, W) with pixels, and of the network's channels."""
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"scores takes images (N, channels, height, width), got {images.shape}")
    if images.dtype.kind != "f":
        raise ValueError(f"images must be floating point and normalised as in training, got {images.dtype}")
    if images.shape[1] != model.in_channels:
        raise ValueError(f"the network takes images of {model.in_channels} channels, got {images.shape[1]} in {images.shape}")
    if 0 in images.shape[2:]:
        raise ValueError(f"an image must have at least one pixel, got {images.shape[2]}x{images.shape[3]} (height x width)")
    return images


def _flipped(images: Array, up_down: bool, left_right: bool) -> Array:
    """(N, C, H, W) turned upside down, mirrored, both or neither: a view, and its own inverse."""
    return images[:, :, :: -1 if up_down else 1, :: -1 if left_right else 1]
