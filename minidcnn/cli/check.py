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
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from .common import data_arguments, fail, open_data

if TYPE_CHECKING:
    from ..data import Dataset, Report

_ALL = {"cells": ("train", "val"), "voc": ("train", "val")}  # the others have the split "all"


def arguments(parser: argparse.ArgumentParser) -> None:
    data_arguments(parser, "all of them")


def run(args: argparse.Namespace) -> int:
    from ..data import check
    from ..data.files import Incomplete
    from ..data.options import proposed

    ok = True
    for i, split in enumerate([args.split] if args.split else _ALL.get(args.data, ("all",))):
        try:
            data = open_data(args, split, strict=False)
        except Incomplete as error:  # nothing is left to open
            for problem in error.problems:
                fail(problem)
            return 2
        report = check(data)
        report = replace(report, notes=(*report.notes, *proposed(data, report)))
        if split == "all" and not args.split and report.ok:
            report = look_at_parts(args, data, report)
        print(f"\n{report}" if i else report)
        ok = ok and report.ok
    return 0 if ok else 1


def look_at_parts(args: argparse.Namespace, data: Dataset, report: Report) -> Report:
    """The report on all `data`, every sample of which is as it should be, with what training would say of how they are divided: why it would
    not start, and which classes a part lacks.
    """
    from ..data import DataError, FileDataset
    from ..data.report import all_ignored, no_pixel, no_pixel_held_out

    assert isinstance(data, FileDataset)  # as all are whose split is called all
    present = {entry.mask: classes for entry, classes in zip(data.entries, report.present, strict=True)}
    found = {"classes": data.classes, "values": data.mask_values, "ignored": data.mask_ignored, "channels": data.channels}
    errors: list[str] = []
    parts: list[tuple[str, frozenset[int]]] = []
    for split in ("train", "val"):
        try:
            part = open_data(args, split, **found)
        except DataError as error:
            errors.append(str(error))
            continue
        assert isinstance(part, FileDataset)
        held = _union(present[entry.mask] for entry in part.entries)
        if not held:
            errors.append(f"{part.name}: {all_ignored(len(part))}")
        parts.append((part.name, held))
    if errors:
        return replace(report, errors=tuple(dict.fromkeys(errors)))
    (train, learned), (val, measured) = parts
    warnings = list(report.warnings)
    if absent := [data.classes[k] for k in sorted(_union(report.present) - learned)]:
        warnings.append(f"{train}: {no_pixel(absent)}")
    if unmeasured := [data.classes[k] for k in sorted(learned - measured)]:
        warnings.append(f"{val}: {no_pixel_held_out(unmeasured, args.data)}")
    return replace(report, warnings=tuple(warnings))


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset(chain.from_iterable(sets))
