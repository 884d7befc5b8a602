"""What the networks share: checks of their arguments, and initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import nn
from ..nn import init


def positive(owner: str, what: str, number: int) -> None:
    """ValueError unless `number` is an integer of at least 1."""
    if not hasattr(number, "__index__") or isinstance(number, bool) or number < 1:
        raise ValueError(f"{owner}: {what} must be an integer of at least 1, got {number!r}")


def one_of(owner: str, what: str, value: Any, choices: tuple[Any, ...]) -> None:
    """ValueError unless `value` is among `choices`."""
    if value not in choices:
        known = " or ".join(f'"{c}"' if isinstance(c, str) else str(c) for c in choices)
        raise ValueError(f"{owner}: {what} must be {known}, got {value!r}")


def probability(owner: str, what: str, value: float) -> None:
    """ValueError unless 0 <= value < 1."""
    if not hasattr(value, "__float__") or not 0 <= value < 1:
        raise ValueError(f"{owner}: {what} must be at least 0 and below 1, got {value!r}")


def he(network: nn.Module) -> None:
    """Weights from N(0, 2 / fan_in), fan_in the incoming nodes of one neuron; biases 0; batch norm as at its beginning.

    He, Zhang, Ren & Sun, "Delving deep into rectifiers", 2015, section 2.2. An output of a transposed convolution sees 1 / stride^2 of
    the taps. Frozen parameters are left alone, and the statistics of a batch norm whose weights are frozen.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.weight is None or module.weight.requires_grad:
                module.reset_running_stats()
            trained(module.weight, init.ones_)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            trained(module.weight, partial(init.kaiming_normal_, nonlinearity="relu"))
        elif isinstance(module, nn.ConvTranspose2d):
            taps, steps = math.prod(module.kernel_size), math.prod(module.stride)
            trained(module.weight, partial(init.normal_, std=math.sqrt(2 * steps / (module.in_channels // module.groups * taps))))
        else:
            continue
        trained(module.bias, init.zeros_)


def trained(parameter: nn.Parameter | None, fill: Callable[[nn.Parameter], Any]) -> None:
    """fill(parameter), unless it is frozen or there is none."""
    if parameter is not None and parameter.requires_grad:
        fill(parameter)
