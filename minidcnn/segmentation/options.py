"""The command line that all examples share. Which options were given is remembered: the others follow the data set, or the run resumed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

from ..backend import PRECISIONS
from ..data import DATASETS
from ..data.options import OPTIONS, accepted, add_data_options, with_hint
from ..data.written import argument_text, image_size
from ..words import option_name
from . import config as c
from .config import TrainConfig, defaults
from .runs import RunFolder

AddOptions = Callable[[Any], None]  # gets the argument group of the network's own options
FOUND_OUT = ("values", "ignored")  # may be given with --resume if they were not: to go on with what an older version found out
CHANGEABLE = ("epochs", "root", "backend", "prefetch", "recompute", "graph")  # may be given anew with --resume


@dataclass(frozen=True)
class Request:
    """What the command line asks for. folder: made already; resume: whether it holds the run to go on with."""

    config: TrainConfig
    folder: RunFolder
    resume: bool


def read_options(
    network: str,
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    add_options: AddOptions | None = None,
    adjust: Mapping[str, Mapping[str, Any]] | None = None,
) -> Request:
    """Read the command line (sys.argv, or `argv`) of an example and find or make the folder of its run.

    description: the example's docstring. add_options: adds the network's own options to a group. adjust: the network's own defaults by data
    set, see `config.defaults`. ValueError in one sentence for values that make no sense, a folder that holds a run, or nothing to resume;
    argparse's exit for options that do not exist.
    """
    parser, own = make_parser(network, description, add_options, adjust)
    everything = vars(parser.parse_args([]))
    unset = object()
    parsed = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(everything, unset))))
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items() if value is not unset
    }
    out, resume = given.pop("out", None), given.pop("resume", False)
    if resume:
        folder = RunFolder.found(out, f"{network}-{given['data']}" if "data" in given else network)
        config = resumed(network, folder, given, own)
        return Request(config, folder, True)
    data = given.get("data", "cells")
    accepted(data, given)
    values = defaults(network, data, adjust) | {name: value for name, value in given.items() if name not in own}
    config = TrainConfig(**values, network_options={name: given.get(name, everything[name]) for name in own})
    return Request(config, RunFolder.new(out, f"{network}-{data}"), False)


def resumed(network: str, folder: RunFolder, given: Mapping[str, Any], own: Sequence[str]) -> TrainConfig:
    """The options of the run in `folder`; of those given now, some may differ. ValueError names one that may not, or another network."""
    config = folder.read_config()
    if config.network != network:
        raise ValueError(
            f"the run in {folder} trains the network {config.network}, not {network}: go on with the script of {config.network}, or choose another --out"
        )
    for name, value in given.items():
        before = config.network_options.get(name) if name in own else getattr(config, name)
        if name not in CHANGEABLE and value != before and not (name in FOUND_OUT and before is None):
            raise ValueError(
                f"{option_name(name)} is {_text(value, name)} now, but the run in {folder} was started {_with(before, name)}: leave it out "
                f"to resume, or start a new run with another --out"
            )
    return replace(config, **{name: value for name, value in given.items() if name in CHANGEABLE + FOUND_OUT})


def make_parser(
    network: str, description: str | None, add_options: AddOptions | None = None, adjust: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[argparse.ArgumentParser, tuple[str, ...]]:
    """The parser, and the names of the network's own options. Options that follow the data set have no default here: see `defaults`."""
    parser = _Parser(
        usage="%(prog)s [--data NAME] [--root DIR] [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_epilog(network, adjust),
    )
    usual = {f.name: f.default for f in fields(TrainConfig)} | dict((adjust or {}).get("all", {}))

    data = add_data_options(parser)
    data.add_argument(
        "--crop", type=crop_size, metavar="N|HxW", help="train on random parts of this size; none takes whole images (default: see below)"
    )
    data.add_argument(
        "--augment", nargs="*", choices=c.AUGMENTATIONS, metavar="HOW",
        help=f"change the training images at random: any of {', '.join(c.AUGMENTATIONS)}; mirror swaps left and right, turns adds quarter turns "
        "(default: see below)",
    )  # fmt: skip
    data.add_argument("--no-augment", dest="augment", action="store_const", const=(), help="train on the images as they are")
    data.add_argument("--repeat", type=int, metavar="N", help="go N times through the training images in each epoch (default: see below)")
    data.add_argument(
        "--prefetch", type=int, metavar="N", default=usual["prefetch"],
        help="batches prepared ahead by a thread (default: %(default)s)",
    )  # fmt: skip

    own: tuple[str, ...] = ()
    if add_options is not None:
        before = set(vars(parser.parse_args([])))
        add_options(parser.add_argument_group("network"))
        own = tuple(name for name in vars(parser.parse_args([])) if name not in before)

    how = parser.add_argument_group("training")
    how.add_argument("--epochs", type=int, metavar="N", help="how long (default: see below)")
    how.add_argument("--batch-size", type=int, metavar="N", help="images per step; fewer take less memory (default: see below)")
    how.add_argument("--lr", type=float, metavar="X", help="learning rate; lower it if the loss jumps or becomes nan (default: see below)")
    how.add_argument("--optimizer", choices=c.OPTIMIZERS, help="(default: see below)")
    how.add_argument(
        "--schedule", choices=c.SCHEDULES,
        help="how the learning rate falls; plateau waits for the validation loss (default: see below)",
    )  # fmt: skip
    how.add_argument(
        "--warmup", type=int, metavar="N", default=usual["warmup"],
        help="steps in which the learning rate rises first (default: %(default)s)",
    )  # fmt: skip
    how.add_argument("--weight-decay", type=float, metavar="X", default=usual["weight_decay"], help="(default: %(default)s)")
    how.add_argument("--momentum", type=float, metavar="X", default=usual["momentum"], help="of sgd (default: %(default)s)")
    how.add_argument(
        "--clip", type=float, metavar="X", default=usual["clip"], help="limit the norm of the gradient; 0 does not (default: %(default)s)"
    )
    how.add_argument("--loss", choices=c.LOSSES, default=usual["loss"], help="(default: %(default)s)")
    how.add_argument(
        "--class-weights", choices=c.CLASS_WEIGHTS,
        help="median: rare classes count more, by median frequency; published: SegNet's, for camvid (default: see below)",
    )  # fmt: skip
    how.add_argument(
        "--border-weight", type=float, metavar="X", default=usual["border_weight"],
        help="let narrow gaps between objects count up to X times more, as the U-Net paper's w0=10 (default: 0)",
    )  # fmt: skip

    run = parser.add_argument_group("run")
    run.add_argument("--backend", choices=c.BACKENDS, default="auto", help="numpy runs on the CPU, cupy on an NVIDIA GPU (default: auto)")
    run.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="of the factors in convolutions: tf32x3 (nearly float32), tf32 and bf16 use a GPU's tensor cores; on numpy tf32x3 and "
        "tf32 change nothing, and bf16 is faster with AVX512-BF16, else slower. "
        "float16: keep images and all results of layers in half the memory, weights in float32, and scale the loss; on numpy too, but slowly "
        "(default: float32)",
    )  # fmt: skip
    run.add_argument(
        "--recompute", action="store_true",
        help="take less memory and more time: compute the layers' results again in the backward pass instead of keeping them; to the same bits",
    )  # fmt: skip
    run.add_argument(
        "--graph", action="store_true",
        help="on a GPU, record forward and backward pass once and launch them as one CUDA graph: faster where networks or images are small",
    )  # fmt: skip
    run.add_argument("--out", metavar="DIR", help=f"folder for results (default: a fresh runs/{network}-DATA-N)")
    run.add_argument(
        "--resume", action="store_true",
        help="go on with the run in --out (or the latest one) to the same bits as if it had never stopped; Ctrl-C saves the state first, "
        "pressed twice it breaks off at once",
    )  # fmt: skip
    run.add_argument(
        "--start", metavar="FILE",
        help="begin with the weights of a trained network, best.safetensors of another run, instead of random ones; where there are more or "
        "fewer classes, the layers that score them are new; a finer FCN takes a coarser one's (default: random)",
    )  # fmt: skip
    run.add_argument(
        "--seed", type=int, metavar="N", default=usual["seed"], help="the same seed gives the same bits (default: %(default)s)"
    )
    run.add_argument(
        "--limit", type=int, metavar="N", default=usual["limit"],
        help="at most N steps an epoch, to try things out (default: no limit)",
    )  # fmt: skip
    return parser, own


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(with_hint(message))


def crop_size(text: str) -> tuple[int, int] | None:
    """As `image_size`, or "none" -> None."""
    return None if text.lower() == "none" else image_size(text, ", or none for whole images")


def _epilog(network: str, adjust: Mapping[str, Mapping[str, Any]] | None) -> str:
    names = ("epochs", "batch_size", "crop", "repeat", "lr", "optimizer", "schedule", "augment", "class_weights")
    titles = ("", *(name.replace("_", " ") for name in names))
    rows = [titles]
    for data in DATASETS:
        config = TrainConfig(**defaults(network, data, adjust))
        rows.append((data, *(_text(getattr(config, name)) for name in names)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    table = "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    command = f"python examples/train_{network}.py"
    return f"""\
defaults that follow the data set (crop "whole": whole images):
{table}

what comes out, in the folder --out:
  metrics.jsonl      a JSON object per epoch: losses, accuracies, IoU and Dice, per class
  curves.png         loss and scores; predictions.png shows held-out images, truth and prediction
  best.safetensors   the network of the best epoch (mean IoU), for predicting; last.safetensors is for --resume
  config.json        all options of the run

examples:
  {command}                                            on generated images, in minutes
  {command} --epochs 2 --limit 20                      a quick try
  {command} --data folder --root mydata --out runs/mine
  {command} --out runs/mine --resume                   after an interruption
  {command} --data folder --root mydata --start runs/mine/best.safetensors   with more images, from what was learned
  {command} --data folder --root mydata --classes background,road,car --values 0,128,255
  python -m minidcnn check --data folder --root mydata   do images and masks fit together, and what do the masks hold?
  python -m minidcnn predict runs/mine/best.safetensors photo.jpg --out predicted
"""


def _with(value: Any, name: str) -> str:
    return "without it" if value is None and name in (*OPTIONS, "start") else f"with {_text(value, name)}"


def _text(value: Any, name: str = "") -> str:
    if name in (*OPTIONS, "start"):
        return argument_text(value)
    if isinstance(value, tuple | list):
        return "x".join(map(str, value)) if value and isinstance(value[0], int) else " ".join(value) or "none"
    return "whole" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
