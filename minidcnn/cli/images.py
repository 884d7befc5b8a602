"""Which images a command line means, and what their results are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data import Source


@dataclass(frozen=True)
class Job:
    """One image, and the name of its results."""

    source: Source
    name: str


def find_images(paths: Sequence[Path], channels: int) -> tuple[list[Job], list[str]]:
    """The images that files and folders stand for, each once, in the order given and folders in natural order; and what is wrong.

    A TIFF of several pages is an image per page, or one image if the network takes as many `channels` as it has pages.
    """
    from ..data import DataError
    from ..data.images import SUFFIXES, list_images

    files: dict[Path, Path] = {}  # resolved -> as given
    problems: list[str] = []
    for path in paths:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                problems.append(f"{path} holds no images (sub-folders are not searched)")
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
    jobs: list[Job] = []
    for file, name in unique_names(list(files.values())).items():
        try:
            jobs += _pages(file, name, channels)
        except DataError as error:
            problems.append(str(error))
    return jobs, problems


def _pages(file: Path, name: str, channels: int) -> list[Job]:
    from ..data import Source
    from ..data.images import natural_channels, pages

    count = pages(file)
    if count == 1:
        return [Job(Source(file), name)]
    together = Source(file, None)
    if natural_channels(together) == channels:
        return [Job(together, name)]
    digits = len(str(count))
    return [Job(Source(file, page), f"{name}-{page + 1:0{digits}d}") for page in range(count)]


def unique_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each file: its stem; where stems are the same, with its suffix (a_png), its folder (b_a), or both.

    Names that differ in case only count as the same, and so do x_overlay and the overlay of x: their files would be.
    """
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(file.stem.lower(), []).append(file)
    stems = {group[0].stem.lower() for group in by_stem.values()}
    ways: list[Callable[[Path], str]] = [
        lambda f: f.stem,
        lambda f: f"{f.stem}_{f.suffix[1:]}",
        lambda f: f"{f.resolve().parent.name}_{f.stem}",
        lambda f: f"{f.resolve().parent.name}_{f.stem}_{f.suffix[1:]}",
    ]
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for stem, group in by_stem.items():
        clashes = stem.endswith("_overlay") and stem.removesuffix("_overlay") in stems
        for way in ways[1 if clashes else 0 :]:
            wanted = [way(file).lower() for file in group]
            if len(set(wanted)) == len(group) and not taken & set(wanted):
                names.update((file, way(file)) for file in group)
                break
        else:
            digits = len(str(len(group)))
            names.update((file, f"{file.stem}_{i:0{digits}d}") for i, file in enumerate(group, 1))
        taken |= {names[file].lower() for file in group}
    return {file: names[file] for file in files}
