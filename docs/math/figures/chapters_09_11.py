"""Figures of chapters 9 to 11: receptive fields, the crops of FCN and U-Net, differences and their steps, Winograd's factorisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from draw import Figure

from minidcnn import Tensor, nn
from minidcnn.backend.cpu.transforms import matrices
from minidcnn.models import FCN8s, UNet
from minidcnn.models.geometry import Placement, size_behind
from minidcnn.study import conv_transpose1d
from minidcnn.window import Window

# -- chapter 9 --------------------------------------------------------------------------------------------------------------------


def receptive_field() -> Figure:
    """What output 3 of a convolution, a pooling and a convolution depends on, with the number of paths to each pixel."""
    fig = Figure(
        700,
        360,
        "The receptive field of one output",
        "Four rows, the image of 12 pixels at the bottom. Output 3 at the top touches 3 pixels of the pooled row, 6 of the row below, "
        "8 of the image, with 1 2 3 3 3 3 2 1 paths to them.",
    )
    layers = (Window((1, 3), (1, 1), (0, 1)), Window((1, 2), (1, 2)), Window((1, 3), (1, 1), (0, 1)))
    names = ("image", "convolution", "pooling", "convolution")
    sizes, places = [12], [Placement()]
    for window in layers:
        sizes.append(window.positions((1, sizes[-1]))[1])
        places.append(places[-1].window(window, 1))
    paths = [np.eye(sizes[3], dtype=int)[3]]
    for window in reversed(layers):
        paths.append(conv_transpose1d(paths[-1], np.ones(window.kernel[1], int), window.stride[1], window.padding[1]))
    paths.reverse()  # the image first
    left, step, high = 110, 40, 34
    tops = [300, 210, 120, 30]

    def x(level: int, i: int) -> float:
        """The middle of output i, above the middle of what it sees."""
        place = places[level]
        return left + (float((i - place.shift) / place.scale) + 0.5) * step

    for level in (3, 2, 1):
        window = layers[level - 1]
        for i in np.flatnonzero(paths[level]):
            for a in range(window.kernel[1]):
                fig.line(
                    x(level, i), tops[level] + high, x(level - 1, i * window.stride[1] + a - window.padding[1]), tops[level - 1], "blue"
                )
    for level in range(4):
        fig.text(left - 12, tops[level] + high / 2, names[level], "ink", 14, "end")
        for i, count in enumerate(paths[level]):
            kind = "blue bold" if count else "plain dashed"
            fig.cells(x(level, i) - step / 2, tops[level], [count or None], kind, step, high)
        where = np.flatnonzero(paths[0])
        seen, jump = _seen(layers[:level]), 1 / places[level].scale
        fig.text(left + 12 * step + 10, tops[level] + high / 2 - 9, f"sees {seen}", "soft", 13, "start")
        fig.text(left + 12 * step + 10, tops[level] + high / 2 + 9, f"jump {jump}", "soft", 13, "start")
    for i in (where[0], where[-1]):
        fig.text(x(0, i), tops[0] + high + 12, f"pixel {i}", "soft", 12)
    return fig


def _seen(windows: tuple[Window, ...]) -> int:
    size, jump = 1, 1
    for window in windows:
        size, jump = size + (window.span[1] - 1) * jump, jump * window.stride[1]
    return size


def fcn_crop() -> Figure:
    """Where FCN-8s's image begins among its scores, and where a centre crop would begin."""
    net = FCN8s(classes=2, in_channels=1, width=1)
    layers = list(net.features)
    offset4, offset3, offset = net.offsets

    def scores(n: int) -> int:
        size = size_behind([*layers, *net.classifier], n)
        for step, pool, crop in ((net.upscore2, 3, offset4), (net.upscore_pool4, 2, offset3)):
            size = min(size_behind([step], size), size_behind(layers[: net.pools[pool] + 1], n) - crop)
        return size_behind([net.upscore8], size)

    fig = Figure(
        700,
        400,
        "The crop of FCN-8s",
        "Above: 568 scores for an image of 500 pixels, of which 31 lie before it and 37 behind. Below: for sizes from 470 to 570 a centre "
        "crop would begin between 31 and 46.5, in a sawtooth; the image always begins at 31.",
    )
    n = 500
    out = scores(n)
    x0, top = 66, 46
    fig.rect(x0, top, out, 30, "grey hatched")
    fig.rect(x0 + offset, top, n, 30, "blue")
    fig.text(x0 + offset + n / 2, top + 15, f"the image, {n} pixels")
    fig.bracket(x0, x0 + out, top - 8, f"{out} scores", "soft", below=False)
    fig.bracket(x0, x0 + offset, top + 38, str(offset), "soft")
    fig.bracket(x0 + offset + n, x0 + out, top + 38, str(out - n - offset), "soft")
    fig.text(x0 + out / 2, top + 52, f"half of the surplus is {(out - n) // 2}, but the left margin is {offset}", "soft", 13)

    x0, bottom, first, last = 66, 350, 470, 570

    def at(size: float, crop: float) -> tuple[float, float]:
        return x0 + (size - first) * 5.68, bottom - (crop - 28) * 9.5

    fig.line(*at(first, 28), *at(last, 28))
    fig.line(*at(first, 28), *at(first, 48))
    for size in range(470, 571, 20):
        fig.line(*at(size, 28), at(size, 28)[0], bottom + 5)
        fig.text(at(size, 28)[0], bottom + 17, size, "soft", 12)
    fig.text((at(first, 0)[0] + at(last, 0)[0]) / 2, bottom + 38, "pixels of the image", "soft", 13)
    for crop in (31, 35, 40, 45):
        fig.line(x0 - 5, at(first, crop)[1], x0, at(first, crop)[1])
        fig.text(x0 - 10, at(first, crop)[1], crop, "soft", 12, "end")
    fig.text(18, (at(0, 28)[1] + at(0, 48)[1]) / 2, "crop begins at", "soft", 13, angle=-90)
    fig.polyline([at(first, offset), at(last, offset)], "blue bold")
    teeth: list[list[tuple[float, float]]] = [[]]
    for size in range(first, last + 1):
        if size > first and scores(size) != scores(size - 1):
            teeth.append([])
        teeth[-1].append(at(size, (scores(size) - size) / 2))
    for tooth in teeth:
        fig.polyline(tooth, "orange bold dashed")
    fig.text(at(560, 0)[0], at(0, 29.6)[1], "the image", "blue", 13)
    fig.text(at(519, 0)[0], at(0, 44.3)[1], "a centre crop", "orange", 13, "start")
    return fig


def unet() -> Figure:
    """The sizes of the unpadded U-Net for an image of 572 pixels, and what is cropped on the way across."""
    net = UNet(base=1)
    rows = nn.summary(net, (1, 1, 572, 572)).rows
    sizes = {row.name: row.output_shape[2] for row in rows if row.type in ("Conv2d", "ConvTranspose2d")}
    pooled = [572, *(row.output_shape[2] for row in rows if row.type == "MaxPool2d")]
    fig = Figure(
        700,
        400,
        "The sizes of U-Net",
        "A U of five levels. Down: 572 becomes 568, 284 becomes 280, 140 becomes 136, 68 becomes 64, 32 becomes 28. Up: 56 becomes 52, 104 "
        "becomes 100, 200 becomes 196, 392 becomes 388. Across, maps are cropped by 88, 40, 16 and 4 pixels a side.",
    )
    wide, high, gap, indent, fall = 50, 30, 34, 56, 74

    def convolve(left: float, right: float, y: float, before: int, after: int) -> None:
        """Two boxes and an arrow: before at `left`, after at `right`."""
        for x, size in ((left, before), (right, after)):
            fig.rect(x, y, wide, high, "blue")
            fig.text(x + wide / 2, y + high / 2, size)
        fig.arrow(left + wide, y + high / 2, right, y + high / 2)
        fig.text((left + wide + right) / 2 - 3, y + high / 2 - 10, f"− {before - after}", "soft", 12)

    for level, encoded in enumerate(pooled):
        x, y = 20 + indent * level, 24 + fall * level
        kept = sizes[f"encoder.{level}.2"]
        if level == 4:
            convolve(x, 700 - x - wide, y, encoded, kept)
            break
        convolve(x, x + wide + gap, y, encoded, kept)
        down = x + wide + gap + 11
        fig.arrow(down, y + high, down, y + fall)
        fig.text(down - 8, y + high + 22, "÷ 2", "soft", 12, "end")
        before, after, crop = sizes[f"upsample.{3 - level}"], sizes[f"decoder.{3 - level}.2"], net.crops[3 - level]
        if kept - 2 * crop != before:
            raise ValueError(f"{kept} cropped by {crop} a side is not {before}")
        back = 700 - x - 2 * wide - gap
        convolve(back, 700 - x - wide, y, before, after)
        start = x + 2 * wide + gap
        fig.arrow(start, y + high / 2, back, y + high / 2, "orange dashed")
        fig.text((start + back) / 2 - 3, y + high / 2 - 11, f"{crop} cropped a side" if level < 3 else crop, "orange", 12)
        fig.arrow(700 - down, y + fall, 700 - down, y + high)
        fig.text(700 - down + 8, y + high + 22, "× 2", "soft", 12, "start")
    return fig


# -- chapter 10 -------------------------------------------------------------------------------------------------------------------


def tie() -> Figure:
    """The maximum of x and 5 around the tie, with the secant of a central difference."""
    fig = Figure(
        700,
        250,
        "A central difference across a corner",
        "The graph of the maximum of x and 5: slope 0 to the left of 5, slope 1 to the right. The secant from 4 to 6 has slope one half.",
    )

    def at(x: float, y: float) -> tuple[float, float]:
        return 130 + (x - 3) * 110, 210 - (y - 4.5) * 70

    fig.arrow(*at(2.7, 4.5), *at(7.2, 4.5))
    for x in (3, 4, 5, 6, 7):
        fig.line(*at(x, 4.5), at(x, 0)[0], at(0, 4.5)[1] + 5)
        fig.text(at(x, 0)[0], at(0, 4.5)[1] + 18, {4: "5 − *h*", 6: "5 + *h*", 5: "5"}.get(x, ""), "soft", 13)
    fig.text(at(7.35, 0)[0], at(0, 4.5)[1], "*x*", "ink", 14)
    fig.polyline([at(3, 5), at(5, 5), at(7, 7)], "blue bold")
    low, high = (max(x, 5) for x in (4, 6))
    fig.polyline([at(3, low - (high - low) / 2), at(7, high + (high - low) / 2)], "orange dashed bold")
    for x, y in ((4, low), (6, high)):
        fig.dot(*at(x, y), "orange", 5)
        fig.line(*at(x, y), *at(x, 4.5), "soft dashed")
    fig.text(at(3.02, 0)[0], at(0, 5)[1] - 14, "slope 0", "blue", 13, "start")
    fig.text(at(6.45, 0)[0], at(0, 6.75)[1], "slope 1", "blue", 13, "end")
    fig.text(at(7.05, 0)[0], at(0, 6.5)[1], f"secant: slope {Fraction(high - low, 2)}", "orange", 13, "start")
    fig.text(at(7.05, 0)[0], at(0, 7)[1], "max(*x*, 5)", "blue", 13, "start")
    return fig


def step() -> Figure:
    """The mean relative error of the central difference of 1/x at 400 points between 1 and 2, for steps 2^-1, 2^-2, ..."""
    fig = Figure(
        700,
        380,
        "The error of a difference against its step",
        "Both axes logarithmic. Two V shapes: in float32 the error is least, 1e-5, at a step of 4e-3; in float64 least, 1e-11, at 4e-6. "
        "To the right it grows as the square of the step, to the left as one over the step.",
    )

    def at(h: float, error: float) -> tuple[float, float]:
        return 660 + 38 * math.log10(h), 40 - 24 * math.log10(error)

    fig.line(*at(1e-15, 1e-12), *at(1, 1e-12))
    fig.line(*at(1e-15, 1e-12), *at(1e-15, 1))
    for power in range(-15, 1, 3):
        x, y = at(10.0**power, 1e-12)
        fig.line(x, y, x, y + 5)
        fig.text(x, y + 17, f"1e{power}" if power else "1", "soft", 12)
    for power in range(-12, 1, 3):
        x, y = at(1e-15, 10.0**power)
        fig.line(x - 5, y, x, y)
        fig.text(x - 10, y, f"1e{power}" if power else "1", "soft", 12, "end")
    fig.text(at(10**-7.5, 1)[0], 365, "step *h*", "soft", 13)
    fig.text(22, at(1, 1e-6)[1], "relative error", "soft", 13, angle=-90)
    for dtype, last, kind in ((np.float64, 49, "blue bold"), (np.float32, 21, "orange bold dashed")):
        errors = [_error(dtype, j) for j in range(1, last + 1)]
        fig.polyline([at(2.0**-j, e) for j, e in enumerate(errors, 1)], kind)
        j = errors.index(min(errors)) + 1
        fig.dot(*at(2.0**-j, errors[j - 1]), kind.split()[0], 4)
        x, y = at(2.0**-j, errors[j - 1])
        fig.text(
            x + (-10 if dtype == np.float64 else 12),
            y + 8,
            np.dtype(dtype).name,
            kind.split()[0],
            13,
            "end" if dtype == np.float64 else "start",
        )
    fig.text(at(10**-14.3, 1)[0], at(1, 10**-6.6)[1], "too small: as 1/*h*", "soft", 13, "start")
    fig.text(at(10**-3.7, 1)[0], at(1, 10**-8.6)[1], "too large: as *h*²", "soft", 13, "start")
    return fig


def _error(dtype: Callable[[float], np.floating], j: int) -> float:
    points = [1 + i * 0.6180339887498949 % 1 for i in range(400)]
    x = np.array(points, dtype)
    up, down = x + dtype(2.0**-j), x - dtype(2.0**-j)
    values = [(1 / Tensor(a)).numpy().astype(float) for a in (up, down)]
    slopes = (values[0] - values[1]) / (up.astype(float) - down)
    return math.fsum(abs(slopes * -(x.astype(float) ** 2) - 1)) / len(x)


# -- chapter 11 -------------------------------------------------------------------------------------------------------------------


def winograd() -> Figure:
    """F(2, 3) on x = (1, 2, 3, 4) and w = (1, 2, 3)."""
    a_t, g, b_t = (np.array(m, dtype=object) for m in matrices(2, 3, (0, 1, -1)))
    x, w = np.array([1, 2, 3, 4]), np.array([1, 2, 3])
    pixels, filter = b_t @ x, g @ w
    products = pixels * filter
    fig = Figure(
        700,
        330,
        "Winograd's F(2, 3)",
        f"Pixels 1 2 3 4 become {' '.join(map(str, pixels))}, weights 1 2 3 become {' '.join(map(str, filter))}; their four products "
        f"{' '.join(map(str, products))} become the outputs {' '.join(map(str, a_t @ products))}.",
    )

    def column(values: np.ndarray) -> list[list[str]]:
        return [[_number(v)] for v in values]

    def grid(matrix: np.ndarray) -> list[list[str]]:
        return [[_number(v) for v in row] for row in matrix]

    size = 27
    rows = (38, 192)
    for y, matrix, vector, out, names, kind in (
        (rows[0], b_t, x, pixels, ("*B*ᵀ", "*x*"), "blue"),
        (rows[1], g, w, filter, ("*G*", "*w*"), "orange"),
    ):
        first = fig.matrix(130 - size * matrix.shape[1], y, grid(matrix), size=size)
        second = fig.matrix(150, y + size * (4 - len(vector)) / 2, column(vector), kind, size)
        fig.text((first.left + first.right) / 2, y - 16, names[0])
        fig.text(second.x(0), second.top - 16, names[1])
        fig.text(196, y + 2 * size, "=", "ink", 16)
        result = fig.matrix(216, y, column(out), kind, size + 6, size)
        fig.arrow(result.right + 12, result.y(1.5), 308, 173 + (-34 if y == rows[0] else 34))
    middle = 173 - 2 * size
    fig.text(282, 173, "⊙", "ink", 18)
    product = fig.matrix(318, middle, column(products), "purple bold", size + 10, size)
    fig.text(product.x(0), middle - 18, "4 products", "purple", 13)
    fig.arrow(product.right + 12, 173, product.right + 42, 173)
    last = fig.matrix(product.right + 56, 173 - size, grid(a_t), size=size)
    fig.text((last.left + last.right) / 2, last.top - 18, "*A*ᵀ")
    again = fig.matrix(last.right + 20, middle, column(products), "purple", size + 10, size)
    fig.text(again.right + 24, 173, "=", "ink", 16)
    y = fig.matrix(again.right + 44, 173 - size, column(a_t @ products), "green", size + 10, size)
    fig.text(y.x(0), y.top - 18, "*y*")
    return fig


def _number(value: object) -> str:
    text = {Fraction(1, 2): "½", Fraction(-1, 2): "−½"}.get(value) if isinstance(value, Fraction) else None
    return text or str(value).replace("-", "−")


def cost() -> Figure:
    """Products per output and the growth of the numbers that cancel, for tiles of 1, 2, 4 and 6 outputs a side."""
    half = Fraction(1, 2)
    fig = Figure(
        700,
        250,
        "What larger tiles save and cost",
        "Products for each output of a 3x3 kernel: 9 by the definition, 4 with F(2, 3), 2.25 with F(4, 3), 1.78 with F(6, 3). Growth of the "
        "numbers that cancel along one axis: 1, 2.67, 16 and 22.56.",
    )
    fig.text(120, 22, "products for each output", "blue", 13, "start")
    fig.text(410, 22, "growth of what cancels", "orange", 13, "start")
    points = {1: (), 2: (0, 1, -1), 4: (0, 1, -1, 2, -2), 6: (0, 1, -1, 2, -2, half, -half)}
    for i, (outputs, at) in enumerate(points.items()):
        y = 40 + 52 * i
        fig.text(105, y + 17, f"F({outputs}, 3)" if at else "definition", "ink", 14, "end")
        products = Fraction((outputs + 2) ** 2, outputs**2)
        growth = Fraction(1)
        if at:
            a_t, g, b_t = (abs(np.array(m, dtype=object)) for m in matrices(outputs, 3, tuple(map(Fraction, at))))
            growth = max(a_t @ ((g @ np.ones(3, int)) * (b_t @ np.ones(outputs + 2, int)))) / 3
        for x, value, scale, kind in ((120, products, 24, "blue"), (410, growth, 10, "orange")):
            fig.rect(x, y, float(value) * scale, 34, kind)
            fig.text(x + float(value) * scale + 8, y + 17, f"{float(value):.3g}" if value.denominator > 1 else value, "ink", 13, "start")
    return fig


FIGURES = {
    "09-receptive-field": receptive_field,
    "09-fcn-crop": fcn_crop,
    "09-unet": unet,
    "10-tie": tie,
    "10-step": step,
    "11-winograd": winograd,
    "11-cost": cost,
}
