"""The default data set: generated microscope images of touching cells, so that the main job runs without any download.

Every image is drawn from its own random generator: image i of a split depends on (seed, split, size, i) alone, not on the count.
"""

from __future__ import annotations

import numpy as np

from ..window import integer, pair
from .dataset import Dataset
from .sample import Array, DataError, Sample, random_generator

_SPLITS = {"train": 240, "val": 60}  # default counts
_REACH = 1.35  # a cell is drawn in a box of this many largest radii, so that the membranes to its neighbours are seen


class Cells(Dataset):
    """Touching cells of varied size, shape and brightness under uneven light, out of focus and noisy. One channel, two classes.

    split: "train" or "val"; independent draws. count: number of images (240 or 60). size: (height, width) or an int. seed: another set.
    Membranes between touching cells are background, as in the U-Net paper (section 3), so that a good mask keeps the cells apart.
    Images are quantised to 8 bits, as a camera does. An image is drawn when first asked for (some 5 ms) and then kept.
    DataError for another split and for a negative count or seed, ValueError for a size below 16, TypeError for numbers that are no integers.
    """

    classes = ("background", "cell")
    channels = 1

    def __init__(self, split: str = "train", count: int | None = None, size: int | tuple[int, int] = (96, 128), seed: int = 0) -> None:
        if split not in _SPLITS:
            raise DataError(f"Cells: split must be one of {', '.join(_SPLITS)}, got {split!r}")
        self.split, self.seed = split, seed
        self._count = _SPLITS[split] if count is None else integer(count, "Cells: count")
        self.size = pair(size, "Cells: size", 16)
        if self._count < 0 or integer(seed, "Cells: seed") < 0:
            raise DataError(f"Cells: count and seed must not be negative, got count {self._count} and seed {seed}")
        self.name = f"cells {split}"
        self.palette = np.array([[24, 26, 48], [255, 170, 60]], np.uint8)
        self._drawn: dict[int, tuple[Array, Array]] = {}

    def __len__(self) -> int:
        return self._count

    def load(self, index: int) -> Sample:
        image, instances = self._draw(index)
        mask = (instances > 0).astype(np.int64)
        return Sample(image[None].astype(np.float32) / np.float32(255), mask, self.label(index), self.ignore_index)

    def label(self, index: int) -> str:
        return f"cells-{self.split}-{index:04d}"

    def instances(self, index: int) -> Array:
        """(H, W) int32: 0 for background, 1, 2, ... for the cells, as `unet_weight_map(..., instances=True)` takes it. IndexError for others."""
        return self._draw(range(self._count)[index])[1].astype(np.int32)

    def _draw(self, index: int) -> tuple[Array, Array]:
        if index not in self._drawn:
            rng = random_generator(self.seed, list(_SPLITS).index(self.split), index)
            self._drawn[index] = draw_cells(self.size, rng)
        return self._drawn[index]


def draw_cells(size: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    """One image (H, W) uint8 and its instance map (H, W) uint16."""
    height, width = size
    nearest = np.full(size, 1e6, np.float32)  # signed distance to the border of the nearest cell, in pixels, inside negative
    second = np.full(size, 1e6, np.float32)  # and to that of the second nearest
    owner = np.zeros(size, np.uint16)
    body = np.zeros(size, np.float32)  # brightness of the nearest cell, without light, blur and noise
    grain = _smooth(rng.standard_normal(size, np.float32), 1.2) * 3

    for number, (y, x, radius) in enumerate(_place(size, rng), 1):
        outline = _Outline(radius, rng)
        top, left = max(int(y - outline.reach), 0), max(int(x - outline.reach), 0)
        box = np.s_[top : min(int(y + outline.reach) + 1, height), left : min(int(x + outline.reach) + 1, width)]
        rows, columns = np.arange(box[0].start, box[0].stop, dtype=np.float32), np.arange(box[1].start, box[1].stop, dtype=np.float32)
        place = (columns - np.float32(x)) + 1j * (rows[:, None] - np.float32(y))  # offsets from the centre as complex numbers
        edge, distance = outline.at(place)
        closer = distance < nearest[box]
        second[box] = np.where(closer, nearest[box], np.minimum(second[box], distance))
        nearest[box] = np.where(closer, distance, nearest[box])
        owner[box] = np.where(closer, number, owner[box])
        body[box] = np.where(closer, _brightness(place, edge, distance, radius, rng), body[box])

    gap = second - nearest  # along the seam between two cells both distances are equal
    inside = (nearest < 0) & ~(gap < 2.2)
    instances = np.where(inside, owner, 0).astype(np.uint16)

    floor = np.float32(rng.uniform(0.14, 0.24))
    scene = np.where(nearest < 0, body * (1 + 0.10 * grain), floor * (1 + 0.05 * grain))
    seam = (nearest < 0.5) & (gap < 2.2)
    scene = np.where(seam, floor * np.float32(rng.uniform(0.9, 1.5)), scene)
    scene = (scene + _debris(size, rng)).astype(np.float32)
    scene = _smooth(scene, float(rng.uniform(0.5, 0.85))) * _glow(size, 0.3, rng) * np.float32(rng.uniform(0.85, 1.25))
    scene = scene + np.float32(rng.uniform(0.05, 0.35)) * _glow(size, 0.0, rng)  # haze from above and below the plane in focus
    photons = np.float32(rng.uniform(150, 400))  # shot noise: a pixel's variance grows with its brightness
    scene = scene + rng.standard_normal(size, np.float32) * np.sqrt(np.maximum(scene, 0) / photons + np.float32(0.012**2))
    return np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8), instances


class _Outline:
    """A closed curve r(angle) = radius (1 + sum_k a_k cos(k angle + phase_k)): k = 2 stretches, 3 to 5 dent and wrinkle."""

    def __init__(self, radius: float, rng: np.random.Generator) -> None:
        self.radius = np.float32(radius)
        strengths = rng.uniform(0, 1, 4) * (0.24, 0.10, 0.06, 0.04)
        self.waves = (strengths * np.exp(1j * rng.uniform(0, 2 * np.pi, 4))).astype(np.complex64)
        self.reach = float(radius * (1 + strengths.sum()) * _REACH + 2)

    def at(self, place: Array) -> tuple[Array, Array]:
        """For offsets from the centre (complex): the curve's radius in their direction, and their distance from the curve (inside < 0)."""
        length = np.abs(place)
        unit = place / np.maximum(length, np.float32(1e-3))
        # cos(k angle + phase) is the real part of e^(i phase) unit^k: Horner's rule, no angles needed
        wave = np.zeros_like(unit)
        for strength in self.waves[::-1]:
            wave = (wave + strength) * unit
        edge = self.radius * (1 + (wave * unit).real)
        return edge, length - edge


def _place(size: tuple[int, int], rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres (y, x) and radii. Cells come in clumps: most are set beside an earlier one, close enough to touch it."""
    height, width = size
    scale = rng.uniform(0.85, 1.2)
    wanted = int(height * width * rng.uniform(0.45, 0.75) / (np.pi * (10.5 * scale) ** 2)) + 1
    cells: list[tuple[float, float, float]] = []
    for _ in range(12 * wanted):
        if len(cells) == wanted:
            break
        radius = scale * float(np.clip(rng.lognormal(np.log(10), 0.25), 6, 17))
        if cells and rng.random() < 0.75:
            y0, x0, r0 = cells[rng.integers(len(cells))]
            angle, apart = rng.uniform(0, 2 * np.pi), (r0 + radius) * rng.uniform(0.84, 1.0)
            y, x = y0 + apart * np.sin(angle), x0 + apart * np.cos(angle)
        else:
            y, x = rng.uniform(0, height), rng.uniform(0, width)
        fits = all((y - v) ** 2 + (x - u) ** 2 > (0.82 * (r + radius)) ** 2 for v, u, r in cells)
        if fits and -4 < y < height + 4 and -4 < x < width + 4:
            cells.append((float(y), float(x), radius))
    return cells


def _brightness(place: Array, edge: Array, distance: Array, radius: float, rng: np.random.Generator) -> Array:
    """Of one cell: brighter towards its rim, with a darker nucleus off its centre."""
    base, rim = np.float32(rng.uniform(0.42, 0.72)), np.float32(rng.uniform(0.02, 0.18))
    centre = radius * 0.3 * rng.uniform(0, 1) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    nucleus = np.abs(place - np.complex64(centre)) / (edge * np.float32(rng.uniform(0.35, 0.5)))
    shade = np.float32(rng.uniform(0.1, 0.45)) / (1 + np.maximum(nucleus, np.float32(1e-3)) ** 8)
    return np.asarray(base * (1 - shade) + rim * np.exp(-np.square((distance + 2) / 2)))


def _debris(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """A few faint specks out of focus: bright, round, and not cells."""
    specks = np.zeros(size, np.float32)
    rows, columns = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)
    for _ in range(rng.poisson(3)):
        y, x, spread = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(1, 3)
        row, column = np.exp(-np.square((rows - y) / spread) / 2), np.exp(-np.square((columns - x) / spread) / 2)
        specks += (np.float32(rng.uniform(0.04, 0.14)) * row * column).astype(np.float32)
    return specks


def _glow(size: tuple[int, int], floor: float, rng: np.random.Generator) -> Array:
    """(H, W) in [floor, 1]: a wide bright spot somewhere near the image, as of a lamp out of centre."""
    rows, columns = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None], np.linspace(-1, 1, size[1], dtype=np.float32)
    y, x = rng.uniform(-1.1, 1.1, 2).astype(np.float32)
    spread = np.float32(rng.uniform(0.8, 1.4))
    glow = np.exp(-(np.square(rows - y) + np.square(columns - x)) / (2 * spread**2))
    return np.asarray(np.float32(floor) + np.float32(1 - floor) * glow)


def _smooth(image: Array, sigma: float) -> Array:
    """Gaussian blur of an (H, W) image, sigma in pixels, mirrored at the edges."""
    radius = int(3 * sigma + 0.5)
    taps = np.exp(-np.square(np.arange(-radius, radius + 1, dtype=np.float32) / np.float32(sigma)) / 2)
    taps /= taps.sum()
    padded = np.pad(image, radius, mode="reflect")
    rows = sum(tap * padded[i : i + image.shape[0]] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * rows[:, i : i + image.shape[1]] for i, tap in enumerate(taps)))
