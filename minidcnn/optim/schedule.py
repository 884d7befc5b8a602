"""What the schedules share: a base rate for each parameter group, the number of steps taken, and how rates follow a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..window import integer, listed
from .checks import complete
from .optimizer import Optimizer


class LRScheduler:
    """Base class: sets each group's "lr" at once, and again with every step().

    `last_epoch` counts the steps taken; -1 starts anew, another number sets the rates that the formula has one step later. The base rates
    are the groups' "initial_lr", which is their "lr" when the first schedule is made. Subclasses define `rate(base, epoch)`.

    A rate that nobody else has changed is set by the formula. One that was changed, by hand or by another schedule, is multiplied by what
    the formula grew by in this step: schedules that are stepped side by side multiply, as torch's do. Groups added later follow, too.

    Every schedule raises TypeError for what is no Optimizer and for settings of another kind, ValueError for settings out of range, and
    KeyError where `last_epoch` is not -1 but a group has no "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer)
        last_epoch = integer(last_epoch, f"{type(self).__name__}: last_epoch", -1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f'{type(self).__name__}: last_epoch={last_epoch} resumes, but parameter group {i} has no "initial_lr"; load the '
                    f"optimizer's state first, or start with last_epoch=-1"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._start(last_epoch)

    def _attach(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer

    def _start(self, last_epoch: int) -> None:
        if last_epoch == -1:
            self._follow(self.base_lrs, self._go(0))
        else:
            self.jump(last_epoch + 1)

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate after `epoch` steps for a group whose base rate is `base`. NotImplementedError where a subclass lacks it."""
        raise NotImplementedError(f"{type(self).__name__} does not define rate")

    def get_lr(self) -> list[float]:
        """The learning rate of each group after `last_epoch` steps, by the formula."""
        return [self.rate(base, self.last_epoch) for base in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """The learning rates set last, one for each group."""
        return list(self._last_lr)

    def jump(self, epoch: int) -> None:
        """Set the learning rates that the formula has at step `epoch`."""
        self._set(self._go(epoch))

    def step(self) -> None:
        """Go on by one step: call it after optimizer.step(), once an epoch or once an iteration."""
        self._join()
        self._follow(self._formula, self._go(self.last_epoch + 1))

    def changed(self, lr: float, before: float, after: float) -> float:
        """What becomes of the rate `lr`, which is not the formula's, where the formula goes from `before` to `after`."""
        return scaled(lr, before, after)

    def _go(self, epoch: int) -> list[float]:
        """Be at step `epoch`: the formula's rates there, which are not set yet."""
        self._join()
        self.last_epoch = epoch
        self._formula = [float(lr) for lr in self.get_lr()]
        return self._formula

    def _join(self) -> None:
        """Take in the groups that were added since, and forget those that were taken away."""
        groups, known = self.optimizer.param_groups, len(self.base_lrs)
        if len(groups) != known:
            self.base_lrs[len(groups) :] = [float(group.setdefault("initial_lr", group["lr"])) for group in groups[known:]]
            self._formula = [float(lr) for lr in self.get_lr()]

    def _follow(self, before: Sequence[float], after: Sequence[float]) -> None:
        """Set the rates that become of the present ones where the formula goes from `before` to `after`."""
        self._set([self._next(*one) for one in zip(present(self.optimizer), before, after, strict=True)])

    def _next(self, lr: float, before: float, after: float) -> float:
        return after if lr == before else self.changed(lr, before, after)

    def _set(self, rates: Sequence[float]) -> None:
        self._last_lr = [float(lr) for lr in rates]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule has come, in numbers and lists fit for JSON: steps taken, base rates, present rates and the formula's.

        Settings such as total_iters are left to the constructor.
        """
        self._join()
        rates = {"base_lrs": list(self.base_lrs), "_last_lr": present(self.optimizer), "formula": list(self._formula)}
        return {"last_epoch": self.last_epoch, **rates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where state_dict(), here or in torch, was taken; sets the optimizer's learning rates too.

        ValueError for a state that does not fit.
        """
        self._check_state(state_dict, "base_lrs", "last_epoch")
        self.base_lrs = [float(base) for base in state_dict["base_lrs"]]
        self._resume(state_dict)

    def _resume(self, state: Mapping[str, Any]) -> None:
        now = self._go(max(0, int(state["last_epoch"])))  # torch counts from -1 what SequentialLR has not begun
        before = state.get("formula", now)  # other settings of the constructor make another formula
        self._set([lr if a == b else self._next(lr, b, a) for lr, b, a in zip(state["_last_lr"], before, now, strict=True)])

    def _check_state(self, state: Mapping[str, Any], *keys: str) -> None:
        """ValueError unless `state` has "_last_lr", with a number for each group, and the other keys."""
        complete(f"{type(self).__name__}.load_state_dict", state, "_last_lr", *keys)
        ours, theirs = len(self.optimizer.param_groups), len(state["_last_lr"])
        if ours != theirs:
            raise ValueError(f"load_state_dict: the schedule's state is for {theirs} parameter groups, the optimizer has {ours}")


def scaled(lr: float, before: float, after: float, least: float = 0.0) -> float:
    """`lr` with its distance to `least` multiplied as that of a formula which goes from `before` to `after`; from `least` itself it is added."""
    return lr + after - before if before == least else least + (lr - least) * ((after - least) / (before - least))


def present(optimizer: Optimizer) -> list[float]:
    """The learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def each(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value for each parameter group: a list as it is, anything else repeated. ValueError for a list of another length."""
    n = len(optimizer.param_groups)
    several = listed(value)
    values = [value] * n if several is None else list(several)
    if len(values) != n:
        raise ValueError(f"{name} must be one value or one for each of the {n} parameter groups, got {len(values)}")
    return values
