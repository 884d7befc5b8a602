"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..backend import Array, Kernels, kernels_of
from ..backend.rules import SgdRule
from ..tensor import Tensor
from .checks import not_negative, numbers
from .optimizer import Optimizer


class SGD(Optimizer):
    """d = g + weight_decay p; buffer = momentum buffer + (1 - dampening) d; p -= lr buffer, with nesterov p -= lr (d + momentum buffer).

    As torch.optim.SGD: the first step sets buffer = d, without dampening (Sutskever et al., "On the importance of initialization and
    momentum", 2013). ValueError for negative settings, or nesterov without momentum or with dampening.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        )

    def check(self, group: Mapping[str, Any]) -> None:
        not_negative("SGD", group, "lr", "momentum", "weight_decay")
        numbers("SGD", group, "dampening")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum above 0 and dampening 0, got momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def arguments(self, parameter: Tensor, gradient: Array, state: dict[str, Any], group: Mapping[str, Any]) -> tuple[Any, ...]:
        p = parameter._array
        momentum, buffer, first = group["momentum"], None, False
        if momentum:
            first = "momentum_buffer" not in state
            if first:
                kernels = kernels_of(p)
                state["momentum_buffer"] = kernels.map(kernels.xp.empty_like, p)
            buffer = state["momentum_buffer"]
        rule = SgdRule(group["lr"], momentum, group["dampening"], group["weight_decay"], bool(group["nesterov"]))
        return p, gradient, buffer, first, rule

    def update(self, kernels: Kernels, todo: Sequence[tuple[Tensor, Array, dict[str, Any], Mapping[str, Any]]]) -> None:
        kernels.sgd_steps([self.arguments(*one) for one in todo])
