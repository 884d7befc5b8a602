"""Score a trained network on a data set: pixel accuracy, accuracy, IoU and Dice of each class, and their means.

  python -m minidcnn evaluate runs/mine/best.safetensors                       on the images held out in that run
  python -m minidcnn evaluate runs/mine/best.safetensors --data folder --root others --split all
  python -m minidcnn evaluate runs/mine/best.safetensors --json > scores.json
  python -m minidcnn evaluate runs/mine/best.safetensors --boundary            how well outlines agree, too

Each image is predicted at its own size, and the pixels of all images are counted together. Ignored pixels count nowhere. Boundaries are
compared image by image and averaged (Csurka et al., "What is a good evaluation measure for semantic segmentation?", 2013).
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..words import counted, some
from .common import data_arguments, new_files, open_checkpoint, open_data, run_arguments, tile_of, warn

if TYPE_CHECKING:
    from ..data import Dataset

BATCH = 4  # images at a time


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.safetensors in the folder of a run")
    data_arguments(parser, "val", "what the run in the checkpoint's folder was trained on")
    run_arguments(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of a table: all scores and the confusion matrix")
    group.add_argument(
        "--boundary", type=_pixels, nargs="?", default=False, metavar="PIXELS",
        help="also F1 between the boundaries of each class, which may lie so many pixels apart (default: 0.75 %% of the image's diagonal)",
    )  # fmt: skip
    group.add_argument("--confusion", type=Path, metavar="FILE.png", help="draw the confusion matrix: which class is taken for which")
    group.add_argument("--force", action="store_true", help="overwrite FILE.png if it is there already")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..data import DataError
    from ..data.files import split_name
    from ..nn import constant_weights
    from ..segmentation.boundary import BoundaryF1
    from ..segmentation.evaluate import evaluate
    from ..segmentation.metrics import constant_prediction
    from ..segmentation.progress import on_terminal
    from .white import Watched, doubtful_white

    if args.confusion is not None:
        if args.confusion.suffix.lower() != ".png":
            raise ValueError(f"--confusion writes a PNG: its name must end in .png, got {args.confusion}")
        new_files([args.confusion], args)
    checkpoint, model = open_checkpoint(args.checkpoint, args.backend, args.precision)
    tile = tile_of(args, model)
    classes = list(checkpoint.info["classes"])
    again = as_in_training(args)
    split = split_name(args.split or "val")
    data = open_data(args, split, **meaning(checkpoint.info, args), strict=False)
    if again and split == "val":
        data = held_out(args, data, checkpoint.info)
    elif again and data.divided:
        demand_same_division(args, data, checkpoint.info)
    for problem in (*data.problems, *data.unused):
        warn(problem)
    if len(data.classes) != len(classes):
        ours, theirs = (f"{len(names)} classes ({some(names, 6)})" for names in (classes, data.classes))
        raise DataError(f"{args.checkpoint} knows {ours}, but {data.name} has {theirs}")
    if list(data.classes) != classes:
        warn(
            f"the classes are called {', '.join(classes)} in the checkpoint and {', '.join(data.classes)} in {data.name}; their order is what counts"
        )
    if data.channels != model.in_channels:
        raise DataError(f"{args.checkpoint} takes images of {counted(model.in_channels, 'channel')}, {data.name} has {data.channels}")
    if not len(data):
        raise DataError(f"{data.name} is empty")
    boundary = None if args.boundary is False else BoundaryF1(len(classes), data.ignore_index, args.boundary)
    watched = Watched(data)
    bar = tqdm(total=len(data), unit="image", leave=False, file=sys.stderr, disable=not on_terminal())
    with bar, constant_weights(model, len(data) // BATCH * (4 if args.flips else 1)):
        result = evaluate(
            model, watched, mean=checkpoint.info["mean"], std=checkpoint.info["std"], batch_size=BATCH, tile=tile, flips=args.flips, boundary=boundary,
            progress=lambda done, total: bar.update(done - bar.n),
        )  # fmt: skip
    white = checkpoint.info.get("white") if args.white is None else args.white
    if odd := doubtful_white(watched.seen.brightest, watched.seen.average, checkpoint.info, white):
        warn(f"{data.name}: {odd}")
    if not result.confusion.matrix.any():
        raise DataError(f"{data.name}: every pixel of {counted(len(data), 'image')} is ignored, so that there is nothing to compare")
    if args.confusion is not None:
        from ..segmentation.figures import confusion

        args.confusion.parent.mkdir(parents=True, exist_ok=True)
        confusion(result.confusion, classes, args.confusion)
    if args.json:
        about = {"checkpoint": str(args.checkpoint), "data": data.name, "images": len(data), "classes": classes}
        scores = result.confusion.scores() | (boundary.scores() if boundary else {})
        print(json.dumps(about | scores | {"confusion": result.confusion.matrix.tolist()}, indent=2))
    else:
        print(f"{data.name}: {counted(len(data), 'image')}")
        print(result.confusion.table(classes, boundary))
    if absent := [name for name, pixels in zip(classes, result.confusion.true, strict=True) if not pixels]:
        warn(f"{data.name}: no pixel is {some(absent)}: the scores cannot tell how well it is found")
    if warning := constant_prediction(result.confusion, classes):
        warn(warning)
    return 0


def _pixels(text: str) -> float:
    """A distance in pixels."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) < float("inf"):  # which JSON does not know
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels; without one, --boundary is the last word")


def as_in_training(args: argparse.Namespace) -> bool:
    """The data set of the run in whose folder the checkpoint lies, divided as it was there: without --data, or if it names that data set in that
    place. Returns whether it is that one.

    ValueError if --data is not given and there is no such run, or --val-fraction asks for another division.
    """
    from ..data.written import option_text
    from ..segmentation.runs import RunFolder

    folder = RunFolder(args.checkpoint.parent)
    if args.data is None and not folder.config.is_file():
        raise ValueError(
            f"there is no {folder.config} that says what {args.checkpoint} was trained on; name a data set with --data (and --root)"
        )
    try:
        config = folder.read_config()
    except (ValueError, OSError):
        if args.data is None:
            raise
        return False
    if args.data is not None and (args.data, _place(args.root)) != (config.data, _place(config.root)):
        return False
    args.data = config.data
    args.root = args.root or config.root
    options = config.data_options()
    if args.val_fraction not in (None, options.get("val_fraction")):
        raise ValueError(
            f"{option_text('val_fraction', args.val_fraction)} would divide the images anew, and the network knows some of them from training: "
            f"leave it out, or name other images with --data and --root"
        )
    args.val_fraction = options.get("val_fraction")
    if args.suffix is None:  # the other options decided what the checkpoint says: see `meaning`
        args.suffix = options.get("suffix")
    return True


def _place(root: str | None) -> Path | None:
    return None if root is None else Path(root).expanduser().resolve()


def held_out(args: argparse.Namespace, val: Dataset, info: dict[str, Any]) -> Dataset:
    """Those images that were held out in training, by their names: with images more or fewer, `val` is divided anew, and the network knows some of it.

    Warns of those that are gone; DataError if all are. Older checkpoints don't know the names: then it is `val`.
    """
    from ..data import DataError, Subset
    from ..segmentation.state import sample_names

    wanted = info.get("held_out", sample_names(val))
    if wanted == sample_names(val):
        return val
    pools = [val]
    with suppress(DataError):  # some data sets have no such split
        whole = open_data(args, "all", **meaning(info, args), strict=False)
        if len(set(sample_names(whole))) == len(whole):  # else a name may mean an image to train on
            pools.append(whole)
    places = [{name: i for i, name in enumerate(sample_names(pool))} for pool in pools]
    pool, place = max(zip(pools, places, strict=True), key=lambda both: len(both[1].keys() & set(wanted)))
    missing = [name for name in wanted if name not in place]
    if len(missing) == len(wanted):
        raise DataError(
            f"{val.name} has none of the {len(wanted)} images held out in training, such as {wanted[0]}; name a data set with --data"
        )
    if missing:
        warn(f"{len(missing)} of the {len(wanted)} images held out in training are not in {val.name} any more, such as {missing[0]}")
    found = Subset(pool, [place[name] for name in wanted if name in place])
    found.name = val.name
    return found


def demand_same_division(args: argparse.Namespace, train: Dataset, info: dict[str, Any]) -> None:
    """ValueError if `train` was divided from `val` differently in training: the network knows neither all of it nor it alone."""
    from ..segmentation.state import sample_names

    val = sample_names(open_data(args, "val", **meaning(info, args), strict=False))
    if info.get("held_out", val) != val:
        raise ValueError(
            f"images came or went since training, so that {train.name} is divided anew and has images that the network was not trained on: "
            f"evaluate --split val, which are those held out then, or --split all"
        )


def meaning(info: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What masks and images mean, as in training: for folders of images, where it would be guessed from the files otherwise.

    ValueError if --ignored names a value that is a class.
    """
    from ..data.options import taken
    from ..data.written import option_text, value_text

    known = args.values is None and info.get("mask_values") is not None  # else `Folder` decides what is ignored
    if known and "ignored" in taken(args.data):
        named = {tuple(v) if isinstance(v, list) else v: name for v, name in zip(info["mask_values"], info["classes"], strict=False)}
        if both := [value for value in args.ignored or () if value in named]:
            raise ValueError(
                f"{option_text('ignored', tuple(both))}: {value_text(both[0])} is the class {named[both[0]]} of the checkpoint, and a class that the "
                f"network knows cannot be left out; if these masks have other values, say which one each class has with --values"
            )
    return {
        "classes": info["classes"],
        "values": info.get("mask_values"),
        "ignored": info.get("mask_ignored") if known else None,  # nothing, if it was nothing: 255 may be a class in other masks
        "channels": info.get("channels"),
        "white": info.get("white"),
    }
