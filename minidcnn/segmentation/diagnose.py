"""When training goes wrong: which layer made the first value that is no number, and what to do about memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autograd import no_grad
from ..backend import exhausted, kernels_of
from ..data.written import shell_text
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..models import Segmenter
    from ..nn import Module


class TrainingError(RuntimeError):
    """Training cannot go on. The message is one sentence or two: what happened, where, and the way out."""


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(kernels_of(tensor._array).all_finite([tensor._array]))


def first_not_finite(model: Segmenter, images: Tensor) -> str:
    """Where the first NaN or infinity comes from, in words: the images, a weight, or the output of a layer.

    Runs the network once more on the same images, in the mode that it is in, and looks at every layer in the order of computation. That
    changes batch norm's running statistics: keep nothing of the model afterwards.
    """
    if not finite(images):
        return "the images themselves hold them"
    for name, parameter in model.named_parameters():
        if not finite(parameter):
            return f"the first are in the weights {name}"
    found: list[str] = []

    def look(name: str, module: Module) -> Any:
        def hook(_: Module, __: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if not found and any(isinstance(o, Tensor) and o.dtype.kind == "f" and not finite(o) for o in outputs):
                found.append(f"the first come out of {name} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(look(name, module)) for name, module in model.named_modules() if name]
    try:
        with no_grad():
            scores = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    return "the loss makes them, the network's scores are finite" if finite(scores) else "the network's scores are the first"


def first_gradient_not_finite(model: Segmenter) -> str:
    """The name of the gradient nearest to the output that is not finite: that is where they begin on the way back."""
    bad = [name for name, parameter in model.named_parameters() if parameter.grad is not None and not finite(parameter.grad)]
    return f"the first are in the gradient of {bad[-1]}" if bad else "no gradient holds them any more"


def diverged(where: str, what: str, kept: str, best: str | None, lr: float, half: bool) -> TrainingError:
    """Values that are no numbers: where in the run, what they were found in, what is left of the run, and the ways out.

    best: the file of the best network so far. half: whether the run is of float16.
    """
    anew = "" if best is None else f". A new run takes up what was learned: --start {shell_text(best)}"
    return TrainingError(
        f"training stopped {where}: {what}; {kept}. Lower the learning rate (--lr is {lr:g}), limit the gradient (--clip 1), "
        f"{'leave out --precision float16, ' if half else ''}or look for strange images (python -m minidcnn check){anew}"
    )


def out_of_memory(error: MemoryError, batch_size: int, crop: tuple[int, int] | None, recompute: bool, validating: bool = False) -> str:
    """One sentence about memory that ran out: how much was asked for, how much is in use on a GPU, and what takes less.

    validating: whether it did so on held-out images, which go through the network whole or in tiles of TILE pixels squared.
    """
    asked = exhausted(error)
    if validating:
        return (
            f"out of memory in validation ({asked[:1].lower() + asked[1:]}): use a smaller --batch-size (it is {batch_size}) or a narrower "
            f"network (--base)"
        )
    shown = "whole images" if crop is None else f"{crop[0]}x{crop[1]}"
    again = "" if recompute else "--recompute (less memory, more time, the same results), "
    return (
        f"out of memory ({asked[:1].lower() + asked[1:]}): use {again}a smaller --batch-size (it is {batch_size}), a smaller --crop (it is "
        f"{shown}) or a narrower network (--base)"
    )
