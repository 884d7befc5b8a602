"""A small writer of SVG for the figures of docs/math: rows of numbers, matrices, arrows, brackets and lines, in light and in dark.

Coordinates are pixels from the upper left corner, rounded to tenths, so that the same figure is the same bytes on every machine. Colours
are named by hue; every hue is drawn as a pale area with a strong edge, and a figure never says something by colour alone: it has the number or
the word beside it, a dashed edge or hatching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

# -- colours: (strong, pale) on a light page and on a dark one ------------------------------------------------------------------------

LIGHT = {
    "ink": ("#1f2328", "none"),
    "soft": ("#59636e", "none"),
    "plain": ("#818b98", "#f6f8fa"),
    "grey": ("#59636e", "#dfe3e8"),
    "blue": ("#0a58b8", "#cfe4ff"),
    "orange": ("#a84300", "#ffdfc2"),
    "green": ("#0f6b2f", "#cdf0d3"),
    "purple": ("#6f3cc0", "#e7dcff"),
    "red": ("#b3152c", "#ffd7d9"),
}
DARK = {
    "ink": ("#f0f3f6", "none"),
    "soft": ("#a9b3bf", "none"),
    "plain": ("#7d8793", "#1c222a"),
    "grey": ("#a9b3bf", "#3a424d"),
    "blue": ("#79b8ff", "#12365f"),
    "orange": ("#ffa657", "#5a2f0c"),
    "green": ("#63d180", "#12431f"),
    "purple": ("#c4a5ff", "#3f2a6b"),
    "red": ("#ff8a8f", "#5c1a22"),
}
HUES = tuple(LIGHT)


def _rules(colours: dict[str, tuple[str, str]]) -> str:
    """For each hue: .s an area with its edge, .l a line, .f a filled shape, .t text."""
    rules = [f".grain{{stroke:{colours['soft'][0]}}}"]
    for hue, (strong, pale) in colours.items():
        rules.append(f".s.{hue}{{fill:{pale};stroke:{strong}}}.l.{hue}{{stroke:{strong}}}.f.{hue},.t.{hue}{{fill:{strong}}}")
    return "".join(rules)


STYLE = (
    ".s,.l{stroke-width:1.5}.l{fill:none;stroke-linejoin:round}.dashed{stroke-dasharray:4 3}.bold{stroke-width:2.5}.grain{stroke-width:1}"
    ".t{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}.middle{text-anchor:middle}.end{text-anchor:end}"
    ".strong{font-weight:600}"
    f"{_rules(LIGHT)}@media (prefers-color-scheme:dark){{{_rules(DARK)}}}"
)
HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path class="grain" d="M0 0V6"/></pattern></defs>'
)


@dataclass(frozen=True)
class Cells:
    """Where a grid of cells was drawn: the coordinates that arrows and labels need."""

    left: float
    top: float
    width: float
    height: float
    rows: int
    columns: int

    def x(self, column: float) -> float:
        """The middle of a column."""
        return self.left + (column + 0.5) * self.width

    def y(self, row: float) -> float:
        """The middle of a row."""
        return self.top + (row + 0.5) * self.height

    @property
    def right(self) -> float:
        return self.left + self.columns * self.width

    @property
    def bottom(self) -> float:
        return self.top + self.rows * self.height


class Figure:
    """A drawing of `width` by `height` pixels; `title` and `description` are what a reader who cannot see it is told.

    A `kind` is a hue of HUES and, behind it, any of "dashed" (edge), "bold" (edge or line), "hatched" (areas) and "strong" (text).
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width, self.height, self.title, self.description = width, height, title, description
        self._parts: list[str] = []

    # -- lines and areas -----------------------------------------------------------------------------------------------------------

    def rect(self, x: float, y: float, width: float, height: float, kind: str = "plain", radius: float = 2) -> None:
        words = kind.split()
        box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"'
        self._parts.append(f'<rect class="{_class("s", [w for w in words if w != "hatched"])}" {box}/>')
        if "hatched" in words:
            self._parts.append(f'<rect fill="url(#hatch)" {box}/>')

    def pixel(self, x: float, y: float, width: float, height: float, brightness: float, words: object) -> None:
        """A pixel of a picture, from a dark grey (0) to a light one (1), with its number in black: the same on a light and on a dark page."""
        grey = f"{round(255 * (0.35 + 0.55 * brightness)):02x}"
        self._parts.append(f'<rect fill="#{grey * 3}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>')
        place = f'x="{_n(x + width / 2)}" y="{_n(y + height / 2 + 4.9)}"'
        self._parts.append(f'<text class="t middle" {place} font-size="14">{escape(str(words))}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "soft") -> None:
        self._path(f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}", kind)

    def polyline(self, points: Sequence[tuple[float, float]], kind: str = "ink") -> None:
        """A line through `points`."""
        self._path("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points), kind)

    def dot(self, x: float, y: float, kind: str = "ink", radius: float = 3) -> None:
        self._parts.append(f'<circle class="{_class("f", kind.split())}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"/>')

    def arrow(self, x1: float, y1: float, x2: float, y2: float, kind: str = "soft") -> None:
        """A straight arrow to (x2, y2)."""
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        self.line(x1, y1, x2 - 6 * ux, y2 - 6 * uy, kind)
        self._head(x2, y2, ux, uy, kind)

    def bracket(self, x1: float, x2: float, y: float, label: str = "", kind: str = "soft", below: bool = True, size: float = 13) -> None:
        """A horizontal bracket from x1 to x2 at height y, opening away from its label, which stands below it (or above)."""
        way = 1 if below else -1
        self._path(f"M{_n(x1)} {_n(y - 5 * way)}V{_n(y)}H{_n(x2)}V{_n(y - 5 * way)}", kind)
        if label:
            self.text((x1 + x2) / 2, y + (8 + size / 2) * way, label, kind, size)

    # -- words and numbers -----------------------------------------------------------------------------------------------------------

    def text(self, x: float, y: float, words: object, kind: str = "ink", size: float = 14, anchor: str = "middle", angle: int = 0) -> None:
        """`words` around (x, y), or from x on ("start"), or up to x ("end"); y is the middle of the line. *Letters* become italic."""
        parts = [escape(part) for part in str(words).split("*")]
        marked = "".join(f'<tspan font-style="italic">{part}</tspan>' if i % 2 else part for i, part in enumerate(parts))
        turn = f' transform="rotate({angle} {_n(x)} {_n(y)})"' if angle else ""
        style = _class("t", [*kind.split(), *([] if anchor == "start" else [anchor])])
        self._parts.append(f'<text class="{style}" x="{_n(x)}" y="{_n(y + 0.35 * size)}" font-size="{_n(size)}"{turn}>{marked}</text>')

    def cells(
        self, x: float, y: float, values: Any, kinds: Any = "plain", size: float = 32, height: float | None = None, font: float = 14
    ) -> Cells:
        """A row or a grid of numbers or words, one to a cell; None is an empty cell. `kinds`: one for all, or one for each.

        A kind of "" leaves the cell without edge and area.
        """
        grid = [list(row) for row in _rows(values)]
        rows, columns = len(grid), len(grid[0])
        names = [[kinds] * columns] * rows if isinstance(kinds, str) else [list(row) for row in _rows(kinds)]
        place = Cells(x, y, size, height or size, rows, columns)
        for i, row in enumerate(grid):
            for j, value in enumerate(row):
                if names[i][j]:
                    self.rect(x + j * size + 1, y + i * place.height + 1, size - 2, place.height - 2, names[i][j])
                if value is not None:
                    self.text(place.x(j), place.y(i), value, "ink", font)
        return place

    def matrix(self, x: float, y: float, values: Any, kinds: Any = "", size: float = 30, height: float | None = None) -> Cells:
        """The same between square brackets: a matrix, or a column of numbers given as [[1], [2]]."""
        place = self.cells(x, y, values, kinds, size, height)
        for side, way in ((place.left - 3, 5), (place.right + 3, -5)):
            self._path(f"M{_n(side + way)} {_n(place.top - 2)}H{_n(side)}V{_n(place.bottom + 2)}H{_n(side + way)}", "ink")
        return place

    # -- the file --------------------------------------------------------------------------------------------------------------------

    def svg(self) -> str:
        """The whole file."""
        size = f'width="{_n(self.width)}" height="{_n(self.height)}" viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label={quoteattr(self.title)} {size}>\n'
            f"<title>{escape(self.title)}</title>\n<desc>{escape(self.description)}</desc>\n<style>{STYLE}</style>\n{HATCH}\n{body}\n</svg>\n"
        )

    def _path(self, d: str, kind: str) -> None:
        self._parts.append(f'<path class="{_class("l", kind.split())}" d="{d}"/>')

    def _head(self, x: float, y: float, ux: float, uy: float, kind: str) -> None:
        back, side = (x - 8 * ux, y - 8 * uy), (4 * uy, -4 * ux)
        points = " ".join(
            f"{_n(a)},{_n(b)}" for a, b in ((x, y), (back[0] + side[0], back[1] + side[1]), (back[0] - side[0], back[1] - side[1]))
        )
        self._parts.append(f'<polygon class="{_class("f", [kind.split()[0]])}" points="{points}"/>')


def _n(value: float) -> str:
    """A coordinate: tenths at most, no -0."""
    return f"{round(float(value), 1) + 0.0:g}"


def _class(role: str, words: list[str]) -> str:
    if unknown := set(words) - {*HUES, "dashed", "bold", "strong", "middle", "end"}:
        raise ValueError(f"{' '.join(sorted(unknown))}: unknown; hues are {', '.join(HUES)}")
    return " ".join([role, *words])


def _rows(values: Any) -> list[Any]:
    """A row as the only row of a grid; arrays as lists."""
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    nested = any(isinstance(row, Sequence) and not isinstance(row, str) for row in values)
    return values if nested else [values]
