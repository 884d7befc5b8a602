"""What the segmentation networks share: a name, a configuration, and which image sizes they take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar

from .. import functional as F
from .. import nn
from ..tensor import Tensor, not_a_tensor
from ..window import Pair, pair
from .common import positive

#: The segmentation networks by name, as `create_model` takes them.
MODELS: dict[str, type[Segmenter]] = {}


class Segmenter(nn.Module):
    """A network that gives every pixel a score for every class: (N, in_channels, H, W) -> (N, classes, H - 2 margin, W - 2 margin).

    Subclasses set `name`, which enters them in MODELS, pass all their constructor's arguments on to this one, and say in `takes` which
    sizes they take. `config` holds those arguments: create_model(model.name, **model.config) builds the same network again.
    ValueError if in_channels or classes is below 1, and for images that do not fit (see check and output_size); TypeError for what is no Tensor.

    Set `recompute` to True to train in less memory and more time: of the layers' results only those between stages are kept, the others
    are computed again in the backward pass (`functional.checkpoint`). Gradients have the same bits.

    To see maps within, hook layers: a network may run its `features` in pieces, and then hooks on `features` itself are not called.
    """

    name: ClassVar[str]
    coarser: ClassVar[tuple[str, ...]] = ()  # names of networks whose weights are some of this one's, for training in stages
    recompute: bool = False
    needs: str = "at least 1 pixel"  # what `takes` asks for, in words
    margin: int = 0  # pixels that the output lacks on each side: its pixel (0, 0) lies on the input's (margin, margin)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            MODELS[cls.name] = cls

    def __init__(self, in_channels: int, classes: int, **options: Any) -> None:
        super().__init__()
        for what, number in (("in_channels", in_channels), ("classes", classes)):
            positive(type(self).__name__, what, number)
        given = {"in_channels": in_channels, "classes": classes, **options}
        self.config: dict[str, Any] = {key: value.item() if hasattr(value, "item") else value for key, value in given.items()}
        self.in_channels, self.classes = self.config["in_channels"], self.config["classes"]

    def stage(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """function(*inputs), one of the stages between which results are kept while `recompute` is set.

        Errors as of the function itself and of functional.checkpoint.
        """
        return F.checkpoint(function, *inputs) if self.recompute and self.training else function(*inputs)

    def takes(self, n: int) -> bool:
        """Whether an image may be n pixels high or wide."""
        return n >= 1

    def output_size(self, size: Pair) -> Pair:
        """The output's (height, width) for an input of `size`. ValueError names the nearest sizes that the network takes, TypeError is for no integers."""
        size = pair(size, f"{type(self).__name__}: size")
        if not all(map(self.takes, size)):
            smaller = [next((m for m in range(n, 0, -1) if self.takes(m)), 0) for n in size]
            nearest = [smaller] if all(smaller) else []
            nearest.append([next(m for m in count(n) if self.takes(m)) for n in size])
            sizes = " and ".join(f"{h}x{w}" for h, w in nearest)
            raise ValueError(
                f"{type(self).__name__}: an image of {size[0]}x{size[1]} does not fit: height and width must be {self.needs}; "
                f"the nearest size{'s that fit are' if len(nearest) > 1 else ' that fits is'} {sizes}"
            )
        return size[0] - 2 * self.margin, size[1] - 2 * self.margin

    def suitable_size(self, size: Pair) -> Pair:
        """The smallest input (height, width) that suits the network and whose output covers `size`: what to pad an image to. ValueError below 1."""
        height, width = pair(size, f"{type(self).__name__}: size", 1)
        return self._fitting(height + 2 * self.margin), self._fitting(width + 2 * self.margin)

    def _fitting(self, n: int) -> int:
        """The smallest number of pixels from n on that suits the network."""
        return next(m for m in count(n) if self.takes(m))

    def check(self, input: Tensor) -> Pair:
        """The (height, width) of an input. ValueError if it is not (N, in_channels, H, W) or of a size that the network does not take.

        TypeError if it is no Tensor.
        """
        if not isinstance(input, Tensor):
            raise not_a_tensor(type(self).__name__, input)
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            raise ValueError(f"{type(self).__name__}: input must be (N, {self.in_channels}, H, W), got shape {input.shape}")
        size = (input.shape[2], input.shape[3])
        self.output_size(size)
        return size

    def parameter_groups(self, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """The trainable parameters in the groups that the network's authors trained them in, for the optimizers of minidcnn.optim."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr, "weight_decay": weight_decay}]


def smallest_and_period(suitable: Callable[[int], int], margin: int) -> tuple[int, int]:
    """Along one axis, the smallest input that a network takes, and how many pixels more the next one has. suitable: as `suitable_size`."""
    smallest = suitable(1)
    return smallest, suitable(smallest - 2 * margin + 1) - smallest


def create_model(name: str, **config: Any) -> Segmenter:
    """The network of MODELS called `name`, built with its constructor's keyword arguments. ValueError for a name that is not there.

    TypeError for arguments that it does not take; ValueError as its class says.
    """
    if name not in MODELS:
        raise ValueError(f'create_model: there is no model "{name}"; known are {", ".join(sorted(MODELS))}')
    return MODELS[name](**config)
