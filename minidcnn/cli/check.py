"""Look a data set over before training: which images and masks belong together, their sizes and channels, how frequent each class is,
and everything that would surface later as a strange error or as a bad result.

  python -m minidcnn check --data folder --root mydata
  python -m minidcnn check --data camvid --root CamVid --split train

What the masks of your own images hold is found out and printed as options, to be corrected and given to training: names for the classes.

Exit code 0 if training may start (read the warnings), 1 if there are errors, 2 if the data set cannot be opened at all.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from .common import data_arguments, open_data, splits

_ALL = {"cells": ("train", "val"), "voc": ("train", "val")}  # the others have the split "all"


def arguments(parser: argparse.ArgumentParser) -> None:
    data_arguments(parser, "all of them")


def run(args: argparse.Namespace) -> int:
    from ..data import check
    from ..data.options import proposed

    ok = True
    for i, split in enumerate(splits(args, _ALL.get(args.data, ("all",)))):
        data = open_data(args, split, strict=False)
        report = check(data)
        report = replace(report, notes=(*report.notes, *proposed(data, report)))
        print(f"\n{report}" if i else report)
        ok = ok and report.ok
    return 0 if ok else 1
