"""The figures of docs/math: the files are what the script draws, every one is used, and what a figure says can be read without it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest

MATH = Path(__file__).resolve().parent.parent / "docs" / "math"
SVG = "{http://www.w3.org/2000/svg}"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of docs/math/figures as a module, as `python docs/math/figures` finds it."""
    monkeypatch.setattr(sys, "path", [str(MATH / "figures"), *sys.path])
    spec = importlib.util.spec_from_file_location(f"figures_{name.strip('_')}", MATH / "figures" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)
    return module


def figures() -> list[Path]:
    return sorted((MATH / "images").glob("*.svg"))


def used() -> dict[str, list[tuple[str, str]]]:
    """Image file -> (chapter, alternative text) of each place that shows it."""
    places: dict[str, list[tuple[str, str]]] = {}
    for page in sorted(MATH.glob("*.md")):
        for alt, name in re.findall(r"!\[([^\]]*)\]\(images/([^)]+)\)", page.read_text(encoding="utf-8")):
            places.setdefault(name, []).append((page.name, alt))
    return places


# -- the files ---------------------------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_script_draws() -> None:
    done = subprocess.run([sys.executable, MATH / "figures", "--check"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"run `python docs/math/figures`: {done.stdout}{done.stderr}"


def test_every_figure_is_used_and_every_used_figure_exists() -> None:
    assert set(used()) == {path.name for path in figures()}


def test_figures_stand_in_the_chapter_that_their_number_names() -> None:
    assert {name: {page[:2] for page, _ in places} for name, places in used().items()} == {name: {name[:2]} for name in used()}


def test_every_use_says_in_words_what_one_sees() -> None:
    short = [(page, name) for name, places in used().items() for page, alt in places if len(alt.split()) < 6]
    assert not short, "an alternative text of at least six words"


@pytest.mark.parametrize("path", figures(), ids=lambda p: p.stem)
def test_a_figure_is_readable_everywhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    root = ET.fromstring(text)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert 300 <= width <= 760 and height <= 760, "shown at its own size on a page 700 to 800 pixels wide"
    assert root.get("role") == "img" and root.get("aria-label")
    assert (root.findtext(f"{SVG}title") or "").strip() and len((root.findtext(f"{SVG}desc") or "").split()) >= 6
    assert "prefers-color-scheme:dark" in text and not re.search(r"(href|src|url)\s*[=(]\s*[\"']?(?!#)\w", text)  # nothing from elsewhere
    for node in root.iter(f"{SVG}text"):
        words, x, y, font = "".join(node.itertext()), *(float(node.get(name, -1)) for name in ("x", "y", "font-size"))
        assert font >= 11 and 0 <= y <= height, words
        if "transform" not in node.attrib:  # about half as wide as high, whatever the font
            long, role = 0.5 * font * len(words), node.get("class", "")
            left = x - (long / 2 if "middle" in role else long if "end" in role else 0)
            assert left >= 0 and left + long <= width, f"{words!r} is cut off"
    for node in root.iter(f"{SVG}rect"):
        if node.get("x"):
            x, y, w, h = (float(node.get(name, 0)) for name in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height, (x, y, w, h)


@pytest.mark.parametrize(("name", "panel", "count"), [("05-checkerboard", 234, 36), ("06-gain", 700, 48)])
def test_the_greater_number_is_the_brighter_pixel_in_light_and_in_dark(name: str, panel: int, count: int) -> None:
    root = ET.fromstring((MATH / "images" / f"{name}.svg").read_text(encoding="utf-8"))
    words = {(float(node.get("x", 0)), float(node.get("y", 0))): node for node in root.iter(f"{SVG}text")}
    panels: dict[int, list[tuple[Fraction, int]]] = {}
    for node in root.iter(f"{SVG}rect"):
        if (colour := node.get("fill", "")).startswith("#"):
            x, y, w, h = (float(node.get(key, 0)) for key in ("x", "y", "width", "height"))
            number = words[next(at for at in words if x < at[0] < x + w and y < at[1] < y + h)]
            assert "ink" not in number.get("class", "") and colour == f"#{colour[1:3] * 3}"  # the page's colours move neither
            panels.setdefault(int(x) // panel, []).append((Fraction("".join(number.itertext())), int(colour[1:3], 16)))
    assert {len(pixels) for pixels in panels.values()} == {count}
    for pixels in panels.values():
        greys = dict(sorted(set(pixels)))
        assert sorted(greys.values()) == list(greys.values()) and len(greys) == len(set(greys.values())) == len(set(pixels))
        assert min(greys.values()) >= 117  # black words on it have a contrast of at least 4.5


# -- the script ---------------------------------------------------------------------------------------------------------------------


def test_check_names_what_is_missing_old_or_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load("__main__", monkeypatch)
    monkeypatch.setattr(main, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(main, "drawn", lambda: {"a.svg": "<a/>\n", "b.svg": "<b/>\n"})
    assert main.main([]) == 0 and main.main(["--check"]) == 0
    (tmp_path / "images" / "a.svg").write_text("<a />\n")
    (tmp_path / "images" / "b.svg").rename(tmp_path / "images" / "c.svg")
    before = sorted(path.read_text() for path in (tmp_path / "images").iterdir())
    assert main.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "b.svg is missing",
        "c.svg belongs to no figure",
        "a.svg is not what its figure draws",
    ]
    assert sorted(path.read_text() for path in (tmp_path / "images").iterdir()) == before


def test_two_figures_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = load("__main__", monkeypatch)
    for module in ("chapters_91_92", "chapters_93_94"):
        (tmp_path / f"{module}.py").write_text("from draw import Figure\nFIGURES = {'x': lambda: Figure(1, 1, '', '')}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(main, "HERE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="chapters_93_94: there is a figure x already"):
        main.drawn()


def test_the_writer_rounds_escapes_and_refuses_unknown_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = load("draw", monkeypatch)
    figure = draw.Figure(300, 100, 'a "title" & more', "x < y")
    place = figure.cells(10, 20, [[1, None], ["<", -0.0]], [["blue", ""], ["red hatched", "plain"]], 30, 20)
    figure.text(1 / 3, -0.01, "*w* & 1")
    figure.arrow(0, 0, 3, 4)
    figure.dot(-0.04, 2)
    assert (place.x(1), place.y(0), place.right, place.bottom) == (55, 30, 70, 60)
    text = figure.svg()
    assert ET.fromstring(text).findtext(f"{SVG}title") == 'a "title" & more'
    assert 'x="0.3" y="4.9"' in text and '<tspan font-style="italic">w</tspan> &amp; 1' in text and 'cx="0"' in text
    assert text.count("<rect") == 4 and text.count("#hatch") == 1  # an empty kind has no edge; hatching lies over its area
    with pytest.raises(ValueError, match="pink: unknown; hues are ink"):
        figure.rect(0, 0, 1, 1, "pink")
