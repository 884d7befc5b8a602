"""Which images a command line means, and what their results are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from .common import warn

if TYPE_CHECKING:
    from ..data import Source


@dataclass(frozen=True)
class Job:
    """One image, and the name of its results."""

    source: Source
    name: str


def find_images(paths: Sequence[Path], channels: int, out: Path | None = None) -> tuple[list[Job], list[str]]:
    """The images that files and folders stand for, each once, in the order given and folders in natural order; and what is wrong.

    Warns of images in sub-folders other than `out`, the one for the results: they are not searched.
    A TIFF of several pages is an image per page, or one image if the network takes as many `channels` as it has pages.
    """
    from ..data import DataError
    from ..data.images import SUFFIXES, in_sub_folders, list_images

    files: dict[Path, Path] = {}  # resolved -> as given
    problems: list[str] = []
    known = {path.resolve() for path in ([*paths, out] if out else paths)}
    for path in paths:
        if path.is_dir():
            inside = list_images(path)
            below = in_sub_folders(path, known)
            if not inside:
                problems.append(
                    f"{path} holds no images" + (f" of its own; {below}, but sub-folders are not searched: name them" if below else "")
                )
            elif below:
                warn(f"{below}, too, but sub-folders are not searched: name them as well")
        elif not path.exists():
            inside = []
            problems.append(f"{path} does not exist")
        elif path.suffix.lower() not in SUFFIXES:
            inside = []
            problems.append(f"{path} is no image: files must end in {', '.join(sorted(SUFFIXES))}")
        else:
            inside = [path]
        for file in inside:
            files.setdefault(file.resolve(), file)
    found: list[tuple[Source, Path]] = []
    for file in files.values():
        try:
            found += _pages(file, channels)
        except DataError as error:
            problems.append(str(error))
    names = unique_names([path for _, path in found])
    return [Job(source, name) for (source, _), name in zip(found, names, strict=True)], problems


def _pages(file: Path, channels: int) -> list[tuple[Source, Path]]:
    """The images of a file, and the files that they are called after: NAME-1.tif is page 1 of NAME.tif."""
    from ..data import Source
    from ..data.images import natural_channels, pages

    number = pages(file)
    if number == 1:
        return [(Source(file), file)]
    together = Source(file, None)
    if natural_channels(together) == channels:
        return [(together, file)]
    digits = len(str(number))
    return [(Source(file, page), file.with_stem(f"{file.stem}-{page + 1:0{digits}d}")) for page in range(number)]


def unique_names(files: Sequence[Path]) -> list[str]:
    """A name for the results of each file: its stem; where stems are the same, with its suffix (a_png), its folder (b_a), both, or a number.

    Names that differ in case only count as the same, and so do x_overlay and the overlay of x: their files would be.
    """
    by_stem: dict[str, list[int]] = {}
    for at, file in enumerate(files):
        by_stem.setdefault(file.stem.lower(), []).append(at)
    ways: list[Callable[[Path], str]] = [
        lambda f: f.stem,
        lambda f: f"{f.stem}_{f.suffix[1:]}",
        lambda f: f"{f.resolve().parent.name}_{f.stem}",
        lambda f: f"{f.resolve().parent.name}_{f.stem}_{f.suffix[1:]}",
    ]
    names = [""] * len(files)
    taken: set[str] = set()
    for group in by_stem.values():
        digits = len(str(len(group)))
        by_ways = ([way(files[at]) for at in group] for way in ways)
        numbered = ([f"{files[at].stem}_{i:0{digits}d}" for i, at in enumerate(group, first)] for first in count(1))
        for wanted in chain(by_ways, numbered):
            results = {f"{name.lower()}{end}" for name in wanted for end in ("", "_overlay")}
            if len(results) == 2 * len(group) and not taken & results:
                break
        taken |= results
        for at, name in zip(group, wanted, strict=True):
            names[at] = name
    return names
