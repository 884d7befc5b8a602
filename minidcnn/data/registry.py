"""Data sets by name, as the command line asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .camvid import CamVid
from .cells import Cells
from .dataset import Dataset
from .folder import Folder
from .isbi import ISBI
from .pets import OxfordPet
from .sample import DataError
from .voc import VOC

#: The data sets by name, as `open_dataset` takes them.
DATASETS: dict[str, type[Dataset]] = {
    "cells": Cells,
    "folder": Folder,
    "camvid": CamVid,
    "isbi": ISBI,
    "voc": VOC,
    "oxford_pet": OxfordPet,
}


def open_dataset(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> Dataset:
    """The data set called `name` (case, "-" and "_" don't matter), which lies in `root`; `cells` is generated and needs none.

    options: as its class takes them. DataError lists the known names if `name` is none of them, and says where `root` is missing or too much; TypeError
    for unknown options. Errors of the data set itself as its class says.
    """
    known = {key.replace("_", ""): cls for key, cls in DATASETS.items()}
    cls = known.get(name.lower().replace("-", "").replace("_", ""))
    if cls is None:
        raise DataError(f"there is no data set called {name!r}; known are {', '.join(DATASETS)}")
    if cls is Cells:
        if root is not None:
            raise DataError(
                f"the data set cells is generated and takes no folder, got {root}; for your own images use the data set folder (--data folder)"
            )
        return Cells(split, **options)
    if root is None:
        raise DataError(f"the data set {name} needs a folder; say where it lies (root, or --root on the command line)")
    return cls(root, split, **options)  # type: ignore[call-arg]
