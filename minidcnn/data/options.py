"""The options of data sets on the command line: written once, for the training scripts and for `python -m minidcnn` alike."""

from __future__ import annotations

import inspect
import re
from argparse import ArgumentParser
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from .dataset import Dataset
from .folder import Folder
from .registry import DATASETS
from .report import RARE, Report
from .sample import DataError
from .written import class_names, mask_values, option_text, value_text

_MOST_NAMES = 16  # more are not written out

#: The options that are arguments of data sets, under their names there.
OPTIONS = ("val_fraction", "classes", "values", "ignored", "suffix", "channels", "white")


def add_data_options(parser: ArgumentParser, *, data: str | None = None, split: str | None = None) -> Any:
    """Adds --data, --root and OPTIONS, all None (--data: cells) if they are not given. Returns the group "data", for more options.

    data: says what is taken without --data, which is None then. split: adds --split, and says what it is if it's not given.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data", default=None if data else "cells", choices=tuple(DATASETS), metavar="NAME",
        help=f"one of {', '.join(DATASETS)}; cells is generated, folder takes your own images (default: {data or 'cells'})",
    )  # fmt: skip
    group.add_argument(
        "--root", metavar="DIR", help="where the data lies; folder wants DIR/images and DIR/masks with files of the same names"
    )
    if split is not None:
        group.add_argument("--split", metavar="NAME", help=f"train, val, test or all, as far as the data set has them (default: {split})")
    group.add_argument(
        "--val-fraction", type=float, metavar="X",
        help="part of the images held out for validation (val), where the data is not divided already (default: 0.2)",
    )  # fmt: skip

    own = parser.add_argument_group("your own images (--data folder)")
    own.add_argument(
        "--classes", type=class_names, metavar="NAMES",
        help="names of the classes in the order of their mask values, background too: background,road,car; or how many there are "
        "(default: DIR/classes.txt, else made up)",
    )  # fmt: skip
    own.add_argument(
        "--values", type=mask_values, metavar="VALUES",
        help="what stands for each class in the masks, in the same order: 0,128,255, or colours as red/green/blue: 0/0/0,255/0/0,0/0/255 "
        "(default: the values that occur, in ascending order)",
    )  # fmt: skip
    own.add_argument(
        "--ignored", type=mask_values, metavar="VALUES",
        help="mask values of pixels that don't count, such as 7 or 255/255/255 (default: 255 beside class indices 0, 1, ...; beside 0 and 1 alone, "
        "if a mask holds all three)",
    )  # fmt: skip
    own.add_argument(
        "--suffix",
        metavar="TEXT",
        help="what a mask's name has after its image's: _mask for a.jpg and a_mask.png, --suffix=-mask for a-mask.png (default: found out)",
    )
    own.add_argument(
        "--channels", type=int, metavar="N", help="read the images with 1 (gray), 3 (RGB) or more channels (default: as they are)"
    )
    own.add_argument(
        "--white", type=float, metavar="X", help="the value that is white: 4095 for images of 12 bits (default: by the file's type)"
    )
    return group


def with_hint(message: str) -> str:
    """What argparse says, and what may have been meant if words are left over."""
    if re.match("unrecognized arguments: [^-]", message):
        return (
            f"{message}; what belongs to an option follows its name, several names or values as one word: --root mydata --classes "
            f"background,road,car"
        )
    return message


def accepted(data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of OPTIONS in `given` that aren't None, as arguments for the data set called `data`.

    DataError in one sentence if it does not take one of them, or none could take such a value.
    """
    options = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    for name, value in options.items():
        if name not in taken(data):
            takers = " or ".join(known for known in DATASETS if name in taken(known))
            raise DataError(
                f"{option_text(name, value)} is for --data {takers}; --data {data} does not take it: leave it out, or use --data folder"
            )
    if not 0 < options.get("val_fraction", 0.5) < 1:
        raise DataError(f"--val-fraction must lie between 0 and 1, got {options['val_fraction']}")
    if options.get("channels", 1) < 1:
        raise DataError(f"--channels must be at least 1, got {options['channels']}")
    if not 0 < options.get("white", 1) < float("inf"):
        raise DataError(f"--white must be a positive number, got {options['white']}")
    return options


def taken(data: str) -> frozenset[str]:
    """The names of the arguments that the data set called `data` takes."""
    return frozenset(inspect.signature(DATASETS[data].__init__).parameters)


def proposed(dataset: Dataset, report: Report) -> list[str]:
    """What a folder's files were taken to mean, in sentences with the options that say the same: to be looked at, corrected and given."""
    if not isinstance(dataset, Folder) or dataset.problems:  # of half the masks, nothing is found out
        return []
    guessed = dataset.guessed
    notes: list[str] = []
    shown = [name for name in ("ignored", "suffix") if guessed.get(name)]
    if "values" in guessed and guessed["values"] != tuple(range(len(dataset.classes))):  # indices need not be said
        shown.insert(0, "values")
    if "classes" in guessed and len(dataset.classes) <= _MOST_NAMES:
        shown.insert(0, "classes")
    if shown:
        yours = " (put in names of your own)" if "classes" in shown else ""
        notes.append(f"found out{yours}: {' '.join(option_text(name, guessed[name]) for name in shown)}")
    colours = {index: value_text(colour) for index, colour in sorted(dataset.shown.items()) if index in dataset.table.values}
    if "classes" in shown and any(len(set(colour.split("/"))) > 1 for colour in colours.values()):  # else the palette is gray
        meant = ", ".join(f"{index} is {colour}" for index, colour in colours.items())
        notes.append(f"in the palettes of the masks {meant} (red/green/blue)")
    rare = tuple(v for v, share in zip(dataset.table.values, report.frequencies, strict=True) if 0 < share < RARE)
    if rare and "values" in shown and len(dataset.classes) - len(rare) > 1:
        held, ignored = " or ".join(map(value_text, rare)), option_text("ignored", (*dataset.mask_ignored, *rare))
        notes.append(f"few pixels hold {held}: if that is no class, leave it out with {ignored}")
    images = report.counts.images[1:].tolist()
    if "classes" in guessed and len(images) > 2 and _may_number_objects(dataset, images):
        notes.append(
            f"the masks hold 0 to {len(images)}, and higher numbers occur in fewer images: if they number objects, as cells are numbered by "
            f"segmentation programs, they are no classes; save mask > 0 as 0 and 1 instead"
        )
    if dataset.transparent:
        notes.append(f"transparent pixels of masks, as in {dataset.transparent}, count as black, whatever colour is hidden there")
    if dataset.inverted:
        notes.append(
            f"masks, as {dataset.inverted}, store white as 0 (an inverted lookup table) and are taken as they look, white being the highest value: "
            f"is black the background?"
        )
    return notes


def _may_number_objects(dataset: Folder, images: list[int]) -> bool:
    """Whether values 0, 1, 2, ... occur as numbers of objects would: from one number to the next, the images that hold it become fewer on the
    whole. images: of each number from 1 on.
    """
    ascending = dataset.table.values == tuple(range(len(dataset.classes)))
    rise = sum(max(later - earlier, 0) for earlier, later in pairwise(images))
    return ascending and max(images) - images[-1] > 2 * rise
