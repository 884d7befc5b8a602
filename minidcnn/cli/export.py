"""Write a trained network as an ONNX file, for programs that know nothing of minidcnn: onnxruntime, OpenVINO, TensorRT, browsers.

  python -m minidcnn export runs/mine/best.safetensors model.onnx
  python -m minidcnn export runs/mine model.onnx --output classes

The file takes images as they are, "image" (N, channels, H, W), pixel values from 0 to 1, and answers at their size, whatever size that is:
normalising, and what the network needs around an image, is done inside. Its metadata holds the names and colours of the classes, and
a sentence on how to prepare an image. It needs the package onnx: pip install "minidcnn[onnx]".
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import fail, new_files, open_checkpoint


def arguments(parser: argparse.ArgumentParser) -> None:
    from ..interop.onnx.checkpoint import OUTPUTS

    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.safetensors in the folder of a run, or the folder")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write; its name must end in .onnx")
    what = "; ".join(f"{name}: {meaning}" for name, meaning in OUTPUTS.items())
    parser.add_argument("--output", choices=OUTPUTS, default="probabilities", help=f"what the file gives; {what} (default: probabilities)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there already")


def run(args: argparse.Namespace) -> int:
    from ..interop import export_checkpoint
    from ..interop.onnx import graph

    best = args.checkpoint / "best.safetensors"
    if args.file.suffix.lower() != ".onnx":
        raise ValueError(f"{args.file}: the name of an ONNX file ends in .onnx; call it {args.file.with_suffix('.onnx')}")
    new_files([args.file], args)
    try:
        graph.required()
    except ImportError as error:
        return fail(str(error))
    checkpoint, _ = open_checkpoint(best if best.is_file() else args.checkpoint, "numpy")
    args.file.parent.mkdir(parents=True, exist_ok=True)
    exported = export_checkpoint(checkpoint, args.file, args.output)
    print(f"{args.file} ({args.file.stat().st_size / 1e6:.1f} MB): {exported}")
    print(f"classes: {', '.join(checkpoint.info['classes'])}")
    return 0
