"""Train a fully convolutional network (Shelhamer, Long & Darrell, 2017): VGG16 made convolutional, its scores upsampled.

The paper starts from a trained classifier: --paper --base 64 --trunk vgg16.safetensors does, with torchvision's weights of VGG16 (how to
make that file of them: minidcnn/interop/weights.py). From scratch this is a harder network than U-Net, and a light variant is the default.

It also trains in stages, each from the one before: the scores that a stage adds begin at zero and its upsampling is bilinear, so that it goes
on near where that one was. Stage 32s has one score for 32x32 pixels and needs objects larger than that; from the generated cells, which
are smaller, it learns nothing, so take images of your own:

  python examples/train_fcn.py --data folder --root mydata --variant 32s --out runs/32s
  python examples/train_fcn.py --data folder --root mydata --variant 16s --start runs/32s/best.safetensors --lr 1e-4 --out runs/16s
  python examples/train_fcn.py --data folder --root mydata --variant 8s --start runs/16s/best.safetensors --lr 1e-5 --out runs/8s
"""

from minidcnn.interop import load_trunk
from minidcnn.models import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from minidcnn.segmentation import main

VARIANTS = {"32s": FCN32s, "16s": FCN16s, "8s": FCN8s, "8s-at-once": FCN8sAtOnce}


def add_options(group):
    group.add_argument("--variant", choices=VARIANTS, default="8s", help="how fine the scores are that are added up (default: %(default)s)")
    group.add_argument(
        "--base", type=int, default=16, metavar="N", help="channels of the first level; the paper has 64 (default: %(default)s)"
    )
    group.add_argument("--paper", action="store_true", help="100 pixels of padding and a 7x7 layer, as published, instead of 1 and 1x1")
    group.add_argument(
        "--trunk", metavar="FILE", help="weights of VGG16 to start from, .safetensors or .npz; needs --paper and their --base"
    )
    group.add_argument("--dropout", type=float, default=0.5, metavar="P", help="in the hidden layers (default: %(default)s)")


def build(data, options):
    """Any network of yours can take this one's place: (N, channels, H, W) -> (N, classes, H, W)."""
    size = {} if options["paper"] else {"pad": 1, "fc_kernel": 1}
    network = VARIANTS[options["variant"]]
    model = network(len(data.classes), data.channels, width=options["base"], dropout=options["dropout"], learn_upsampling=True, **size)
    return load_trunk(model, options["trunk"]) if options["trunk"] else model


if __name__ == "__main__":
    main("fcn", build, add_options=add_options, description=__doc__, adjust={"all": {"clip": 1.0}, "cells": {"epochs": 15}})
