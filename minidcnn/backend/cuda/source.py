"""Finds the CUDA sources and puts their headers into them: what the compiler gets is one text.

CuPy's cache on disk knows a module by its text alone, so a header that changed must be part of it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#include "([^"]+)"[^\n]*$', re.M)


@functools.cache
def folder() -> Path:
    """The folder of the .cu files: minidcnn/kernels in an installed wheel, kernels/ beside the package in a checkout.

    FileNotFoundError if neither is there.
    """
    package = Path(__file__).resolve().parents[2]
    for place in (package / "kernels", package.parent / "kernels"):
        if (place / "common.cuh").is_file():
            return place
    raise FileNotFoundError(f"the CUDA sources are in neither {package / 'kernels'} nor {package.parent / 'kernels'}; reinstall minidcnn")


@functools.cache
def source(name: str) -> str:
    """The text of kernels/NAME with every #include "..." replaced by that file, once; line numbers stay those of the files."""
    seen: set[str] = set()

    def inline(file: str) -> str:
        text = (folder() / file).read_text(encoding="utf-8")

        def header(match: re.Match[str]) -> str:
            line = text[: match.start()].count("\n") + 2
            if match[1] in seen:
                return ""
            seen.add(match[1])
            return f'#line 1 "{match[1]}"\n{inline(match[1])}\n#line {line} "{file}"'

        return _INCLUDE.sub(header, text).replace("#pragma once\n", "\n")

    return f'#line 1 "{name}"\n{inline(name)}'
