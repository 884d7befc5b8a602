"""The site builds without warnings, needs no network, and its reference lists every public name."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

for _package in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install -e ".[docs]"')

ROOT = Path(__file__).resolve().parent.parent
EXTENSIONS = ROOT / "docs" / "extensions"
PUBLIC = ["", ".functional", ".nn", ".nn.init", ".optim", ".optim.lr_scheduler", ".models", ".data", ".data.transforms", ".segmentation"]
PUBLIC += [".segmentation.metrics", ".interop", ".gradcheck", ".study", ".testing", ".backend", ".window"]


# -- what a page holds ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The ids of a page, what it links to, and what a browser would fetch for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag != "a":
            self.fetched += [given[name] for name in ("src", "href", "data", "poster") if name in given]
            self.fetched += re.findall(r"url\(['\"]?([^)'\"]+)", given.get("style", ""))


def read(site: Path) -> dict[Path, Page]:
    """Every page of the site but the interactive one, which has tests of its own."""
    return {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "transposed-convolution.html"
    }


def dead_links(pages: dict[Path, Page]) -> Iterator[str]:
    """Links inside the site that lead to no page, or to no place on it."""
    for path, page in pages.items():
        for link in {*page.links, *page.fetched}:
            if re.match(r"[a-z]+:|//", link):
                continue
            address, _, anchor = unquote(link).partition("#")
            name = address.partition("?")[0]
            target = (path.parent / name).resolve() if name else path
            if not target.is_file():
                yield f"{path.name} links to {link}, which is not there"
            elif anchor and target in pages and anchor not in pages[target].ids:
                yield f"{path.name} links to {link}, but {target.name} has no {anchor}"


def fetches(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """What a browser would fetch from elsewhere to show the site."""
    for path, page in pages.items():
        yield from (f"{path.name} fetches {url}" for url in page.fetched if re.match(r"(https?:)?//", url))
    for style in site.rglob("*.css"):
        yield from (
            f"{style.name} fetches {url}" for url in re.findall(r"(?:url\(|@import )\W*((?:https?:)?//[^)\"' ]+)", style.read_text())
        )


# -- what is public --------------------------------------------------------------------------------------------------------------------


def public(module: ModuleType) -> list[str]:
    """The names of __all__, or all functions and classes that are written in the module."""
    named = getattr(module, "__all__", None)
    if named is not None:
        return [name for name in named if not inspect.ismodule(getattr(module, name))]
    here = [(n, v) for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__]
    return [n for n, v in here if inspect.isfunction(v) or inspect.isclass(v)]


def inventory(site: Path) -> dict[str, str]:
    """Full name -> kind of everything that the reference documents."""
    from sphinx.util.inventory import InventoryFile

    data = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {name: kind for kind in data.data if kind.startswith("py:") and kind != "py:module" for name in data.data[kind]}


def unlisted(site: Path) -> Iterator[str]:
    """Public names that the reference lacks. A thing that two modules offer may be listed under either name."""
    listed = inventory(site)
    modules = {f"minidcnn{suffix}": importlib.import_module(f"minidcnn{suffix}") for suffix in PUBLIC}
    things = {id(getattr(modules.get(name.rpartition(".")[0]), name.rpartition(".")[2], None)) for name in listed} - {id(None)}
    for module in modules.values():
        names = public(module)
        assert names, f"{module.__name__} offers nothing?"
        for name in names:
            full = f"{module.__name__}.{name}"
            if full not in listed and id(getattr(module, name)) not in things:
                yield f"{full} is public, but the reference does not list it"


# -- the tests -------------------------------------------------------------------------------------------------------------------------


def test_the_site_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-n",
        "-d",
        str(tmp_path / "doctrees"),
        str(ROOT / "docs"),
        str(site),
    ]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")  # nobody answers there
    built = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **proxies})
    assert built.returncode == 0, built.stderr + built.stdout
    pages = read(site)
    assert {site / "index.html", site / "engine.html", site / "api" / "functional.html"} <= set(pages)
    assert (site / "transposed-convolution.html").is_file()
    problems = [*unlisted(site), *fetches(site, pages), *dead_links(pages)]
    assert not problems, "\n".join(problems)
    assert "math" in pages[site / "engine.html"].tags  # a formula is markup, not a script's business
    assert "L-1" in pages[site / "source" / "minidcnn" / "autograd.py.html"].ids


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="b.html">', "a.html links to b.html, which is not there"),
        ('<a href="#there"><p id="here">', "a.html links to #there, but a.html has no there"),
        ('<a href="source/c.html#L-2">', "a.html links to source/c.html#L-2, but c.html has no L-2"),
        ('<img src="missing.svg">', "a.html links to missing.svg, which is not there"),
        ('<img src="https://elsewhere.org/x.png">', "a.html fetches https://elsewhere.org/x.png"),
        ('<script src="//elsewhere.org/x.js"></script>', "a.html fetches //elsewhere.org/x.js"),
        ('<p style="background: url(http://elsewhere.org/x.png)">', "a.html fetches http://elsewhere.org/x.png"),
        ('<a href="https://elsewhere.org/"><a href="source/c.html#L-1"><a href="a.html?q=1#here"><p id="here">', None),
    ],
)
def test_planted_faults_of_pages_are_found(tmp_path: Path, text: str, problem: str | None) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "c.html").write_text('<span id="L-1">')
    (tmp_path / "a.html").write_text(text)
    pages = read(tmp_path)
    assert [*fetches(tmp_path, pages), *dead_links(pages)] == ([problem] if problem else [])


def test_planted_faults_of_styles_are_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text(
        '@import "https://a.org/x.css"; @font-face { src: url(//b.org/f.woff2) } p { background: url("here.png") }'
    )
    assert list(fetches(tmp_path, {})) == ["x.css fetches https://a.org/x.css", "x.css fetches //b.org/f.woff2"]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return importlib.import_module("reference")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x * y and *args, clip_grad_norm_ of |x|", [r"x \* y and \*args, clip\_grad\_norm\_ of \|x\|"]),
        ("see `use` and `a_`", ["see ``use`` and ``a_``"]),
        (">>> f(*x)\n1", [">>> f(*x)", "1"]),
        ("One:\n\n    x = y_\n\ntwo", ["One:", "", "::", "", "    x = y_", "", "two"]),
        (
            "a: first,\n    and on.\nb: second\nand on.\nThe end.",
            ["", "- a: first,", "  and on.", "- b: second", "  and on.", "", "The end."],
        ),
        ("input: (N, C), *w* -> y\ny is new", [r"input: (N, C), \*w\* -> y", "y is new"]),
    ],
)
def test_docstrings_are_plain_text_with_code(reference: ModuleType, text: str, expected: list[str]) -> None:
    assert reference.as_rst(text) == expected


def test_names_are_grouped_by_their_files_in_the_order_of_the_lines(reference: ModuleType) -> None:
    files = reference.listing(importlib.import_module("minidcnn.functional"))
    assert files["minidcnn.functional.linalg"] == ["matmul", "linear"]
    assert files["minidcnn.functional.pad"] == ["pad", "crop", "center_crop"]
    lazy = reference.listing(importlib.import_module("minidcnn.interop"))
    assert "load_checkpoint" in lazy["minidcnn.interop.checkpoints"]
    assert not any("atomic" in names for names in lazy.values())  # a module among the names


def test_a_public_constant_without_a_comment_is_an_error(reference: ModuleType) -> None:
    assert reference.comment("minidcnn.data.sample", "IGNORE").startswith("the usual label")
    with pytest.raises(ValueError, match=r"_COMPILED|public and has no comment"):
        reference.comment("minidcnn.functional.pad", "MODES")


def test_a_formula_that_cannot_be_drawn_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from docutils import nodes

    monkeypatch.syspath_prepend(str(EXTENSIONS))
    mathml = importlib.import_module("mathml")
    warned: list[object] = []
    monkeypatch.setattr(mathml.log, "warning", lambda *args, **_: warned.append(args))
    assert "<mfrac>" in mathml.mathml(nodes.math("", r"\frac{a}{b}"), False) and not warned
    assert "<mo>&lt;</mo>" in mathml.mathml(nodes.math("", r"a \lt b"), False) and not warned
    assert "<mtr>" in mathml.mathml(nodes.math_block("", r"a &= b \\ c &= d"), True) and not warned
    mathml.mathml(nodes.math("", r"\nosuchcommand"), False)
    assert len(warned) == 1
