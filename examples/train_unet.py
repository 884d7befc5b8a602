"""Train a U-Net (Ronneberger, Fischer & Brox, 2015) to give every pixel of an image its class.

Without options it learns to separate touching cells in generated microscope images, in about a minute on a laptop.
"""

from minidcnn.models import UNet
from minidcnn.segmentation import main


def add_options(group):
    group.add_argument(
        "--base", type=int, default=16, metavar="N", help="channels of the first level; the paper has 64 (default: %(default)s)"
    )
    group.add_argument("--padding", choices=("same", "valid"), default="same", help="valid: none, as the paper (default: %(default)s)")
    group.add_argument(
        "--norm", choices=("batch", "none"), default="batch", help="none: no normalisation, as the paper (default: %(default)s)"
    )
    group.add_argument("--upsample", choices=("transpose", "bilinear"), default="transpose", help="(default: %(default)s)")
    group.add_argument("--depth", type=int, default=4, metavar="N", help="levels below the first (default: %(default)s)")
    group.add_argument("--dropout", type=float, default=0.0, metavar="P", help="at the end of the contracting path (default: %(default)s)")


def build(data, options):
    """Any network of yours can take this one's place: (N, channels, H, W) -> (N, classes, H, W)."""
    norm = None if options["norm"] == "none" else options["norm"]
    return UNet(data.channels, len(data.classes), **{**options, "norm": norm})


if __name__ == "__main__":
    main("unet", build, add_options=add_options, description=__doc__)
