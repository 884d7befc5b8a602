"""What the commands share: a parser that answers with one sentence, the options of data sets, of the backend and of tiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ..data import Dataset
    from ..interop import Checkpoint
    from ..models import Segmenter


class Parser(argparse.ArgumentParser):
    """Descriptions are shown as they are written; a mistake is one sentence and exit code 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        from ..data.options import with_hint

        raise SystemExit(fail(f"{with_hint(message)}; {self.prog} --help explains the options"))


def fail(message: str, code: int = 2) -> int:
    """Say what is wrong, in one line on stderr; returns the exit code."""
    _say("error", message)
    return code


def warn(message: str) -> None:
    """Say what is odd, in one line on stderr."""
    _say("warning", message)


def _say(kind: str, message: str) -> None:
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)


# -- data sets ---------------------------------------------------------------------------------------------------------------------------


def data_arguments(parser: argparse.ArgumentParser, split: str, default: str | None = None) -> None:
    """--data, --root, --split and what belongs to --data folder. split, default: what the defaults of --split and --data are, for the help."""
    from ..data.options import add_data_options

    add_data_options(parser, data=default, split=split)


def open_data(args: argparse.Namespace, split: str, **more: Any) -> Dataset:
    """The data set that the options name; `more` are arguments for it that the options do not overrule. DataError as `open_dataset`."""
    from ..data import open_dataset
    from ..data.options import accepted, taken

    given = accepted(args.data, vars(args))
    more = {name: value for name, value in more.items() if name in taken(args.data) and value is not None}
    return open_dataset(args.data, args.root, split, **more | given)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


# -- networks ----------------------------------------------------------------------------------------------------------------------------


def backend_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=("auto", "numpy", "cupy"),
        default="auto",
        help="where to compute: numpy, cupy (an NVIDIA GPU), or auto: cupy if it is usable (default: auto)",
    )


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """--tile, --flips, --backend and --precision."""
    from ..backend import PRECISIONS
    from ..segmentation.predict import TILE

    parser.add_argument(
        "--tile", type=int, metavar="N",
        help=f"cut images larger than NxN pixels into overlapping tiles, for less memory; 0 never does (default: {TILE}, or what the network needs)",
    )  # fmt: skip
    parser.add_argument(
        "--flips", action="store_true", help="average over the four flips of each image: a little better, four times the work"
    )
    backend_argument(parser)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="of the factors in convolutions; tf32x3 and tf32 use a GPU's tensor cores and change nothing on numpy; "
        "float16: of everything but weights, on numpy too (default: float32)",
    )  # fmt: skip


def open_checkpoint(path: Path, backend: str, precision: str = "float32") -> tuple[Checkpoint, Segmenter]:
    """A checkpoint and its network on `backend`, in `precision`. CheckpointError, also if it does not say what its images and classes are; BackendError."""
    from ..backend import use
    from ..interop import CheckpointError, load_checkpoint, model_of

    checkpoint = load_checkpoint(path)
    use(backend, precision)
    model = model_of(checkpoint)
    info = checkpoint.info
    if missing := [name for name in ("classes", "mean", "std") if name not in info]:
        raise CheckpointError(
            f"{path} does not say the {missing[0]} that it was trained with (info[{missing[0]!r}]); predict with the library instead"
        )
    for name, count in (("classes", model.classes), ("mean", model.in_channels), ("std", model.in_channels)):
        if len(info[name]) != count:
            raise CheckpointError(f"{path} is damaged: {name} has {len(info[name])} entries, its network needs {count}")
    return checkpoint, model


def tile_of(args: argparse.Namespace, model: Segmenter) -> int | None:
    """--tile as `scores` takes it, `usual_tile` where it is not given. ValueError if the network takes no tile so small."""
    from ..segmentation.predict import smallest_tile, usual_tile

    if args.tile is None:
        return usual_tile(model)
    if args.tile and args.tile < smallest_tile(model):
        raise ValueError(f"--tile must be at least {smallest_tile(model)} pixels for this network, or 0 for whole images, got {args.tile}")
    return args.tile or None


# -- results -----------------------------------------------------------------------------------------------------------------------------


def output_arguments(parser: Any) -> None:
    """--out and --force."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the results; it is made if need be")
    parser.add_argument("--force", action="store_true", help="overwrite results that are there already")


def new_files(paths: Sequence[Path], args: argparse.Namespace) -> None:
    """ValueError if the folder is a file, or one of `paths` is there and may not be overwritten: said before the work begins."""
    for folder in sorted({path.parent for path in paths}):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file, not a folder; choose another place for the results")
    there = [path for path in paths if path.exists()]
    if there and not args.force:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise ValueError(f"{there[0]} exists already{others}; add --force to overwrite, or choose another place")
