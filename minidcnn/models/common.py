"""What the networks share: checks of their arguments, and initial weights."""

from __future__ import annotations

import math
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
    the taps. Frozen parameters are left alone.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d) and module.weight.requires_grad:
            taps, steps = math.prod(module.kernel_size), math.prod(module.stride)
            init.normal_(module.weight, 0.0, math.sqrt(2 * steps / (module.in_channels // module.groups * taps)))
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
            init.zeros_(module.bias)
