"""Learning-rate schedules, with torch.optim.lr_scheduler's names, arguments and values.

All but ReduceLROnPlateau are closed formulas of the base rate and the number of steps taken, so that a schedule resumed at step t is
exactly the schedule that ran to step t. A step may be an epoch or an iteration, as the caller likes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..window import fraction, integer, integers, listed
from .checks import number
from .one_cycle import OneCycleLR
from .optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .schedule import LRScheduler, each, scaled

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


class LambdaLR(LRScheduler):
    """base x lr_lambda(epoch), whatever the rate was changed to; one function, or one for each group, which are not part of the state.

    TypeError for what is no function, ValueError for a list that is not one for each group.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]], last_epoch: int = -1
    ) -> None:
        for one in listed(lr_lambda) or (lr_lambda,):
            if not callable(one):
                raise TypeError(f"LambdaLR: lr_lambda must be a function of the step, or one for each group, got {one!r}")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factors = each("LambdaLR: lr_lambda", self.optimizer, self.lr_lambda)
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, factors, strict=True)]

    def changed(self, lr: float, before: float, after: float) -> float:
        return after


class StepLR(LRScheduler):
    """base x gamma^floor(epoch / step_size). ValueError for a step_size below 1."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        number(gamma, "StepLR: gamma")
        self.step_size, self.gamma = integer(step_size, "StepLR: step_size", 1), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """base x gamma^(number of milestones reached). TypeError for milestones that are no integers."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        number(gamma, "MultiStepLR: gamma")
        several = list(milestones) if isinstance(milestones, Iterable) else milestones
        self.milestones, self.gamma = sorted(integers(several, "MultiStepLR: milestones")), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ConstantLR(LRScheduler):
    """base x factor for total_iters steps, then base. ValueError for a factor outside [0, 1] and for a negative total_iters."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        fraction(factor, "ConstantLR: factor")
        self.factor, self.total_iters = factor, integer(total_iters, "ConstantLR: total_iters", 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * (self.factor if epoch < self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """base x a factor that goes linearly from start_factor to end_factor in total_iters steps and stays there: the usual warm-up.

    ValueError unless 0 < start_factor <= 1, 0 <= end_factor <= 1 and total_iters >= 1.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        number(start_factor, "LinearLR: start_factor")
        number(end_factor, "LinearLR: end_factor")
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"LinearLR: start_factor must lie in (0, 1] and end_factor in [0, 1], got {start_factor} and {end_factor}; scale lr itself"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, integer(total_iters, "LinearLR: total_iters", 1)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * (self.start_factor + (self.end_factor - self.start_factor) * min(epoch, self.total_iters) / self.total_iters)


class ExponentialLR(LRScheduler):
    """base x gamma^epoch. TypeError unless gamma is a number."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        number(gamma, "ExponentialLR: gamma")
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma**epoch


class PolynomialLR(LRScheduler):
    """base x (1 - epoch / total_iters)^power, 0 from total_iters on: the "poly" schedule of segmentation papers has power 0.9.

    ValueError for a total_iters below 1 and for a negative power.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        number(power, "PolynomialLR: power", 0)
        self.total_iters, self.power = integer(total_iters, "PolynomialLR: total_iters", 1), power
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * math.pow(1.0 - min(epoch, self.total_iters) / self.total_iters, self.power)


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min)(1 + cos(pi epoch / T_max)) / 2 (Loshchilov & Hutter, "SGDR", 2017); it rises again after T_max.

    ValueError for a T_max below 1.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        number(eta_min, "CosineAnnealingLR: eta_min")
        self.T_max, self.eta_min = integer(T_max, "CosineAnnealingLR: T_max", 1), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2

    def changed(self, lr: float, before: float, after: float) -> float:
        return max(0.0, scaled(lr, before, after, self.eta_min))  # where a plateau took it below eta_min, torch's becomes negative


class SequentialLR(LRScheduler):
    """Schedules one after the other: the i-th from milestones[i-1] steps on, each counting from its own 0. For warm-up and then decay.

    At a milestone the rates are those of the next schedule's formula, also where they were changed, as torch's are.
    TypeError for a schedule that follows a metric or is none; ValueError for one of another optimizer, for none at all, and for milestones that
    fall or are not one fewer.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1) -> None:
        if not schedulers:
            raise ValueError("SequentialLR: give at least one schedule, got none")
        for i, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler) or isinstance(schedule, ReduceLROnPlateau):
                raise TypeError(f"SequentialLR: schedule {i} must step without a metric, got {type(schedule).__name__}")
            if schedule.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: schedule {i} belongs to another optimizer")
        milestones = integers(milestones, "SequentialLR: milestones")
        if len(schedulers) != len(milestones) + 1 or sorted(milestones) != list(milestones):
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} rising milestones, got {list(milestones)}"
            )
        self._attach(optimizer)
        last_epoch = integer(last_epoch, "SequentialLR: last_epoch", -1)
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        self.base_lrs = self._part(0)[0].base_lrs
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]  # as before the schedules were made
        self._start(last_epoch)

    def _part(self, epoch: int) -> tuple[LRScheduler, int]:
        """The schedule of step `epoch`, and the step that is its first."""
        i = bisect_right(self.milestones, epoch)
        return self.schedulers[i], self.milestones[i - 1] if i else 0

    def get_lr(self) -> list[float]:
        return list(self._formula)

    def step(self) -> None:
        if self.last_epoch + 1 in self.milestones:
            self.jump(self.last_epoch + 1)
        else:
            super().step()

    def changed(self, lr: float, before: float, after: float) -> float:
        return self._part(self.last_epoch)[0].changed(lr, before, after)

    def _go(self, epoch: int) -> list[float]:
        part, first = self._part(epoch)
        self.last_epoch, self._formula = epoch, part._go(epoch - first)
        return self._formula

    def _join(self) -> None:
        part, _ = self._part(self.last_epoch)
        part._join()
        self._formula = part._formula

    def _set(self, rates: Sequence[float]) -> None:
        part, _ = self._part(self.last_epoch)
        part._set(rates)
        self._last_lr = part.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [schedule.state_dict() for schedule in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._check_state(state_dict, "last_epoch", "_schedulers")
        ours, theirs = len(self.schedulers), len(state_dict["_schedulers"])
        if ours != theirs:
            raise ValueError(f"load_state_dict: the state is for {theirs} schedules one after the other, this SequentialLR has {ours}")
        for schedule, state in zip(self.schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)
        self._resume(state_dict)
