"""Draw a picture of a data set: some of its images, their masks, and both laid over each other, with a legend of the classes.

  python -m minidcnn show --data folder --root mydata --out pictures
  python -m minidcnn show --data camvid --root CamVid --split val --count 10 --out pictures

Writes NAME.png into --out, named after the data set. Look whether the masks lie where they should, and whether the classes are what they
are called.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..words import counted
from .common import data_arguments, new_files, open_data, output_arguments, positive, warn


def arguments(parser: argparse.ArgumentParser) -> None:
    data_arguments(parser, "train")
    group = parser.add_argument_group("picture")
    group.add_argument(
        "--count", type=positive, default=6, metavar="N", help="how many images, evenly spread over the data set (default: 6)"
    )
    output_arguments(group)


def run(args: argparse.Namespace) -> int:
    from ..data import DataError
    from ..data.sample import validate
    from ..segmentation.gallery import samples

    data = open_data(args, args.split or "train", strict=False)
    path: Path = args.out / f"{data.name.replace(' ', '-')}.png"
    new_files([path], args)
    shown, bad = [], 0
    count = min(args.count, len(data))
    for i in range(count):
        try:
            sample = data[(2 * i + 1) * len(data) // (2 * count)]
            validate(sample)
            shown.append(sample)
        except DataError as error:
            warn(str(error))
            bad += 1
    if not shown:
        raise DataError(f"{data.name} has no image that can be shown; python -m minidcnn check says what is wrong with it")
    args.out.mkdir(parents=True, exist_ok=True)
    title = f"{data.name}: {len(shown)} of {counted(len(data), 'image')}"
    samples(shown, data.classes, data.palette, path, title=title)
    print(f"{path} shows {len(shown)} of {counted(len(data), 'image')}")
    return 1 if bad else 0
