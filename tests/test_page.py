"""The interactive page: its cases are the engine's, its file stands alone, and the programs that it shows print what it shows."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from javascript import PAGE, why_not

BUILT = PAGE.parent / "transposed-convolution.html"


# -- the cases ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vectors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page_vectors", PAGE / "vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
    return module


def test_the_cases_are_what_the_engine_computes(vectors: ModuleType) -> None:
    assert vectors.main(["--check"]) == 0
    assert len(json.loads(vectors.FILE.read_text(encoding="utf-8"))) >= 280


def test_a_case_that_differs_is_seen(vectors: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = vectors.FILE.read_text(encoding="utf-8")
    vectors.text = lambda: fresh
    vectors.FILE = tmp_path / "vectors.json"
    assert vectors.main(["--check"]) == 1  # no file
    vectors.FILE.write_text(re.sub(r'("output":\[\[)(-?\d+)', lambda m: m[1] + str(int(m[2]) + 1), fresh, count=1), encoding="utf-8")
    assert vectors.main(["--check"]) == 1
    assert "run python docs/page/vectors.py" in capsys.readouterr().err
    assert vectors.main([]) == 0
    assert vectors.main(["--check"]) == 0
    assert vectors.main(["--chekc"]) == 2


# -- the built file -------------------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element with its attributes, and the text inside <script>, <style> and <noscript>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {"script": "", "style": "", "noscript": "", "title": ""}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.inside[tag] += data


@pytest.fixture(scope="module")
def built() -> Elements:
    return Elements(BUILT.read_text(encoding="utf-8"))


def test_the_file_asks_for_nothing_else(built: Elements) -> None:
    """A page that is opened from a disk, without a network: all that it loads, it holds."""
    for tag, attributes in built.elements:
        for name in ("src", "srcset", "poster", "action", "formaction", "ping", "manifest"):
            assert name not in attributes, f"<{tag} {name}={attributes[name]}>"
        if tag == "link":
            assert (attributes.get("href") or "").startswith("data:"), attributes
        assert not (tag == "object" or tag == "iframe" or tag == "embed" or tag == "base"), tag
    assert "@import" not in built.inside["style"]
    assert all(target.startswith(("#", "data:", "'data:", '"data:')) for target in re.findall(r"url\(([^)]*)\)", built.inside["style"]))
    script = built.inside["script"]
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|import)\s*\(", script)
    addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", script + built.inside["style"]))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML", "http://www.w3.org/1999/xhtml"}, addresses


def test_the_file_is_a_whole_page(built: Elements) -> None:
    tags = [tag for tag, _ in built.elements]
    assert tags.count("html") == tags.count("head") == tags.count("body") == tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in [(tag, {"lang": attributes.get("lang")}) for tag, attributes in built.elements]
    assert built.inside["title"].strip()
    assert len(built.inside["script"]) > 10_000
    assert BUILT.stat().st_size < 400_000


def test_links_from_the_page_lead_somewhere(built: Elements) -> None:
    identifiers = {attributes["id"] for _, attributes in built.elements if "id" in attributes}
    for tag, attributes in built.elements:
        target = attributes.get("href") or ""
        if tag != "a" or re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        assert (BUILT.parent / path).exists(), target
        assert path or anchor in identifiers, target


def test_the_page_and_the_chapters_know_of_each_other(built: Elements) -> None:
    math = PAGE.parent / "math"
    assert "(../transposed-convolution.html)" in (math / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[T(\d+):", (math / "13-theorems.md").read_text(encoding="utf-8"), re.M)
    assert f"T1 to T{listed[-1]} are their theorems" in BUILT.read_text(encoding="utf-8")
    named = {number for group in re.findall(r"\((T\d+(?:, T\d+)*)\)", built.inside["script"]) for number in re.findall(r"\d+", group)}
    assert {"1", "5", "6", "8", "9", "13", "15"} <= named <= set(listed)


# -- the programs that it shows -------------------------------------------------------------------------------------------------------

ASK = """
import { readFileSync } from "node:fs";
const { check, DEFAULT, PRESETS, run } = await import(process.argv[1]);
const cases = [...PRESETS.map(({ id, settings }) => [id, settings]), ...JSON.parse(readFileSync("vectors.json", "utf8")).map((v) => [v.name, v])];
console.log(JSON.stringify(cases.flatMap(([name, settings]) => {
  if (!check(settings).ok) return [];
  const { calls, mode, output, indices, unpooled } = run(settings);
  return [{ name, calls, mode, output, indices, unpooled }];
})));
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the page shows for its presets and for the cases, with the programs; computed by its own code in Node."""
    if why_not():
        pytest.skip(why_not())
    out = tmp_path_factory.mktemp("compiled")
    npx, node = shutil.which("npx"), shutil.which("node")
    assert npx and node
    subprocess.run([npx, "tsc", "--project", "tsconfig.node.json", "--outDir", out], cwd=PAGE, check=True, timeout=120)
    (out / "package.json").write_text('{ "type": "module" }', encoding="utf-8")
    index = (out / "src" / "core" / "index.js").as_uri()
    asked = subprocess.run(
        [node, "--input-type=module", "--eval", ASK, index], cwd=PAGE, check=True, timeout=120, capture_output=True, text=True
    )
    return list(json.loads(asked.stdout))


def run_program(text: str) -> dict[str, Any]:
    """The names that a program leaves behind. What it prints is not looked at, only that it prints."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "<the page>", "exec", dont_inherit=True), names)
    assert printed.getvalue()
    return names


def plane(value: Any) -> list[list[int]]:
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return array.reshape(array.shape[-2:]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("library", ["minidcnn", "pytorch"])
def test_the_programs_print_what_the_page_shows(programs: list[dict[str, Any]], library: str) -> None:
    if library == "pytorch":
        pytest.importorskip("torch")
    assert len(programs) > 250
    modes, refused = set(), 0
    for shown in programs:
        modes.add(shown["mode"])
        if "# PyTorch refuses" in shown["calls"][library]:
            refused += 1
            with pytest.raises(RuntimeError, match="half of kernel size"):
                run_program(shown["calls"][library])
            continue
        names = run_program(shown["calls"][library])
        assert plane(names["x" if shown["mode"] == "conv_transpose" else "y"]) == shown["output"], shown["name"]
        if shown["mode"] == "pool":
            assert plane(names["indices"]) == shown["indices"], shown["name"]
            assert plane(names["back"]) == shown["unpooled"], shown["name"]
    assert modes == {"conv", "conv_transpose", "pool"}
    assert (refused > 0) == (library == "pytorch")


# -- what is shipped --------------------------------------------------------------------------------------------------------------------


def test_the_source_distribution_holds_the_page_and_not_what_npm_put_beside_it() -> None:
    config = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(PAGE.parent.parent)).config
    for path in ("src/core/run.ts", "index.html", "vectors.py", "vectors.json", "package-lock.json"):
        assert (PAGE / path).is_file()
        assert config.include_path(f"docs/page/{path}"), path
    for path in ("node_modules/vite/package.json", "node_modules/.package-lock.json", "compiled/src/core/run.js", "dist/page.html"):
        assert not config.include_path(f"docs/page/{path}"), path
    assert config.include_path("docs/transposed-convolution.html")


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((PAGE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages and all("resolved" not in entry and "integrity" in entry for entry in packages.values())
    for version in json.loads((PAGE / "package.json").read_text(encoding="utf-8"))["devDependencies"].values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), version
