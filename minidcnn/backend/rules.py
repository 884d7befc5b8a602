"""What the optimizers are set to, as the kernels take it: all numbers of a step that are no arrays."""

from __future__ import annotations

import math
from typing import NamedTuple


class SgdRule(NamedTuple):
    """torch.optim.SGD's settings."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False


class AdamRule(NamedTuple):
    """torch.optim.Adam's settings or, `decoupled`, those of AdamW."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def corrected(self, step: int) -> tuple[float, float]:
        """lr / (1 - beta1^step) and sqrt(1 - beta2^step): what makes up for averages that began at 0. `step` counts from 1."""
        return self.lr / (1 - self.beta1**step), math.sqrt(1 - self.beta2**step)
