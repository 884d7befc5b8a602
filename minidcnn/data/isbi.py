"""ISBI 2012: neuronal membranes in electron micrographs, the first data set of the U-Net paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .files import Entry, FileDataset, choose_split, complain, existing_folder, pair_folders
from .images import Source, pages
from .labels import LabelTable
from .sample import DataError

_VOLUME, _LABELS = ("train-volume.tif", "train-volume.tiff"), ("train-labels.tif", "train-labels.tiff")


class ISBI(FileDataset):
    """Sections of 512x512, one channel; 2 classes, 0 membrane (stored as 0) and 1 cell (stored as 255); no pixel is ignored.

    split: "train", "val" or "all". Sections are in natural order of their names, or of the pages; the first `train_sections` are for
    training, the others for validation, so that neighbours in the tissue are not torn apart at random.
    Layouts: root/images/*.png and root/labels/*.png, or the official stacks root/train-volume.tif and root/train-labels.tif.
    strict: False leaves out what has no partner, for `check` to report.
    DataError for another layout or split, for train_sections that leave nothing on one side, and for sections without a partner.
    """

    def __init__(self, root: str | Path, split: str = "train", *, train_sections: int = 20, strict: bool = True) -> None:
        root = existing_folder(root, "ISBI")
        split = choose_split(split, ("train", "val", "all"), f"ISBI {root}")
        volume = next((root / n for n in _VOLUME if (root / n).is_file()), None)
        labels = next((root / n for n in _LABELS if (root / n).is_file()), None)
        problems: list[str] = []
        if volume and labels:
            count, other = pages(volume), pages(labels)
            if count != other:
                raise DataError(f"ISBI: {volume} has {count} sections but {labels} has {other}")
            entries = [Entry(f"section-{i:02d}", Source(volume, i), Source(labels, i)) for i in range(count)]
        elif (root / "images").is_dir() and (root / "labels").is_dir():
            entries, problems, _ = pair_folders(root / "images", root / "labels")
            if strict:
                complain(problems, "ISBI")
        else:
            raise DataError(f"ISBI: {root} should hold images/ and labels/, or train-volume.tif and train-labels.tif")
        self.divided = split != "all"
        if self.divided:
            if not 0 < train_sections < len(entries):
                raise DataError(f"ISBI: train_sections must leave sections on both sides, got {train_sections} of {len(entries)} in {root}")
            entries = entries[:train_sections] if split == "train" else entries[train_sections:]
        palette = np.array([[70, 30, 110], [240, 215, 120]], np.uint8)
        table = LabelTable((0, 255))
        super().__init__(f"isbi {split}", entries, table, ("membrane", "cell"), channels=1, palette=palette, problems=problems)
