"""`.. public:: minidcnn.functional` documents every public name of a module, grouped by the file in which it is written.

The names are those of `__all__`, in the order of the files' imports; a module without `__all__` has its own functions and classes.
A new name appears on its page by itself. What a page of a larger module documents is not documented again.

Docstrings are plain text with `code` in backticks; here they become reStructuredText.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[2]


# -- which names, and where they come from ------------------------------------------------------------------------------------------


def homes(module: ModuleType) -> dict[str, str]:
    """Public name -> the module in which it is written, in the order in which `module` imports them."""
    public: list[str] | None = getattr(module, "__all__", None)
    if public is None:
        return dict.fromkeys(own(module), module.__name__)
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    package = module.__spec__.parent if module.__spec__ else module.__name__  # what relative imports are relative to
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                name = alias.asname or alias.name
                found[name] = f"{package}.{node.module or alias.name}"
    ordered = [name for name in found if name in public] + [name for name in public if name not in found]
    return {name: found.get(name, module.__name__) for name in ordered}


def own(module: ModuleType) -> list[str]:
    """The public functions and classes that are written in a module, in the order of its lines."""
    here = [
        (name, thing)
        for name, thing in vars(module).items()
        if name[0] != "_" and getattr(thing, "__module__", "") == module.__name__ and (inspect.isfunction(thing) or inspect.isclass(thing))
    ]
    return [name for name, _ in sorted(here, key=lambda item: inspect.getsourcelines(item[1])[1])]


def listing(module: ModuleType) -> dict[str, list[str]]:
    """File -> the names of `module` that are written there, in the order of its lines. Modules among the names have pages of their own."""
    files: dict[str, list[str]] = {}
    for name, home in homes(module).items():
        if not inspect.ismodule(getattr(module, name)):
            files.setdefault(home, []).append(name)
    return {home: sorted(names, key=lambda name: _line(home, name)) for home, names in files.items()}


def _line(home: str, name: str) -> int:
    """Where in its file a name is made; a file's names that are not found there come last."""
    tags = ModuleAnalyzer.for_module(home).find_tags()
    return tags[name][1] if name in tags else 1 << 30


# -- the directive -------------------------------------------------------------------------------------------------------------------


class Public(SphinxDirective):
    """The reference of one module: its docstring, a section for each file, and one for each module among its names."""

    required_arguments = 1
    option_spec = {  # noqa: RUF012
        "without": lambda text: text.split(),  # names that another page documents
        "inherited": lambda text: text.split(),  # classes shown with what they inherit
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        module = importlib.import_module(name)
        parent, _, last = name.rpartition(".")
        hidden = parent and getattr(importlib.import_module(parent), last) is not module  # minidcnn.backend is a function as well
        lines = [f".. py:module:: {name}", *(["   :no-index:"] if hidden else []), "", *as_rst(inspect.getdoc(module) or ""), ""]
        done = {id(getattr(module, public)) for public in self.options.get("without", ())}
        lines += self.entries(module, done)
        for inner in [thing for public in homes(module) if inspect.ismodule(thing := getattr(module, public))]:
            if parent and (entries := self.entries(inner, done)):  # those of minidcnn itself have pages of their own
                lines += [*self.heading(inner.__name__), f".. py:module:: {inner.__name__}", "", *entries]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def entries(self, module: ModuleType, done: set[int]) -> list[str]:
        """What `module` offers and is not done yet, file by file."""
        lines: list[str] = []
        for home, names in listing(module).items():
            new = [name for name in names if id(getattr(module, name)) not in done]
            done.update(id(getattr(module, name)) for name in new)
            if new and home != module.__name__:
                lines += self.heading(home)
            for name in new:
                lines += self.entry(module, home, name)
        return lines

    def heading(self, home: str) -> list[str]:
        module = importlib.import_module(home)
        path = Path(module.__file__ or "").relative_to(ROOT)
        first = (inspect.getdoc(module) or "").partition("\n\n")[0]
        title = path.name if path.name != "__init__.py" else f"{path.parent.name}/"
        up = "../" * self.env.docname.count("/")
        return [title, "-" * len(title), "", *as_rst(first), "", f"`{path} <{up}source/{path}.html>`__", ""]

    def entry(self, module: ModuleType, home: str, name: str) -> list[str]:
        thing, full = getattr(module, name), f"{module.__name__}.{name}"
        if inspect.isclass(thing):
            inherited = ["   :inherited-members: object"] if name in self.options.get("inherited", ()) else []
            return [f".. autoclass:: {full}", "   :members:", *inherited, ""]
        if inspect.isroutine(thing):
            return [f".. autofunction:: {full}", ""]
        value = repr(thing)
        shown = [f"   :value: {value}"] if len(value) < 80 and " object at " not in value else []
        return [f".. py:data:: {name}", *shown, "", *(f"   {line}" for line in as_rst(comment(home, name))), ""]


def comment(home: str, name: str) -> str:
    """The text of `#:` comments before, or of a comment behind, the assignment of a constant."""
    analyzer = ModuleAnalyzer.for_module(home)
    analyzer.analyze()
    documented = analyzer.attr_docs.get(("", name))
    if not documented:
        raise ValueError(f"{home}.{name} is public and has no comment `#: ...` that says what it is")
    return "\n".join(documented)


# -- plain text to reStructuredText ----------------------------------------------------------------------------------------------------


def as_rst(text: str) -> list[str]:
    """Plain text with `code` as reStructuredText: nothing else in it is markup.

    Indented paragraphs are literal, >>> begins an example, and where several lines of a paragraph begin with "name:", they are a list.
    """
    return [line for paragraph in re.split(r"\n\s*\n", text.strip("\n")) for line in (*_paragraph(paragraph.split("\n")), "")][:-1]


def _paragraph(lines: list[str]) -> list[str]:
    if lines[0].startswith(">>>"):
        return lines
    if all(line.startswith(" ") for line in lines):
        return ["::", "", *lines]
    listed = [bool(re.match(r"[a-z_]+(, [a-z_]+)*: ", line)) for line in lines]
    if sum(listed) < 2:
        return [_escaped(line.strip()) for line in lines]
    result: list[str] = []
    for line, item in zip(lines, listed, strict=True):
        inside = bool(result) and result[-1].startswith(("- ", "  "))
        if inside and not item and not line.startswith(" "):
            if result[-1].endswith((".", ";", ":")):
                result.append("")
            else:
                line = f"  {line}"
        if item and not inside:
            result.append("")
        result.append(f"- {_escaped(line)}" if item else f"  {_escaped(line.strip())}" if line.startswith(" ") else _escaped(line))
    return result


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(f"`{part}`" if i % 2 else re.sub(r"([\\*_|`])", r"\\\1", part) for i, part in enumerate(parts))


def docstring(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [*as_rst("\n".join(lines)), ""]


def signature(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, arguments: str | None, result: str | None) -> Any:
    """The arguments and the result as the source has them, where Python wraps names of types inside of other types."""
    return tuple(
        text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text).replace("<factory>", "...") for text in (arguments, result)
    )


# -- links between the pages ------------------------------------------------------------------------------------------------------------


def resolve(app: Any, env: Any, node: addnodes.pending_xref, content: nodes.Element) -> nodes.Element | None:
    """A type in a signature, found under the public name of the same ending: minidcnn.tensor.Tensor is documented as minidcnn.Tensor."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    for full, entry in env.domaindata["py"]["objects"].items():
        if full.rpartition(".")[2] == last and entry.objtype in ("class", "exception", "function", "data"):
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, full)
    return content if last in KNOWN or node["reftarget"].startswith("minidcnn.") else None


KNOWN = {"Array", "Operand", "Pair"}


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
