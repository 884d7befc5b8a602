"""Segment images with a trained network. Each image gives two files in --out, at its own size:

  NAME.png           the index of its class at each pixel, as an 8-bit PNG (0, 1, 2 ...; viewers show it in the classes' colours)
  NAME_overlay.png   the image with its classes laid over it

  python -m minidcnn predict runs/mine/best.safetensors photo.jpg --out predicted
  python -m minidcnn predict runs/mine/best.safetensors photos/ --out predicted --flips

Images may have any size. Gray, colour, palette, RGBA and gray 16-bit files are read as in training, a TIFF with pages page by page (or as
channels, if the network takes as many). Of images with one name, the results are called after their folder or their suffix, too.

Exit code 0 if all images are done, 1 if some could not be (the others are), 2 if none was tried.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..words import some
from .common import fail, new_files, open_checkpoint, output_arguments, run_arguments, tile_of, warn

if TYPE_CHECKING:
    from ..backend import Array
    from ..interop import Checkpoint
    from ..models import Segmenter
    from .images import Job
    from .white import Brightness


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.safetensors in the folder of a run")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files; a folder stands for the images in it")
    output_arguments(parser)
    run_arguments(parser)
    parser.add_argument("--white", type=float, metavar="X", help="the value that is white (default: as in training)")


def run(args: argparse.Namespace) -> int:
    from ..data.options import accepted
    from ..nn import constant_weights
    from ..segmentation.predict import smallest_tile, usual_tile
    from ..segmentation.progress import sentence
    from .images import find_images
    from .white import Brightness, doubtful_white

    accepted("folder", {"white": args.white})
    checkpoint, model = open_checkpoint(args.checkpoint, args.backend, args.precision)
    tile = tile_of(args, model)
    jobs, problems = find_images(args.images, model.in_channels, args.out)
    results = [path for job in jobs for path in outputs(args.out, job.name)]
    given = {job.source.path.resolve() for job in jobs}
    if own := [path for path in results if path.resolve() in given]:
        raise ValueError(f"{own[0]} is one of the images, and its prediction would overwrite it; choose another --out")
    new_files(results, args)
    for problem in problems:
        fail(problem)
    if not jobs:
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    failed = len(problems)
    if args.white is None:
        args.white = checkpoint.info.get("white")
    totals, seen = None, Brightness(model.in_channels)
    with constant_weights(model, len(jobs) * (4 if args.flips else 1)):
        for number, job in enumerate(jobs, 1):
            try:
                counts = predict(job, checkpoint, model, args, seen, tile, f"{number}/{len(jobs)}")
            except (ValueError, ArithmeticError, OSError) as error:
                said = sentence(error)
                fail(said if str(job.source.path) in said else f"{job.source}: {said}")
                failed += 1
            except MemoryError as error:
                smaller = usual_tile(model) if tile is None else max(tile // 2, smallest_tile(model))
                way_out = f"; try --tile {smaller}" if tile is None or smaller < tile else ""
                fail(f"{job.source}: {sentence(error)}{way_out}")
                failed += 1
            else:  # a reader that has gone away, such as | head, is no error of this image
                totals = counts if totals is None else totals + counts
                print(f"{job.source} -> {outputs(args.out, job.name)[0]}: {shares(counts, checkpoint.info['classes'])}", flush=True)
    done = len(jobs) + len(problems) - failed
    if totals is not None and len(jobs) > 1:
        print(f"all {done}: {shares(totals, checkpoint.info['classes'])}")
    # of all images together: among others, one that is merely empty is nothing odd
    if seen.values and (odd := doubtful_white(seen.brightest, seen.average, checkpoint.info, args.white)):
        warn(f"{jobs[0].source if len(jobs) == 1 else 'all images'}: {odd}")
    if failed:
        print(f"{done} of {done + failed} images are done", file=sys.stderr)
    return 1 if failed else 0


def predict(
    job: Job, checkpoint: Checkpoint, model: Segmenter, args: argparse.Namespace, seen: Brightness, tile: int | None, label: str
) -> Array:
    """Predict one image and write its files; returns the pixels of each class, and adds to `seen` how bright it is."""
    import numpy as np
    from tqdm import tqdm

    from ..data import read_image
    from ..segmentation.paint import as_palette, as_rgb, index_png, overlay, rgb_png
    from ..segmentation.predict import predict_mask
    from ..segmentation.progress import on_terminal

    classes, palette = checkpoint.info["classes"], checkpoint.info.get("palette")
    image = read_image(job.source, model.in_channels, args.white)
    seen.add(image)
    shown = as_rgb(image).transpose(2, 0, 1)  # a quarter of the bytes
    image -= np.array(checkpoint.info["mean"], np.float32)[:, None, None]
    image /= np.array(checkpoint.info["std"], np.float32)[:, None, None]
    with tqdm(desc=f"{label} {job.name}", unit="tile", leave=False, delay=1, file=sys.stderr, disable=not on_terminal()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update()

        mask = predict_mask(model, image, tile=tile, flips=args.flips, progress=progress)
    colours = as_palette(None if palette is None else np.array(palette, np.uint8), len(classes))
    index, over = outputs(args.out, job.name)
    index_png(mask, index, colours)
    rgb_png(overlay(shown, mask, colours), over)
    return np.bincount(mask.ravel(), minlength=len(classes))


def outputs(out: Path, name: str) -> tuple[Path, Path]:
    """(index PNG, overlay)."""
    return out / f"{name}.png", out / f"{name}_overlay.png"


def shares(counts: Any, classes: list[str]) -> str:
    """ "background 71.2 %, cell 28.8 %": the classes that occur, the most frequent first, of many the first six."""
    order = sorted(range(len(classes)), key=lambda k: -counts[k])
    present = [f"{classes[k]} {100 * counts[k] / counts.sum():.1f} %" for k in order if counts[k]]
    return some(present, 6)
