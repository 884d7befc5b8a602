"""What a network is made of: layers, output sizes, parameters, multiply-adds, and how much of the image each layer's pixels see.

  python -m minidcnn summary unet --size 572x572 --in-channels 1 --classes 2
  python -m minidcnn summary unet padding=same norm=batch base=16
  python -m minidcnn summary runs/mine/best.safetensors --size 360x480

Only sizes are computed, so that this takes no time and no memory, whatever the size.
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..words import option_name
from .common import positive

if TYPE_CHECKING:
    from ..nn import Module

CLASSIFIERS = {"alexnet": "AlexNet", "caffenet": "CaffeNet", "vgg11": "VGG11", "vgg13": "VGG13", "vgg16": "VGG16", "vgg19": "VGG19"}


def arguments(parser: argparse.ArgumentParser) -> None:
    from ..data.written import image_size
    from ..models import MODELS

    names = ", ".join([*MODELS, *CLASSIFIERS])
    parser.add_argument("network", metavar="NETWORK", help=f"a checkpoint, or one of {names}")
    parser.add_argument(
        "options", nargs="*", metavar="KEY=VALUE", help="arguments of the network's constructor, such as base=16 padding=same norm=batch"
    )
    parser.add_argument(
        "--size", type=image_size, metavar="HxW", help="of the image (default: 224x224 for classifiers, for others about 256x256)"
    )
    parser.add_argument("--in-channels", type=positive, metavar="N", help="channels of the image (default: the network's)")
    parser.add_argument("--classes", type=positive, metavar="N", help="number of classes (default: the network's)")


def run(args: argparse.Namespace) -> int:
    from ..models import Segmenter
    from ..nn import summary

    model = build(args)
    if args.size is not None:
        height, width = args.size
    else:
        height, width = model.suitable_size((256, 256)) if isinstance(model, Segmenter) else (224, 224)
    print(summary(model, (1, model.in_channels, height, width)))
    return 0


def build(args: argparse.Namespace) -> Module:
    """The network that the options describe, without drawing weights. ValueError for names and options that don't exist."""
    from .. import models
    from ..interop import load_checkpoint
    from ..nn import init

    given = dict(option(text) for text in args.options)
    as_options = {name: value for name in ("in_channels", "classes") if (value := getattr(args, name)) is not None}
    given |= as_options
    name = args.network.lower().replace("-", "_")
    kind: Any = models.MODELS.get(name)
    if kind is None and name in CLASSIFIERS:
        kind = getattr(models, CLASSIFIERS[name])
    if kind is None:
        if not (Path(args.network).exists() or args.network.endswith(".safetensors")):
            raise ValueError(
                f"there is no network {args.network!r}, nor a file of that name; known are {', '.join([*models.MODELS, *CLASSIFIERS])}"
            )
        checkpoint = load_checkpoint(Path(args.network))
        if given:
            first = next(iter(given))
            first = option_name(first) if first in as_options else first
            raise ValueError(f"{args.network} is a checkpoint, whose network is what it is: leave {first} out")
        with init.skipped():
            return models.create_model(checkpoint.model, **checkpoint.config)
    takes = inspect.signature(kind.__init__).parameters
    known = [key for key in takes if key != "self"]
    if wrong := [key for key in given if key not in known]:
        raise ValueError(f"{kind.__name__} takes {', '.join(known)}, but not {wrong[0]}")
    for key in ("in_channels", "classes"):
        if key in takes and takes[key].default is inspect.Parameter.empty:
            given.setdefault(key, 3 if key == "in_channels" else 2)
    with init.skipped():
        network: Module = kind(**given)
    return network


def option(text: str) -> tuple[str, Any]:
    """ "base=16" -> ("base", 16), "padding=same" -> ("padding", "same")."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError(f"{text!r} is no KEY=VALUE, such as base=16")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, None if value == "None" else value
