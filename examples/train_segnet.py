"""Train SegNet (Badrinarayanan, Kendall & Cipolla, 2017), which unpools where its max pooling found the maxima.

Its authors' data set: train_segnet.py --data camvid --root DIR takes their class weights; add --base 64 for their network.
"""

from minidcnn.interop import load_trunk
from minidcnn.models import SegNet, SegNetBasic
from minidcnn.segmentation import main


def add_options(group):
    group.add_argument("--basic", action="store_true", help="SegNet-Basic: four 7x7 convolutions down, four up")
    group.add_argument(
        "--base", type=int, default=16, metavar="N", help="channels of the first level; the paper has 64 (default: %(default)s)"
    )
    group.add_argument("--trunk", metavar="FILE", help="weights of VGG16 to start from, .safetensors or .npz; needs their --base (64)")
    group.add_argument("--bayesian", action="store_true", help="with dropout in the deep layers")


def build(data, options):
    """Any network of yours can take this one's place: (N, channels, H, W) -> (N, classes, H, W)."""
    network = SegNetBasic if options["basic"] else SegNet
    model = network(data.channels, len(data.classes), width=options["base"], bayesian=options["bayesian"], eps=1e-5)
    return load_trunk(model, options["trunk"]) if options["trunk"] else model


if __name__ == "__main__":
    main("segnet", build, add_options=add_options, description=__doc__, adjust={"cells": {"epochs": 15}})
