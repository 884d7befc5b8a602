"""The Oxford-IIIT Pet data set: cats and dogs with trimaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .files import Entry, FileDataset, choose_split, complain, divide, existing_folder, read_lines
from .images import Source
from .labels import LabelTable
from .sample import DataError

_PET, _BACKGROUND, _BORDER = 1, 2, 3  # values of the trimaps
_OFFICIAL = {"train": "trainval.txt", "val": "test.txt"}


class OxfordPet(FileDataset):
    """RGB, sizes vary: crop them or use batches of one. Classes: background, pet, border; with `border="ignore"`, background and pet only.

    The border is a band around the animal that the annotators left open.
    root: holds images/*.jpg, annotations/trimaps/*.png and annotations/trainval.txt and test.txt, or list.txt alone.
    split: "train" (trainval.txt), "val" (test.txt) or "all" (both). With list.txt alone, "train" and "val" are a random choice by
    `val_fraction` and `seed`. strict: False leaves out what is missing, for `check` to report.
    DataError for another layout, split, border or val_fraction, and for images or trimaps that a list names and that are not there.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        border: str = "class",
        val_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        if border not in ("class", "ignore"):
            raise DataError(f"OxfordPet: border must be 'class' or 'ignore', got {border!r}")
        root = existing_folder(root, "OxfordPet")
        split = choose_split({"trainval": "train", "test": "val"}.get(split, split), ("train", "val", "all"), f"OxfordPet {root}")
        names = _read_names(root, split, val_fraction, seed)
        self.divided = split != "all" and not (root / "annotations" / _OFFICIAL[split]).is_file()
        entries: list[Entry] = []
        problems: list[str] = []
        for name in names:
            image, mask = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
            missing = [p for p in (image, mask) if not p.is_file()]
            problems += [f"{path} is listed in {root / 'annotations'} but does not exist" for path in missing]
            if not missing:
                entries.append(Entry(name, Source(image), Source(mask)))
        if strict:
            complain(problems, "OxfordPet")
        as_class = border == "class"
        classes = ("background", "pet", "border") if as_class else ("background", "pet")
        table = LabelTable((_BACKGROUND, _PET, _BORDER) if as_class else (_BACKGROUND, _PET), () if as_class else (_BORDER,))
        palette = np.array([[30, 40, 60], [240, 150, 60], [250, 235, 200]], np.uint8)[: len(classes)]
        super().__init__(f"oxford_pet {split}", entries, table, classes, channels=3, palette=palette, problems=problems)


def _read_names(root: Path, split: str, val_fraction: float, seed: int) -> list[str]:
    annotations = root / "annotations"
    wanted = [annotations / name for part, name in _OFFICIAL.items() if split in (part, "all")]
    if all(path.is_file() for path in wanted):
        return [name for path in wanted for name in _first_words(path)]
    if (annotations / "list.txt").is_file():
        names = _first_words(annotations / "list.txt")
        if split == "all":
            return names
        return [names[i] for i in divide(len(names), val_fraction, seed, f"OxfordPet {root}")[("train", "val").index(split)]]
    raise DataError(f"OxfordPet: {annotations} should hold {' and '.join(p.name for p in wanted)}, or list.txt")


def _first_words(path: Path) -> list[str]:
    """The first word of every line that is no comment: "Abyssinian_100 1 1 1" -> "Abyssinian_100"."""
    lines = read_lines(path)
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
