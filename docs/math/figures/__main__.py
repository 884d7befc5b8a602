"""Draw the figures of docs/math: `python docs/math/figures`; with --check, compare instead and exit with 1 if a file is not current.

Each module chapters_XX_YY.py beside this file has a dict FIGURES: file name without .svg -> a function that returns a Figure.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
sys.path.insert(0, str(HERE))  # the modules import draw


def drawn() -> dict[str, str]:
    """File name -> content of every figure. ValueError if two figures have one name."""
    files: dict[str, str] = {}
    for module in sorted(path.stem for path in HERE.glob("chapters_*.py")):
        for name, figure in importlib.import_module(module).FIGURES.items():
            if f"{name}.svg" in files:
                raise ValueError(f"{module}: there is a figure {name} already")
            files[f"{name}.svg"] = figure().svg()
    return files


def differences(files: dict[str, str]) -> list[str]:
    """What is missing, old or left over in images/, one sentence each."""
    there = {path.name: path.read_text(encoding="utf-8") for path in IMAGES.glob("*.svg")}
    return [
        *(f"{name} is missing" for name in sorted(files.keys() - there.keys())),
        *(f"{name} belongs to no figure" for name in sorted(there.keys() - files.keys())),
        *(f"{name} is not what its figure draws" for name in sorted(files.keys() & there.keys()) if files[name] != there[name]),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python docs/math/figures", description="Draw the figures of docs/math as SVG files.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not what its figure draws")
    check = parser.parse_args(arguments).check
    files = drawn()
    if check:
        found = differences(files)
        for sentence in found:
            print(sentence)
        return 1 if found else 0
    IMAGES.mkdir(exist_ok=True)
    for name, content in files.items():
        (IMAGES / name).write_text(content, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
