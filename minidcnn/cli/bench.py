"""How fast networks train and predict here, and how PyTorch does side by side.

  python -m minidcnn bench
  python -m minidcnn bench --what layers --net segnet
  python -m minidcnn bench --what infer --shape 1,3,512,512 --peer torch
  python -m minidcnn bench --what sweep --peer torch --plot sweep.png
  python -m minidcnn bench --what kernels --backend cupy --shape 16,3,256,256

A training step is one forward and backward pass and one of SGD with momentum, U-Net being the padded variant with batch norm. With --peer
both take turns, in processes of their own; the median of the ratios counts. --peer torch needs a checkout, and PyTorch. An inference on
numpy is also measured within nn.constant_weights, which keeps transformed weights from one to the next.

--backend cupy measures on an NVIDIA GPU, by its own clock; PyTorch then computes there too, with cudnn.benchmark, and with torch.compile
as a third format. This part has been tested with a stand-in for CuPy only: it has not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from .common import positive


def arguments(parser: argparse.ArgumentParser) -> None:
    from ..backend import PRECISIONS
    from ..bench import NETS, WHATS, Job

    said = "; ".join(f"{name}: {what}" for name, what in WHATS.items())
    parser.add_argument("--what", choices=WHATS, default="step", help=f"{said} (default: step)")
    parser.add_argument("--net", choices=NETS, default="unet", help="the network (default: unet)")
    parser.add_argument("--shape", type=shape, metavar="N,C,H,W", help="of the images (default: one image of the network's usual size)")
    parser.add_argument("--base", type=positive, default=64, metavar="N", help="channels of the first layer (default: 64)")
    parser.add_argument("--peer", choices=["torch"], help="measure PyTorch too, in turns, in the better of its two memory formats")
    parser.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="where to compute (default: numpy)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="of the factors in convolutions; tf32x3 and tf32 use a GPU's tensor cores and change nothing on numpy; "
        "float16: of everything but weights, with loss scaling (default: float32)",
    )  # fmt: skip
    parser.add_argument("--graph", action="store_true", help="on a GPU, launch forward and backward pass as one CUDA graph")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="turns of each side (default: 7)")
    parser.add_argument(
        "--recompute", action="store_true", help="train in less memory and more time: results are not kept for the backward pass"
    )
    parser.add_argument(
        "--sizes",
        type=numbers,
        default=Job.sizes,
        metavar="N,...",
        help="of a sweep: heights of square images (default: 64,128,256,512,1024)",
    )
    parser.add_argument(
        "--batches", type=numbers, default=Job.batches, metavar="N,...", help="of a sweep, of --shape's images (default: 1,2,4,8)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a sweep")
    parser.add_argument("--json", action="store_true", help="print all that was measured as JSON")


def shape(text: str) -> tuple[int, int, int, int]:
    """N,C,H,W as typed."""
    parts = text.split(",")
    if len(parts) != 4 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"expected four numbers N,C,H,W such as 1,3,256,256, got {text!r}")
    n, c, h, w = map(int, parts)
    return n, c, h, w


def numbers(text: str) -> tuple[int, ...]:
    """N,... as typed."""
    parts = text.split(",")
    if not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"expected numbers such as 64,128,256, got {text!r}")
    return tuple(map(int, parts))


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..bench import NETS, Job, measure, text

    if args.plot and args.what != "sweep":
        raise ValueError(f"--plot draws a sweep; --what is {args.what}")
    folder = args.plot.parent if args.plot else Path()
    if args.plot and (args.plot.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK)):  # said before the work begins
        raise ValueError(f"--plot {args.plot} cannot be written: name a file in a folder that exists and may be written to")
    job = Job(args.what, args.net, args.shape or NETS[args.net], args.base, args.recompute, args.sizes, args.batches)
    job = replace(job, backend=args.backend, precision=args.precision, graph=args.graph)
    with tqdm(desc=f"{args.net} {args.what}", file=sys.stderr, leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = measure(job, args.peer, args.rounds, progress)
    print(json.dumps(result) if args.json else text(result), flush=True)
    if args.plot:
        from ..bench.plot import sweep
        from ..interop.atomic import replacing

        with replacing(args.plot) as temporary:
            sweep(result, temporary)
    return 0
