"""Learning-rate schedules, with torch.optim.lr_scheduler's names, arguments and values.

All but ReduceLROnPlateau are closed formulas of the base rate and the number of steps taken, so that a schedule resumed at step t is
exactly the schedule that ran to step t. A step may be an epoch or an iteration, as the caller likes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..window import integers, listed
from .checks import complete
from .optimizer import Optimizer


class LRScheduler:
    """Base class: sets each group's "lr" at once, and again with every step().

    `last_epoch` counts the steps taken; -1 starts anew, from each group's present "lr" as the base rate (kept as "initial_lr", so that
    several schedules can be made on one optimizer). Subclasses define `rate(base, epoch)`.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f'{type(self).__name__}: last_epoch={last_epoch} resumes, but parameter group {i} has no "initial_lr"; load the '
                    f"optimizer's state first, or start with last_epoch=-1"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.jump(last_epoch + 1)

    def _attach(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate after `epoch` steps for a group whose base rate is `base`."""
        raise NotImplementedError(f"{type(self).__name__} does not define rate")

    def get_lr(self) -> list[float]:
        """The learning rate of each group after `last_epoch` steps."""
        return [self.rate(base, self.last_epoch) for base in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """The learning rates set last, one for each group."""
        return list(self._last_lr)

    def jump(self, epoch: int) -> None:
        """Set the learning rates of step `epoch`."""
        self.last_epoch = epoch
        self._set(self.get_lr())

    def step(self) -> None:
        """Go on by one step: call it after optimizer.step(), once an epoch or once an iteration."""
        self.jump(self.last_epoch + 1)

    def _set(self, rates: Sequence[float]) -> None:
        self._last_lr = [float(lr) for lr in rates]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=False):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule has come, in numbers and lists fit for JSON. Settings such as total_iters are left to the constructor."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where state_dict() was taken; sets the optimizer's learning rates too. ValueError for a state that does not fit."""
        self._check_state(state_dict, "base_lrs", "last_epoch")
        self.base_lrs = [float(base) for base in state_dict["base_lrs"]]
        self.jump(int(state_dict["last_epoch"]))

    def _check_state(self, state: Mapping[str, Any], rates: str, *keys: str) -> None:
        """ValueError unless `state` has the keys, and under `rates` a number for each group."""
        complete(f"{type(self).__name__}.load_state_dict", state, rates, *keys)
        ours, theirs = len(self.optimizer.param_groups), len(state[rates])
        if ours != theirs:
            raise ValueError(f"load_state_dict: the schedule's state is for {theirs} parameter groups, the optimizer has {ours}")


def _each(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value for each parameter group: a list as it is, anything else repeated."""
    n = len(optimizer.param_groups)
    several = listed(value)
    values = [value] * n if several is None else list(several)
    if len(values) != n:
        raise ValueError(f"{name} must be one value or one for each of the {n} parameter groups, got {len(values)}")
    return values


def _at_least(name: str, value: int, least: int) -> int:
    if not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
    return int(value)


class LambdaLR(LRScheduler):
    """base x lr_lambda(epoch); one function, or one for each group. The functions are not part of the state."""

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]], last_epoch: int = -1
    ) -> None:
        self.lr_lambdas = _each("LambdaLR: lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """base x gamma^floor(epoch / step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _at_least("StepLR: step_size", step_size, 1), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """base x gamma^(number of milestones reached)."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        several = list(milestones) if isinstance(milestones, Iterable) else milestones
        self.milestones, self.gamma = sorted(integers(several, "MultiStepLR: milestones")), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ConstantLR(LRScheduler):
    """base x factor for total_iters steps, then base."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * (self.factor if epoch < self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """base x a factor that goes linearly from start_factor to end_factor in total_iters steps and stays there: the usual warm-up."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"LinearLR: start_factor must lie in (0, 1] and end_factor in [0, 1], got {start_factor} and {end_factor}; scale lr itself"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, _at_least("LinearLR: total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * (self.start_factor + (self.end_factor - self.start_factor) * min(epoch, self.total_iters) / self.total_iters)


class ExponentialLR(LRScheduler):
    """base x gamma^epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma**epoch


class PolynomialLR(LRScheduler):
    """base x (1 - epoch / total_iters)^power, 0 from total_iters on: the "poly" schedule of segmentation papers has power 0.9."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = _at_least("PolynomialLR: total_iters", total_iters, 1), power
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * math.pow(1.0 - min(epoch, self.total_iters) / self.total_iters, self.power)


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min)(1 + cos(pi epoch / T_max)) / 2 (Loshchilov & Hutter, "SGDR", 2017); it rises again after T_max."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _at_least("CosineAnnealingLR: T_max", T_max, 1), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to max_lr / (div_factor final_div_factor), while momentum goes the other way.

    Smith & Topin, "Super-convergence", 2018. total_steps (or epochs x steps_per_epoch) steps in all, of which the share pct_start goes
    up; "cos" or "linear" in between; three_phase comes down in two equal parts first to the start, then to the end. ValueError for
    settings that do not fit and for steps beyond the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self._attach(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        self.total_steps = _at_least("OneCycleLR: total_steps", total_steps, 1)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must lie between 0 and 1, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f'OneCycleLR: anneal_strategy must be "cos" or "linear", got "{anneal_strategy}"')
        self.linear = anneal_strategy == "linear"
        rise = pct_start * total_steps - 1
        tops = _each("OneCycleLR: max_lr", optimizer, max_lr)
        self.lr_marks = [(top / div_factor, top, top / div_factor / final_div_factor) for top in tops]
        # (last step, mark at its start, mark at its end) of each phase; marks 0, 1, 2 are the first, the highest and the last rate
        self.phases = [(rise, 0, 1), (total_steps - 1, 1, 2)]
        if three_phase:
            self.phases = [(rise, 0, 1), (2 * rise, 1, 0), (total_steps - 1, 0, 2)]
        self.momentum_key = ""
        if cycle_momentum:
            self.momentum_key = "betas" if "betas" in optimizer.defaults else "momentum"
            if self.momentum_key not in optimizer.defaults:
                raise ValueError(f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; pass cycle_momentum=False")
            low, high = (_each("OneCycleLR: momentum", optimizer, m) for m in (base_momentum, max_momentum))
            self.momentum_marks = [(b, a, b) for a, b in zip(low, high, strict=True)]
        if last_epoch == -1:
            for group, marks in zip(optimizer.param_groups, self.lr_marks, strict=True):
                group["initial_lr"] = marks[0]
        super().__init__(optimizer, last_epoch)

    def _at(self, marks: tuple[float, float, float], epoch: int) -> float:
        begin: float = 0
        for i, (end, a, b) in enumerate(self.phases):
            if epoch <= end or i == len(self.phases) - 1:
                share = min(1.0, (epoch - begin) / (end - begin)) if end > begin else 1.0
                if self.linear:
                    return marks[a] + (marks[b] - marks[a]) * share
                return marks[b] + (marks[a] - marks[b]) / 2 * (math.cos(math.pi * share) + 1)
            begin = end
        raise AssertionError("a schedule has phases")

    def get_lr(self) -> list[float]:
        epoch = self.last_epoch
        if epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {epoch} lies beyond total_steps={self.total_steps}")
        if self.momentum_key:
            for group, marks in zip(self.optimizer.param_groups, self.momentum_marks, strict=True):
                value = self._at(marks, epoch)
                group[self.momentum_key] = (value, *group["betas"][1:]) if self.momentum_key == "betas" else value
        return [self._at(marks, epoch) for marks in self.lr_marks]


class SequentialLR(LRScheduler):
    """Schedules one after the other: the i-th from milestones[i-1] steps on, each counting from its own 0. For warm-up and then decay."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1) -> None:
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
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def jump(self, epoch: int) -> None:
        self.last_epoch = epoch
        i = bisect_right(self.milestones, epoch)
        self.schedulers[i].jump(epoch - (self.milestones[i - 1] if i else 0))
        self._last_lr = self.schedulers[i].get_last_lr()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._check_state(state_dict, "base_lrs", "last_epoch")
        for schedule in self.schedulers:
            schedule.base_lrs = [float(base) for base in state_dict["base_lrs"]]
        super().load_state_dict(state_dict)


class ReduceLROnPlateau(LRScheduler):
    """lr x factor, not below min_lr, once the metric has not improved for more than `patience` steps: step(metric).

    mode "min" or "max"; better means by the share ("rel") or the amount ("abs") `threshold`; then `cooldown` steps are not counted.
    NaN never counts as better.
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
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f'ReduceLROnPlateau: mode must be "min" or "max" and threshold_mode "rel" or "abs", got "{mode}", "{threshold_mode}"'
            )
        self.mode, self.factor, self.patience, self.threshold, self.threshold_mode = mode, factor, patience, threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = [float(lr) for lr in _each("ReduceLROnPlateau: min_lr", optimizer, min_lr)]
        self.best: float | None = None
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self.get_lr()

    def get_lr(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

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
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
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
        return {**{name: getattr(self, name) for name in names}, "last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._check_state(state_dict, "last_lr", "best", "last_epoch", "num_bad_epochs", "cooldown_counter")
        self.best, self.last_epoch = state_dict["best"], state_dict["last_epoch"]
        self.num_bad_epochs, self.cooldown_counter = state_dict["num_bad_epochs"], state_dict["cooldown_counter"]
        self._set([float(lr) for lr in state_dict["last_lr"]])
