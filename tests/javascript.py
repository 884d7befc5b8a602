"""Where the interactive page's own code can run: in Node.js, with what `npm ci` in docs/page installs."""

from __future__ import annotations

import shutil
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "page"


def why_not() -> str:
    """The reason, or nothing."""
    if shutil.which("node") is None or shutil.which("npx") is None:
        return "Node.js with npm is not installed"
    if not (PAGE / "node_modules" / "typescript").is_dir():
        return "docs/page/node_modules is missing; run `npm ci` in docs/page"
    return ""
