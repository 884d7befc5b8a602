"""Look a data set over before training: which images and masks belong together, their sizes and channels, how frequent each class is,
and everything that would surface later as a strange error or as a bad result.

  python -m minidcnn check --data folder --root mydata
  python -m minidcnn check --data camvid --root CamVid --split train

What the masks of your own images hold is found out and printed as options, to be corrected and given to training: names for the classes.

Exit code 0 if training may start with the same options (read the warnings), 1 if there are errors, 2 if the data set cannot be opened at
all. With --split, only that part is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .common import data_arguments, open_data

if TYPE_CHECKING:
    from ..data import Dataset, Report

_ALL = {"cells": ("train", "val"), "voc": ("train", "val")}  # the others have the split "all"


def arguments(parser: argparse.ArgumentParser) -> None:
    data_arguments(parser, "all of them")


def run(args: argparse.Namespace) -> int:
    from ..data import check
    from ..data.options import proposed

    ok = True
    for i, split in enumerate([args.split] if args.split else _ALL.get(args.data, ("all",))):
        data = open_data(args, split, strict=False)
        report = check(data)
        report = replace(report, notes=(*report.notes, *proposed(data, report)))
        if split == "all" and not args.split and report.ok:
            report = replace(report, errors=tuple(dict.fromkeys(why_not(args, data, report))))
        print(f"\n{report}" if i else report)
        ok = ok and report.ok
    return 0 if ok else 1


def why_not(args: argparse.Namespace, data: Dataset, report: Report) -> Iterator[str]:
    """Why training would not start, though every sample of all `data` is as it should be: how they are divided."""
    from ..data import DataError

    found = {"classes": data.classes, "values": data.mask_values, "ignored": data.mask_ignored, "channels": data.channels}
    for split in ("train", "val"):
        try:
            part = open_data(args, split, **found)
        except DataError as error:
            yield str(error)
            continue
        if report.counts.ignored and not any(
            (sample.mask != sample.ignore_index).any() for sample in part
        ):  # the first one settles it as a rule
            yield f"{part.name}: every pixel of all {len(part)} images is ignored: label some, or divide the images otherwise"
