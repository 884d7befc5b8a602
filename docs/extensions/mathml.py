"""Formulas as MathML, by docutils' own converter: no scripts, nothing to fetch, works from file://, and screen readers read it.

The other ways: MathJax and KaTeX need a network, or megabytes of scripts and fonts copied in from another package manager; KaTeX in advance
needs Node; images need LaTeX and cannot be read aloud. Every browser has drawn MathML since 2023, and the converter comes with docutils,
which Sphinx needs anyway.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

log = logging.getLogger(__name__)


def mathml(node: nodes.Element, block: bool) -> str:
    """The formula of `node` as MathML. A formula that cannot be converted is a warning, and so stops a build with -W."""
    text = re.sub(r"\\([lg])t(?![a-zA-Z])", lambda match: {"l": "<", "g": ">"}[match[1]], node.astext())  # docutils lacks these two
    if block and ("\\\\" in text or "&" in text) and "\\begin" not in text:
        text = f"\\begin{{aligned}}{text}\\end{{aligned}}"
    try:
        return str(tex2mathml(text, as_block=block))
    except MathError as error:
        log.warning("formula %r: %s", text, error, location=node)
        return f"<code>{text}</code>"


def inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(mathml(node, False))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f'<div class="formula">{mathml(node, True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
