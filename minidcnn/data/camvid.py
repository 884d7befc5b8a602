"""CamVid, the road scenes that SegNet was trained on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from .files import Entry, FileDataset, choose_split, complain, existing_folder, pair_folders, read_lines
from .images import SUFFIXES, Source
from .labels import LabelTable
from .sample import DataError

#: The 11 classes that SegNet scores, in the order of its masks.
CAMVID_CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip

CAMVID_CLASS_WEIGHTS = (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)
"""Median-frequency weights as published in the network files of SegNet (Badrinarayanan, Kendall, Cipolla), in class order.

`median_frequency_weights(CamVid(root), ignored_as_class=True)` comes within 11 % of all but one: from the 367 training labels SignSymbol
is 3.53, not 9.6446, a known discrepancy. Use the published numbers to repeat the paper, computed ones for everything else."""

_PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
_VOID = 11


class CamVid(FileDataset):
    """11 classes, ignore label 11; RGB, 360x480 in SegNet's version. split: "train" (367 images), "val" (101), "test" (233) or "all".

    Layouts: folders root/train and root/trainannot, root/val and root/valannot, root/test and root/testannot; or, beside them, lists
    train.txt, val.txt, test.txt of lines "image label", whose paths may begin with any folders (as the official "/SegNet/CamVid/train/...")
    and end in another suffix than the files. Labels are 8-bit PNGs of class indices.
    strict: False leaves out what has no partner, for `check` to report.
    DataError for another layout or split, for a list that cannot be read, and for images or labels without a partner.
    """

    def __init__(self, root: str | Path, split: str = "train", *, strict: bool = True) -> None:
        root = existing_folder(root, "CamVid")
        known = [s for s in ("train", "val", "test") if (root / f"{s}.txt").is_file() or (root / f"{s}annot").is_dir()]
        if not known:
            raise DataError(f"CamVid: {root} should hold train/ and trainannot/ (and val, test alike), or lists such as train.txt")
        split = choose_split(split, (*known, "all"), f"CamVid {root}")
        entries: list[Entry] = []
        problems: list[str] = []
        for part in known if split == "all" else [split]:
            found = _read_list(root, part) if (root / f"{part}.txt").is_file() else _read_folders(root, part)
            entries += found[0]
            problems += found[1]
        if strict:
            complain(problems, "CamVid")
        table = LabelTable(tuple(range(len(CAMVID_CLASSES))), (_VOID,), ignore_index=_VOID)
        palette = np.array(_PALETTE, np.uint8)
        super().__init__(f"camvid {split}", entries, table, CAMVID_CLASSES, channels=3, palette=palette, problems=problems)


def _read_folders(root: Path, split: str) -> tuple[list[Entry], list[str]]:
    if not (root / split).is_dir():
        raise DataError(f"CamVid: {root} holds {split}annot/ but not {split}/ with the images")
    return pair_folders(root / split, root / f"{split}annot")[:2]


def _read_list(root: Path, split: str) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    problems: list[str] = []
    for number, line in enumerate(read_lines(root / f"{split}.txt"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise DataError(f"{root / split}.txt, line {number}: expected an image and its label, got {line.strip()!r}")
        image, mask = (_resolve(root, word) for word in words)
        for word, path in zip(words, (image, mask), strict=True):
            if path is None:
                problems.append(f"{root / split}.txt, line {number}: {word} is not in {root}")
        if image and mask:
            entries.append(Entry(image.stem, Source(image), Source(mask)))
    return entries, problems


def _resolve(root: Path, listed: str) -> Path | None:
    """A path of a list as a file: as it stands, or without its first folders, below the root; if need be with another image suffix."""
    parts = PurePosixPath(listed.replace("\\", "/")).parts
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if path.is_file():
            return path
        for suffix in sorted(SUFFIXES):
            if path.with_suffix(suffix).is_file():
                return path.with_suffix(suffix)
    return None
