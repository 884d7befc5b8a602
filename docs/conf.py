"""The site: `sphinx-build -W -n docs build/site`. Nothing in it is fetched from anywhere; it can be read from file://."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import matplotlib  # noqa: E402

import minidcnn  # noqa: E402

project = "minidcnn"
author = "the minidcnn authors"
project_copyright = author
version = release = minidcnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "mathml", "reference", "sources"]
exclude_patterns = ["page/**", "**/node_modules/**", "extensions/**", "math/figures/**"]
smartquotes = False  # quotes and primes stand for what they are, in code and in formulas
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!minidcnn\b).*")]  # other projects' names: links would need their inventories, and so a network

# -- Markdown as the hosting site shows it ----------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_update_mathjax = False
html_math_renderer = "mathml"

# -- the reference -----------------------------------------------------------------------------------------------------------------

autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Array", "Operand", "Pair")}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a layer's forward says what it does in the docstring of its class
python_maximum_signature_line_length = 160  # before names are shortened
add_module_names = False
toc_object_entries_show_parents = "hide"
linkcode_resolve = __import__("sources").code_of

# -- HTML --------------------------------------------------------------------------------------------------------------------------

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "minidcnn"
html_static_path = ["static", str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf")]
html_css_files = ["site.css"]
html_extra_path = ["transposed-convolution.html"]
html_copy_source = False
html_show_sphinx = False
