"""Links to the project's own files: on the hosting site they show the file, so the site gets a page for each file and folder.

Relative links in Markdown lead to these pages, and so do the [source] links of the reference, which name the line.
"""

from __future__ import annotations

import html
import importlib
import inspect
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {
    ".py": "python",
    ".cu": "cuda",
    ".cuh": "cuda",
    ".cpp": "cpp",
    ".h": "cpp",
    ".md": "markdown",
    ".sh": "bash",
    ".ts": "typescript",
}
SHOWN = (*LANGUAGES, ".toml", ".txt", ".json", ".rst")


class FileLinks(SphinxTransform):
    """Turns MyST's links to files that are no pages of the site into links to pages that show them."""

    default_priority = 5

    def apply(self, **_: Any) -> None:
        docs, docname = Path(self.env.srcdir), self.env.docname
        up = "../" * docname.count("/")
        for node in [*self.document.findall(addnodes.download_reference), *self.document.findall(addnodes.pending_xref)]:
            target = node["reftarget"].partition("#")[0]
            if node.get("refdomain") == "doc":  # what MyST takes for a page of the site; those outside of docs/ are none
                target = target + ".md" if posixpath.isabs(target) or target.startswith("..") else ""
            if node.get("reftype") != "myst" or not target:
                continue
            places = [(docs / docname).parent / target, ROOT / target if docname == "index" else docs / target]  # index shows README.md
            place = next((p.resolve() for p in places if target and p.exists()), None)
            if place is None:
                continue
            if place.parent == docs and place.name in self.config.html_extra_path:
                uri = up + place.name
            else:
                self.env.metadata[docname].setdefault("sources", []).append(place)
                uri = f"{up}{page_of(place)}.html"
            link = nodes.reference("", "", *node.children[0].children, refuri=uri, internal=True)
            node.replace_self(nodes.inline("", "", link) if node.parent is None else link)


def page_of(path: Path) -> str:
    """The name of the page that shows a file or folder."""
    return posixpath.join("source", path.relative_to(ROOT).as_posix())


def code_of(domain: str, info: dict[str, str]) -> str | None:
    """The address of a [source] link, from a page of api/: the first line of what is documented, where it is defined."""
    thing: Any = importlib.import_module(info["module"])
    try:
        for part in info["fullname"].split("."):
            thing = getattr(thing, part)
        thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
        path, line = Path(inspect.getsourcefile(thing) or ""), inspect.getsourcelines(thing)[1]
    except (AttributeError, TypeError, OSError):  # constants
        return None
    return f"../{page_of(path)}.html#L-{line}" if path.is_relative_to(ROOT) else None


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file of the package, and for each file or folder that a document links to."""
    todo = {*(ROOT / "minidcnn").rglob("*.py"), *(p for data in app.env.metadata.values() for p in data.get("sources", ()))}
    done: set[Path] = set()
    while todo:
        path = todo.pop()
        done.add(path)
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if ((p.is_dir() or p.suffix in SHOWN) and p.name[0] not in "._") or p.name == "__init__.py"
            )
            todo.update(p for p in inside if p not in done)
            items = "".join(f'<li><a href="{path.name}/{p.name}.html"><code>{p.name}{"/" * p.is_dir()}</code></a></li>' for p in inside)
            body = f"<ul>{items}</ul>"
        else:
            text = path.read_text(encoding="utf-8")
            body = app.builder.highlighter.highlight_block(text, LANGUAGES.get(path.suffix, "text"), linespans="L")
        yield f"source/{name}", {"title": name, "body": f'<h1>{html.escape(name)}</h1><div class="source">{body}</div>'}, "page.html"


def same_tree(app: Any, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """These pages are in no table of contents, so those in folders of one depth share one: a third of the time to build the site."""
    if page.startswith("source/"):
        make, depth = context["toctree"], page.count("/")

        def toctree(**options: Any) -> str:
            key = (depth, *sorted(options.items()))
            if key not in _trees:
                _trees[key] = make(**options)
            return _trees[key]

        context["toctree"] = toctree


_trees: dict[tuple[Any, ...], str] = {}


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(FileLinks)
    app.connect("html-collect-pages", pages)
    app.connect("html-page-context", same_tree, priority=400)  # before the theme asks for it
    _trees.clear()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
