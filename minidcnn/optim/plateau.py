"""ReduceLROnPlateau: the only schedule that follows a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..window import integer
from .checks import number
from .optimizer import Optimizer
from .schedule import LRScheduler, each, present


class ReduceLROnPlateau(LRScheduler):
    """lr x factor, not below min_lr, once the metric has not improved for more than `patience` steps: step(metric).

    mode "min" or "max"; better means by the share ("rel") or the amount ("abs") `threshold`; then `cooldown` steps are not counted.
    NaN never counts as better. ValueError for settings out of range, TypeError for settings of another kind and for jump(): there is no formula.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self._attach(optimizer)
        number(factor, "ReduceLROnPlateau: factor", 0)
        number(threshold, "ReduceLROnPlateau: threshold")
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f'ReduceLROnPlateau: mode must be "min" or "max" and threshold_mode "rel" or "abs", got "{mode}", "{threshold_mode}"'
            )
        self.mode, self.factor, self.threshold, self.threshold_mode = mode, factor, threshold, threshold_mode
        self.patience, self.cooldown = (
            integer(n, f"ReduceLROnPlateau: {name}", 0) for n, name in ((patience, "patience"), (cooldown, "cooldown"))
        )
        self.eps = eps
        self.min_lr = min_lr
        self._least()
        self.best: float | None = None
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self.get_lr()

    def _least(self) -> list[float]:
        """The rate of each group, below which it is not lowered."""
        return [float(lr) for lr in each("ReduceLROnPlateau: min_lr", self.optimizer, self.min_lr)]

    def get_lr(self) -> list[float]:
        return present(self.optimizer)

    def jump(self, epoch: int) -> None:
        raise TypeError("ReduceLROnPlateau: its rates follow a metric, no formula, so it cannot jump; go on with step(metric)")

    def step(self, metrics: Any = None) -> None:
        """Look at one more value of the metric (a number, or a tensor of one element). TypeError without it."""
        if metrics is None:
            raise TypeError("ReduceLROnPlateau: step needs the metric to watch: step(val_loss)")
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self._least(), strict=True):
                lower = max(group["lr"] * self.factor, least)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self.get_lr()

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.best is None:
            return sign * value > -math.inf
        bar = self.best * (1 + sign * self.threshold) if self.threshold_mode == "rel" else self.best + sign * self.threshold
        return sign * value > sign * bar

    def state_dict(self) -> dict[str, Any]:
        names = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {**{name: getattr(self, name) for name in names}, "_last_lr": self.get_lr()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._check_state(state_dict, "best", "last_epoch", "num_bad_epochs", "cooldown_counter")
        begun = -math.inf if self.mode == "max" else math.inf  # torch's best metric before the first, which JSON lacks
        self.best, self.last_epoch = None if state_dict["best"] == begun else state_dict["best"], state_dict["last_epoch"]
        self.num_bad_epochs, self.cooldown_counter = state_dict["num_bad_epochs"], state_dict["cooldown_counter"]
        self._set(state_dict["_last_lr"])
