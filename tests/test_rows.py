"""Rows of pictures to the inch: where each one lies, what a legend lists and where, and names that are too long."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidcnn.segmentation import rows
from minidcnn.segmentation.rows import Line, _flow, draw_rows, drawable, figure_of, legend_entries, short

Draw = Callable[..., Any]
GRAY = np.full(3, 90, np.uint8)


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """draw_rows, which returns its figure."""
    kept: list[Any] = []
    save = rows.save
    monkeypatch.setattr(rows, "save", lambda figure, path: (kept.append(figure), save(figure, path)))

    def figure(*arguments: Any, **named: Any) -> Any:
        draw_rows(tmp_path / "rows.png", *arguments, **named)
        return kept.pop()

    return figure


def line(*size: int, count: int = 3, **named: str) -> Line:
    return Line([np.full((*size, 3), 40 + 50 * k, np.uint8) for k in range(count)], **named)


def boxes(figure: Any) -> np.ndarray:
    """(pictures, 4): left, bottom, right and top of each, in inches."""
    return np.array([axes.get_position().extents * np.tile(figure.get_size_inches(), 2) for axes in figure.axes])


def written(figure: Any, text: str) -> Any:
    """Where a text lies, in inches: left, bottom, right and top."""
    (found,) = (t for t in figure.texts if t.get_text() == text)
    return found.get_window_extent(figure.canvas.get_renderer()).extents / figure.dpi


@pytest.mark.parametrize(("title", "head"), [(None, 0.3), ("three rows", 0.55)])
def test_pictures_keep_their_shape_and_lie_evenly(title: str | None, head: float, draw: Draw) -> None:
    """Wide ones fill their column, tall ones are one and a half times as high as it is wide at most, flat ones can still be seen."""
    figure = draw(["a", "b", "c"], [line(20, 30), line(60, 15), line(2, 100)], [("x", GRAY)], panel=2.0, title=title)
    width, height = figure.get_size_inches()
    left, bottom, right, top = boxes(figure).reshape(3, 3, 4).transpose(2, 0, 1)
    np.testing.assert_allclose(right - left, [[2.0] * 3, [0.75] * 3, [2.0] * 3])
    np.testing.assert_allclose(top - bottom, [[4 / 3] * 3, [3.0] * 3, [0.2] * 3])
    np.testing.assert_allclose(left + right, np.tile((left + right)[0], (3, 1)))  # one above the other
    np.testing.assert_allclose([*(left[0, 1:] - right[0, :-1]), *(bottom[:-1, 0] - top[1:, 0]), width - right[0, -1]], 0.07)
    np.testing.assert_allclose([left[0, 0], height - top[0, 0], bottom[-1, 0]], [0.29, head, 0.06 + 0.21 + 0.12])
    heading, legend = written(figure, "b"), written(figure, "x")
    assert top[0, 0] < heading[1] < heading[3] < height and left[0, 1] < heading[0] < heading[2] < right[0, 1]
    assert 0 < legend[1] < legend[3] < bottom[-1, 0]
    if title is not None:
        assert written(figure, title)[1] > heading[3] and written(figure, title)[3] < height


def test_names_and_notes_lie_at_their_row(draw: Draw) -> None:
    """A name left of the row, at its middle; a note in the corner of the last picture, also of one that is narrow."""
    lines = [line(30, 40, name="first", note="75 %"), line(90, 20, name="second", note="50 %"), line(30, 40)]
    figure = draw(["a", "b", "c"], lines, [], panel=1.5)
    for row, (name, note) in enumerate((("first", "75 %"), ("second", "50 %"))):
        at, corner, last = written(figure, name), written(figure, note), boxes(figure)[3 * row + 2]
        assert 0 <= at[0] < at[2] < boxes(figure)[3 * row][0] and (at[1] + at[3]) / 2 == pytest.approx((last[1] + last[3]) / 2, abs=0.03)
        assert last[0] < corner[0] < last[0] + 0.1 and last[1] < corner[1] < last[1] + 0.1
    figure = draw(["a"], [line(20, 80, count=1, name="a name of forty letters, or a few fewer")], [], panel=1.5)
    assert [text.get_text() for text in figure.texts if "name" in text.get_text()] == ["a name …"]


def test_nothing_is_written_where_there_is_nothing_to_say(draw: Draw) -> None:
    figure = draw(["a", "b", "c"], [line(30, 40, name="first", note="75 %"), line(30, 40)], [], panel=1.5)
    assert [text.get_text() for text in figure.texts if text.get_text()] == ["a", "b", "c", "first", "75 %"]


@pytest.mark.parametrize("count", [1, 4, 9, 23])
def test_a_legend_is_read_row_by_row_and_nothing_overlaps(count: int, draw: Draw) -> None:
    names = [f"{k} {'wide ' * (1 + k * 7 % 4)}".strip() for k in range(count)]
    figure = draw(["a", "b"], [line(20, 30, count=2)], [(name, GRAY) for name in names], panel=2.2)
    width, _ = figure.get_size_inches()
    places = np.array([written(figure, name) for name in names])
    swatches = np.array([patch.get_bbox().extents * np.tile(figure.get_size_inches(), 2) for patch in figure.artists])
    in_rows = np.unique(-places[:, 1].round(2), return_inverse=True)[1].ravel()
    assert in_rows.tolist() == sorted(in_rows) and in_rows[0] == 0
    for a, b, same in zip(places[:-1], places[1:], np.diff(in_rows) == 0, strict=True):
        assert a[2] + 0.15 < b[0] if same else a[1] > b[3] - 0.05 and b[0] == pytest.approx(places[0, 0], abs=0.02)
    assert places[:, 0].min() > 0.22 and places[:, 2].max() < width and places[:, 1].min() > 0
    assert places[:, 3].max() < boxes(figure)[:, 1].min()
    middles = (places[:, 1::2].mean(axis=1), swatches[:, 1::2].mean(axis=1))
    assert (swatches[:, 2] < places[:, 0]).all() and (places[:, 0] - swatches[:, 2] < 0.1).all() and abs(np.subtract(*middles)).max() < 0.05
    columns = max(np.bincount(in_rows))
    assert len(set(in_rows)) == -(-count // columns)


def test_a_legend_has_as_few_rows_as_fit_each_column_as_wide_as_its_widest_entry() -> None:
    """By trying all numbers of rows, for names of many widths and rooms of many more."""
    figure, rng = figure_of(1.0, 1.0), np.random.default_rng(0)
    for _ in range(40):
        names = ["m" * n for n in rng.integers(1, 24, rng.integers(1, 14))]
        widths = [_flow(figure, [name, "x"], 99.0)[0][1][0] for name in names]  # where the second entry begins
        for room in rng.uniform(0.5, 1.1 * sum(widths) + 0.1, 5):
            lines = next(n for n in range(1, 14) if n >= len(names) or _wide(widths, -(-len(names) // n)) <= room)
            columns = -(-len(names) // lines)
            places, height = _flow(figure, names, room)
            assert height == pytest.approx(0.21 * lines)
            starts = [sum(max(widths[c::columns]) for c in range(i % columns)) for i in range(len(names))]
            np.testing.assert_allclose(places, [(x, height - 0.21 * (i // columns + 0.5)) for i, x in enumerate(starts)], atol=1e-9)


def _wide(widths: list[float], columns: int) -> float:
    return sum(max(widths[c::columns]) for c in range(columns))


def test_a_legend_is_as_wide_as_the_pictures(draw: Draw) -> None:
    """Two entries in one row, or in two where the second would reach over the last picture's edge."""
    names = ["one entry", "another entry"]
    figure = draw(["a"], [line(20, 30, count=1)], [(name, GRAY) for name in names], panel=9.0)
    first, second = (written(figure, name) for name in names)
    needed = second[0] - first[0] + (second[2] - second[0]) + 0.45
    for panel, rows_used in ((needed + 0.02, 1), (needed - 0.02, 2)):
        figure = draw(["a"], [line(20, 30, count=1)], [(name, GRAY) for name in names], panel=panel)
        assert len({round(written(figure, name)[1], 1) for name in names}) == rows_used


def test_swatches_have_the_colours_of_the_classes(draw: Draw) -> None:
    figure = draw(
        ["a"], [line(20, 30, count=1)], [("c", np.array([200, 40, 90], np.uint8)), ("ignored", "hatch"), ("more", "none")], panel=3
    )
    colour, stripes, nothing = figure.artists
    np.testing.assert_allclose(colour.get_facecolor(), [200 / 255, 40 / 255, 90 / 255, 1])
    assert (colour.get_hatch(), stripes.get_hatch(), nothing.get_hatch()) == (None, "/////", None)
    assert stripes.get_fill() and not nothing.get_fill() and nothing.get_linewidth() == 0


def test_a_name_wider_than_the_picture_has_a_row_of_its_own(draw: Draw) -> None:
    figure = draw(["a"], [line(20, 30, count=1)], [("n" * 60, GRAY), ("short", "hatch"), ("none of it", "none")], panel=1.0)
    heights = [written(figure, name)[1] for name in ("n" * 60, "short", "none of it")]
    assert all(a - b == pytest.approx(0.21, abs=0.05) for a, b in pairwise(heights))


# -- what a legend lists ------------------------------------------------------------------------------------------------------------------


def entries(count: int, *values: int) -> list[str]:
    colours = np.arange(3 * count).reshape(count, 3)
    found = legend_entries([np.array([[v]]) for v in values], [f"c{k}" for k in range(count)], colours)
    for name, swatch in found:
        assert isinstance(swatch, str) or swatch.tolist() == colours[int(name[1:])].tolist()
    return [name if not isinstance(swatch, str) else f"{name}: {swatch}" for name, swatch in found]


def test_few_classes_are_all_listed_and_of_many_those_that_are_seen() -> None:
    assert entries(24, 3) == [f"c{k}" for k in range(24)]
    assert entries(25, 3, 0, 24) == ["c0", "c3", "c24"]
    assert entries(60, *range(60)) == [f"c{k}" for k in range(60)]
    assert entries(63, *range(63)) == [*(f"c{k}" for k in range(60)), "and 3 more: none"]
    assert entries(61, *range(61))[-1] == "and 1 more: none"


@pytest.mark.parametrize("value", [-1, 3, 255])
def test_stripes_are_told_where_there_are_any(value: int) -> None:
    assert entries(3, 0, value) == ["c0", "c1", "c2", "ignored: hatch"]
    assert entries(30, 2, 27 + value if value == 3 else value)[1:] == ["ignored: hatch"]
    assert entries(3, 0, 2) == ["c0", "c1", "c2"]


# -- names --------------------------------------------------------------------------------------------------------------------------------


def test_long_names_end_with_dots() -> None:
    for inches, most in ((0.1, 8), (1.0, 14), (2.0, 28)):
        name = "abcdefghijklmnopqrstuvwxyzABCDEF"[: most + 1]
        assert short(name[:most], inches) == name[:most] and short(name, inches) == name[: most - 1] + "…"
    assert drawable("a\udcffb Straße 長") == short("a\udcffb Straße 長", 2.0) == "a?b Straße 長"


def test_names_are_no_formulas_and_any_bytes_can_be_drawn(draw: Draw) -> None:
    names = ["$a_1$ and $b^{", "x $\\frac{$ y", "\udce4 $", "$\\alpha$ \udce4"]
    figure = draw(
        ["a"], [line(20, 30, count=1, name=names[0])], [(name, GRAY) for name in map(drawable, names[1:3])], panel=2.0, title=names[3]
    )
    assert [t.get_text() for t in figure.texts if "$" in t.get_text()] and not any(
        t.get_parse_math() for t in figure.texts if "$" in t.get_text()
    )


def test_a_picture_says_nothing_of_the_program_that_drew_it(draw: Draw, tmp_path: Path) -> None:
    """So that the same picture is the same file with any version of matplotlib that draws it alike."""
    draw(["a"], [line(20, 30, count=1)], [("長 and 𐏓", GRAY)], panel=1.0)  # boxes where the font lacks them, and no warnings
    with Image.open(tmp_path / "rows.png") as image:
        assert "Software" not in image.info and image.size[0] == int(1.36 * 160)
