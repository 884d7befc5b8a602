"""What the page must compute, by the engine: `python docs/page/vectors.py` writes vectors.json, `--check` compares it instead.

Every case is a state of the page (integers only) with what minidcnn makes of it. The page's own arithmetic runs all of them in Node, its views are
compared with some in a browser. Cases are drawn by a checksum of their name, so that they are the same everywhere and for ever.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidcnn import Tensor, grad
from minidcnn import functional as F
from minidcnn.backend import kernels_of
from minidcnn.window import Pair, Window

FILE = Path(__file__).resolve().with_name("vectors.json")
MOST_ENTRIES = 600  # of a matrix that is written down

Array = np.ndarray[Any, Any]
Case = dict[str, Any]


# -- the state of the page ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    outputPadding: int = 0  # the page's own name
    dilation: int = 1


@dataclass(frozen=True)
class State:
    mode: str
    rows: Axis
    columns: Axis
    kernel: Array
    input: Array
    ceil: bool
    probe: int

    @property
    def window(self) -> Window:
        both = (self.rows, self.columns)
        fields: list[Any] = [tuple(getattr(axis, name) for axis in both) for name in ("kernel", "stride", "padding", "dilation")]
        return Window(*fields, ceil_mode=self.ceil)

    @property
    def options(self) -> dict[str, Pair]:
        return {name: getattr(self.window, name) for name in ("stride", "padding", "dilation")}

    @property
    def extra(self) -> Pair:
        return self.rows.outputPadding, self.columns.outputPadding


SINGLE_ROW = Axis(1, 1)


class Draw:
    """Numbers that depend on a name only."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def __call__(self, low: int, high: int) -> int:
        self.count += 1
        return low + zlib.crc32(f"{self.name}/{self.count}".encode()) % (high - low + 1)

    def grid(self, rows: int, columns: int, low: int, high: int) -> Array:
        return np.array([[self(low, high) for _ in range(columns)] for _ in range(rows)], np.int64)


def state(draw: Draw, mode: str, rows: Axis, columns: Axis, ceil: bool = False) -> State:
    kernel = draw.grid(rows.kernel, columns.kernel, -4, 5)
    pixels = draw.grid(rows.size, columns.size, -2, 4) if mode == "pool" else draw.grid(rows.size, columns.size, -5, 9)  # with ties
    return State(mode, rows, columns, kernel, pixels, ceil, draw(0, 99))


# -- what the engine makes of it ----------------------------------------------------------------------------------------------------


def image(a: Array) -> Tensor:
    return Tensor(a.reshape(1, 1, *a.shape))


def plane(t: Tensor) -> Array:
    return t.numpy()[0, 0]


def probe_image(shape: Pair, probe: int) -> Array:
    """The image on the other side of <Cx, y> = <x, C^T y>, as the page draws it."""
    i, j = np.indices(shape)
    return (5 * probe + 3 * i + 2 * j + i * j) % 7 - 3


def conv(s: State, x: Array) -> Array:
    return plane(F.conv2d(image(x), image(s.kernel), **s.options))


def conv_transpose(s: State, y: Array, kernel: Array, size: Pair) -> Array:
    return plane(F.conv_transpose2d(image(y), image(kernel), output_size=size, **s.options))


def units(shape: Pair) -> Tensor:
    """One image for each pixel: 1 there, else 0."""
    return Tensor(np.eye(shape[0] * shape[1], dtype=np.int64).reshape(-1, 1, *shape))


def interior(s: State, kernel: Array) -> Array:
    """What ones become, far from the border, in each of the s x s phases of the uncropped transposed convolution."""
    (sh, sw), (down, along) = s.window.stride, s.window.span
    first = (-(-(down - 1) // sh), -(-(along - 1) // sw))  # the first whole group of pixels that no border reaches
    ones = np.ones((first[0] + 2, first[1] + 2), np.int64)
    full = plane(F.conv_transpose2d(image(ones), image(kernel), stride=s.window.stride, dilation=s.window.dilation))
    return full[first[0] * sh :, first[1] * sw :][:sh, :sw]


def common(s: State, small: Pair, large: Pair) -> Case:
    counts = conv_transpose(s, np.ones(small, np.int64), np.ones_like(s.kernel), large)
    per_phase = interior(s, np.ones_like(s.kernel))
    return {
        "overlap": counts.tolist(),
        "interior": bool((per_phase == per_phase[0, 0]).all() and counts.max() == per_phase[0, 0]),
        "everywhere": bool((counts == counts[0, 0]).all()),
        "sums": interior(s, s.kernel).ravel().tolist(),
    }


def of_conv(s: State) -> Case:
    y = conv(s, s.input)
    small, large = y.shape, s.input.shape
    probe = probe_image(small, s.probe)
    columns = F.unfold(image(s.input), s.window.kernel, s.window.dilation, s.window.padding, s.window.stride)
    folded = F.fold(columns, large, s.window.kernel, s.window.dilation, s.window.padding, s.window.stride)
    case = {"output": y.tolist(), "probe": probe.tolist(), "back": conv_transpose(s, probe, s.kernel, large).tolist()}
    if y.size * s.input.size <= MOST_ENTRIES:
        unit = F.conv2d(units(large), image(s.kernel), **s.options).numpy()  # (large pixels, 1, *small)
        case["matrix"] = unit.reshape(len(unit), -1).T.tolist()
    case |= {"columns": columns.numpy()[0].tolist(), "folded": plane(folded).tolist()}
    return case | common(s, small, large)


def of_conv_transpose(s: State) -> Case:
    x = plane(F.conv_transpose2d(image(s.input), image(s.kernel), output_padding=s.extra, **s.options))
    small, large = s.input.shape, x.shape
    probe = probe_image(large, s.probe)
    back = conv(s, probe)[: small[0], : small[1]]  # output_padding above stride makes room for more positions
    full = plane(F.conv_transpose2d(image(s.input), image(s.kernel), stride=s.window.stride, dilation=s.window.dilation))
    case = {"output": x.tolist(), "probe": probe.tolist(), "back": back.tolist()}
    if x.size * s.input.size <= MOST_ENTRIES:
        unit = F.conv_transpose2d(units(small), image(s.kernel), output_padding=s.extra, **s.options).numpy()  # (small pixels, 1, *large)
        case["matrix"] = unit.reshape(len(unit), -1).tolist()
    return case | {"full": full.tolist()} | common(s, small, large)


def of_pool(s: State) -> Case:
    x = Tensor(s.input.reshape(1, 1, *s.input.shape).astype(np.float64), requires_grad=True)
    y, indices = F.max_pool2d(x, s.window.kernel, **s.options, ceil_mode=s.ceil, return_indices=True)
    small = y.shape[2:]
    probe = probe_image(small, s.probe)

    def unpool(values: Array) -> Array:
        """At fixed winners pooling is a gather, and its derivative the transpose: unpooling."""
        return plane(grad(y, [x], values.reshape(y.shape).astype(np.float64), retain_graph=True)[0]).astype(np.int64)

    overwritten = np.zeros(s.input.size, np.int64)
    for index, value in zip(indices.numpy().ravel(), y.numpy().ravel(), strict=True):
        overwritten[index] = value
    seen = kernels_of(s.input).col2im(np.ones((1, 1, *s.window.kernel, *small), np.int64), s.window, s.input.shape)
    return {
        "output": plane(y).astype(np.int64).tolist(),
        "indices": plane(indices).tolist(),
        "unpooled": unpool(y.numpy()).tolist(),
        "overwritten": overwritten.reshape(s.input.shape).tolist(),
        "wins": unpool(np.ones(small)).tolist(),
        "overlap": seen[0, 0].tolist(),
        "guessed": list(Window.of(s.window.kernel, s.window.stride, s.window.padding).image_size(small)),
        "probe": probe.tolist(),
        "back": unpool(probe).tolist(),
    }


PROBLEMS = {  # a part of the engine's message -> what the page calls it
    "does not fit": "window",
    "must be smaller than stride": "output_padding",
    "gives an output of size": "empty",
    "must be at most half the window's span": "pool_padding",
    "touches padding only": "padding_only",
}


def expected(s: State) -> Case:
    """What the engine gives, or which of its errors it raises."""
    try:
        return {"conv": of_conv, "conv_transpose": of_conv_transpose, "pool": of_pool}[s.mode](s)
    except ValueError as error:
        (problem,) = (name for part, name in PROBLEMS.items() if part in str(error))
        return {"problem": problem}


# -- the cases ------------------------------------------------------------------------------------------------------------------------


def axis(draw: Draw, mode: str, most: int, kernel: int | None = None, stride: int | None = None, dilation: int | None = None) -> Axis:
    k, s, d = kernel or draw(1, 4), stride or draw(1, 3), dilation or draw(1, 2)
    span = d * (k - 1) + 1
    if mode == "conv":
        size = draw(max(1, span - 8), max(most, span - 8))  # with padding 4, the window fits
        least = max(0, -((size - span) // 2))
        return Axis(size, k, s, draw(least, min(4, least + 2)), 0, d)
    if mode == "pool":
        p = draw(0, span // 2)
        return Axis(draw(max(1, span - 2 * p), min(8, span + most)), k, s, p, 0, d)
    size = draw(1, most)
    extra = draw(0, min(3, max(s, d) - 1))
    return Axis(size, k, s, draw(0, min(4, ((size - 1) * s + span + extra - 1) // 2)), extra, d)


def states() -> Iterator[tuple[str, State]]:
    """Every kernel, stride and dilation in one dimension; in two, axes that differ and axes that are linked; pooling; what must be refused."""
    for mode in ("conv_transpose", "conv"):
        for k in range(1, 6):
            for s in range(1, 5):
                for d in range(1, 4):
                    draw = Draw(name := f"{mode} 1-D k{k} s{s} d{d}")
                    yield name, state(draw, mode, SINGLE_ROW, axis(draw, mode, 5 if mode == "conv_transpose" else 8, k, s, d))
    for mode, cases, most in (("conv_transpose", 45, 4), ("conv", 35, 6), ("pool", 35, 4)):
        for i in range(cases):
            draw = Draw(name := f"{mode} 2-D {i}")
            rows = axis(draw, mode, most)
            columns = rows if i % 5 == 4 else axis(draw, mode, most)
            yield name, state(draw, mode, rows, columns, mode == "pool" and i % 2 == 1)
    for i in range(25):
        draw = Draw(name := f"pool 1-D {i}")
        yield name, state(draw, "pool", SINGLE_ROW, axis(draw, "pool", 5), i % 2 == 1)
    yield from refused(6)


def refused(each: int) -> Iterator[tuple[str, State]]:
    """The first `each` states, drawn without regard to what fits, of every error in every mode."""
    for mode, problems in {
        "conv": ["window"],
        "conv_transpose": ["output_padding", "empty"],
        "pool": ["pool_padding", "window", "padding_only"],
    }.items():
        for problem in problems:
            found = 0
            for i in range(100_000):
                draw = Draw(name := f"{mode} refused: {problem} {i}")
                columns, rows = (Axis(draw(1, 4), draw(1, 5), draw(1, 4), draw(0, 4), draw(0, 3), draw(1, 3)) for _ in range(2))
                s = state(draw, mode, rows if i % 2 else SINGLE_ROW, columns, mode == "pool" and i % 3 == 1)
                if expected(s) == {"problem": problem}:
                    yield name, s
                    found += 1
                if found == each:
                    break


def cases() -> Iterator[Case]:
    for name, s in states():
        yield {
            "name": name,
            "mode": s.mode,
            "dims": 1 if s.rows == SINGLE_ROW else 2,
            "linked": s.rows == s.columns,
            "rows": asdict(s.rows),
            "columns": asdict(s.columns),
            "kernel": s.kernel.tolist(),
            "input": s.input.tolist(),
            "ceilMode": s.ceil,
            "probe": s.probe,
            "expected": expected(s),
        }


def text() -> str:
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases()) + "\n]\n"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"usage: python docs/page/vectors.py [--check], not {' '.join(arguments)}", file=sys.stderr)
        return 2
    fresh = text()
    if not arguments:
        FILE.write_text(fresh, encoding="utf-8")
        print(f"{FILE.name}: {len(fresh.splitlines()) - 2} cases")
        return 0
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == fresh:
        return 0
    print(f"{FILE.name} is not what the engine computes; run python docs/page/vectors.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
