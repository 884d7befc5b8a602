"""A trained network as an ONNX file that takes images as they are: of any size, with pixel values from 0 to 1.

Normalising, mirroring at the borders up to a size that the network takes, cropping and softmax are nodes of the file, so that its answer is
`segmentation.predict`'s for the whole image. What classes are called and look like is in the file's metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.segmenter import smallest_and_period
from ...tensor import Tensor
from ..checkpoints import Checkpoint, CheckpointError, model_of
from .build import SYMBOLS, Exported, build
from .graph import Graph, Size
from .trace import ExportError

if TYPE_CHECKING:
    from ...models import Segmenter

#: What `export_checkpoint` takes as `output`, and what it is.
OUTPUTS = {
    "probabilities": "(N, classes, H, W), of each class at each pixel, 1 in all",
    "scores": "(N, classes, H, W), the network's own numbers, before softmax",
    "classes": "(N, H, W) int64, the index of the most probable class at each pixel",
}

#: What a checkpoint says that an ONNX file says, too.
TOLD = ("classes", "palette", "channels", "mean", "std", "white", "epoch", "scores")


def export_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], output: str = "probabilities") -> Exported:
    """Write the network of a checkpoint to an ONNX file. Returns what the file takes and gives; print it.

    Its input "image" is (N, channels, H, W) with pixel values from 0 (black) to 1 (white), of any N, H and W. Its output is called as
    `output` says: "probabilities" (N, classes, H, W), "scores" (the same before softmax), or "classes" (N, H, W) int64; all at the
    images' size, as `segmentation.scores` and `predict_mask` give them without tiles. The metadata hold, as JSON, what the checkpoint
    says of "classes", "palette", "channels", "mean", "std", "white", "epoch" and "scores", and the network's "config"; "model", its name;
    and "input", a sentence about how to prepare an image.

    CheckpointError if the checkpoint does not say how its images are normalised, or its network cannot be built; ExportError if that takes
    images of one size only or has no form in ONNX; ValueError for another `output`; TypeError for what is no Checkpoint; ImportError without
    the package onnx.
    """
    if output not in OUTPUTS:
        raise ValueError(f"export_checkpoint: output must be {', '.join(OUTPUTS)}, got {output!r}")
    model = model_of(checkpoint)
    info = checkpoint.info
    for name in ("mean", "std"):
        if len(info.get(name, ())) != model.in_channels:
            raise CheckpointError(
                f"the checkpoint does not say the {name} of the {model.in_channels} channels that its network was trained with"
            )
    weight = next(iter(model.parameters()))
    dtype, fit = weight.dtype, _Fit(model)
    size = model.suitable_size((33, 47))  # for an image of odd sizes that is no square
    example = Tensor(np.random.default_rng(0).standard_normal((1, model.in_channels, *size)).astype(dtype)).to(weight.backend)
    offsets: list[Size] = []

    def begin(graph: Graph) -> list[str]:
        mean, std = (np.array(info[name], dtype)[:, None, None] for name in ("mean", "std"))
        x = graph.node("Div", graph.node("Sub", "image", graph.array(mean)), graph.array(std))
        offsets.clear()
        for axis in (2, 3) if fit.needed else ():
            x, offset = fit.mirrored(graph, x, axis)
            offsets.append(offset)
        return [x]

    done = build(model, [example], begin, takes=lambda n: fit.suitable(n - 2 * model.margin) == n)
    if done.open != SYMBOLS:
        raise ExportError("export_checkpoint: the network takes images of one size only; export it with export_onnx")
    graph, y = done.graph, done.results[0]
    if fit.needed:
        starts = graph.ints(*offsets)
        y = graph.node("Slice", y, starts, graph.node("Add", starts, graph.length("image", 2, 4)), graph.ints(2, 3))
    made: tuple[tuple[Size, ...], Any] = ("batch", model.classes, "height", "width"), dtype
    if output == "probabilities":
        y = graph.node("Softmax", y, axis=1)
    elif output == "classes":
        y, made = graph.node("ArgMax", y, axis=1, keepdims=0), (("batch", "height", "width"), np.int64)
    about = {name: json.dumps(info[name], ensure_ascii=False) for name in TOLD if info.get(name) is not None}
    about |= {"model": checkpoint.model, "config": json.dumps(checkpoint.config), "input": _preparation(model, info)}
    doc = f"{checkpoint.model}, trained with minidcnn; {about['input']}"
    return done.save(path, ["image"], [y], [output], about, doc, [made])


def _preparation(model: Segmenter, info: dict[str, Any]) -> str:
    """How to prepare an image, in a sentence."""
    order = {1: "gray", 3: "red, green and blue", 4: "red, green, blue and alpha"}.get(model.in_channels, f"{model.in_channels} channels")
    white = info.get("white")
    divisor = f"divide pixel values by {white:g}" if white else "divide 8-bit pixel values by 255, 16-bit ones by 65535"
    return f"image: (N, {model.in_channels}, H, W), {order}, from 0 to 1 ({divisor}); any size; it is normalised inside"


class _Fit:
    """How large an input the network needs for n pixels: `smallest`, or a multiple of `period` more."""

    def __init__(self, model: Segmenter) -> None:
        self.margin = model.margin
        self.suitable: Callable[[int], int] = lambda n: int(model.suitable_size((n, n))[0]) if n > 0 else 0
        self.smallest, self.period = smallest_and_period(self.suitable, self.margin)
        self.needed = (self.margin, self.smallest, self.period) != (0, 1, 1)
        for n in range(1, 3 * self.period + self.smallest):
            more = max(n + 2 * self.margin - self.smallest, 0)
            if self.suitable(n) != self.smallest + -(-more // self.period) * self.period:
                raise ExportError(
                    f"export_checkpoint: the sizes that {type(model).__name__} takes are not evenly spaced; export it with export_onnx"
                )

    def mirrored(self, graph: Graph, x: str, axis: int) -> tuple[str, Size]:
        """The image mirrored along an axis up to a fitting size, again and again if need be; and where its first pixel is in the answer."""
        g, zero, one = graph, graph.array(np.int64(0)), graph.array(np.int64(1))
        n = g.length("image", axis)
        more = g.node("Max", g.node("Add", n, g.ints(2 * self.margin - self.smallest)), g.ints(0))
        steps = g.node("Div", g.node("Add", more, g.ints(self.period - 1)), g.ints(self.period))
        whole = g.node("Add", g.node("Mul", steps, g.ints(self.period)), g.ints(self.smallest))  # of the input
        offset = g.node("Div", g.node("Sub", g.node("Sub", whole, g.ints(2 * self.margin)), n), g.ints(2))
        at = g.node("Sub", g.node("Range", zero, g.node("Squeeze", whole), one), g.node("Add", offset, g.ints(self.margin)))
        turn = g.node("Max", g.node("Sub", g.node("Mul", n, g.ints(2)), g.ints(2)), g.ints(1))  # there and back, without the ends twice
        there = g.node("Mod", at, turn)
        return g.node("Gather", x, g.node("Min", there, g.node("Sub", turn, there)), axis=axis), offset
