"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..backend import Array, Kernels, kernels_of
from ..backend.rules import AdamRule
from ..tensor import Tensor
from ..window import listed
from .checks import not_negative
from .optimizer import Optimizer


class Adam(Optimizer):
    """Steps of lr times mean / (sqrt(mean square) + eps), both moving averages with betas, corrected for their start at 0.

    Kingma & Ba, "Adam", 2015, algorithm 1; weight_decay is added to the gradient, or with decoupled_weight_decay done as AdamW does it;
    amsgrad uses the largest mean square so far (Reddi et al., 2018). As torch.optim.Adam. ValueError for settings out of range.
    """

    newer = ("decoupled_weight_decay",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
    ) -> None:
        pair = listed(betas)
        defaults = {"lr": lr, "betas": betas if pair is None else pair, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, {**defaults, "decoupled_weight_decay": decoupled_weight_decay})

    def check(self, group: Mapping[str, Any]) -> None:
        not_negative(self._name, group, "lr", "eps", "weight_decay")
        betas = group["betas"]
        if not isinstance(betas, list | tuple) or len(betas) != 2 or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
            raise ValueError(f"{self._name}: betas must be two numbers of at least 0 and below 1, got {betas}")

    def arguments(self, parameter: Tensor, gradient: Array, state: dict[str, Any], group: Mapping[str, Any]) -> tuple[Any, ...]:
        p = parameter._array
        kernels = kernels_of(p)
        if not state:
            state["step"] = 0
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")
        for name in names:
            if name not in state:
                state[name] = kernels.map(kernels.xp.zeros_like, p)
        state["step"] += 1
        averages = state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"] if group["amsgrad"] else None
        beta1, beta2 = group["betas"]
        rule = AdamRule(group["lr"], beta1, beta2, group["eps"], group["weight_decay"], bool(group["decoupled_weight_decay"]))
        return p, gradient, *averages, state["step"], rule

    def update(self, kernels: Kernels, todo: Sequence[tuple[Tensor, Array, dict[str, Any], Mapping[str, Any]]]) -> None:
        kernels.adam_steps([self.arguments(*one) for one in todo])


class AdamW(Adam):
    """Adam with decoupled weight decay: p is first scaled by 1 - lr weight_decay (Loshchilov & Hutter, 2019), as torch.optim.AdamW.

    ValueError for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also with the state of an Adam, as torch
