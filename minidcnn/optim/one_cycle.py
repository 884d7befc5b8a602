"""OneCycleLR: one rise and one fall of the rate, and of momentum the other way round."""

from __future__ import annotations

import math

from ..window import fraction, integer
from .checks import number
from .optimizer import Optimizer
from .schedule import LRScheduler, each


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to max_lr / (div_factor final_div_factor), while momentum goes the other way.

    Smith & Topin, "Super-convergence", 2018. total_steps (or epochs x steps_per_epoch) steps in all, of which the share pct_start goes
    up; "cos" or "linear" in between; three_phase comes down in two equal parts first to the start, then to the end. ValueError for
    settings that do not fit, for steps beyond the end, and for a step after add_param_group.
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
            total_steps = integer(epochs, "OneCycleLR: epochs", 1) * integer(steps_per_epoch, "OneCycleLR: steps_per_epoch", 1)
        self.total_steps = integer(total_steps, "OneCycleLR: total_steps", 1)
        fraction(pct_start, "OneCycleLR: pct_start")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f'OneCycleLR: anneal_strategy must be "cos" or "linear", got "{anneal_strategy}"')
        self.linear = anneal_strategy == "linear"
        rise = pct_start * total_steps - 1
        tops = each("OneCycleLR: max_lr", optimizer, max_lr)
        for top in tops:
            number(top, "OneCycleLR: max_lr", 0)
        for name, divisor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            number(divisor, f"OneCycleLR: {name}")
            if divisor <= 0:
                raise ValueError(f"OneCycleLR: {name} must be above 0, got {divisor}; rates are divided by it")
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
            low, high = (each("OneCycleLR: momentum", optimizer, m) for m in (base_momentum, max_momentum))
            self.momentum_marks = [(b, a, b) for a, b in zip(low, high, strict=True)]
        if last_epoch == -1:
            for group, marks in zip(optimizer.param_groups, self.lr_marks, strict=True):
                group["initial_lr"] = marks[0]
        super().__init__(optimizer, last_epoch)

    def _at(self, marks: tuple[float, float, float], epoch: int) -> float:
        begin: float = 0
        for end, a, b in self.phases:  # noqa: B007 (which phase it is, is used below)
            if epoch <= end:
                break
            begin = end
        share = (epoch - begin) / (end - begin) if end > begin else 1.0
        if self.linear:
            return marks[a] + (marks[b] - marks[a]) * share
        return marks[b] + (marks[a] - marks[b]) / 2 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_epoch} lies beyond total_steps={self.total_steps}")
        return [self._at(marks, self.last_epoch) for marks in self.lr_marks]

    def changed(self, lr: float, before: float, after: float) -> float:
        return after

    def _go(self, epoch: int) -> list[float]:
        rates = super()._go(epoch)
        if self.momentum_key:
            for group, marks in zip(self.optimizer.param_groups, self.momentum_marks, strict=True):
                value = self._at(marks, epoch)
                group[self.momentum_key] = (value, *group["betas"][1:]) if self.momentum_key == "betas" else value
        return rates

    def _join(self) -> None:
        ours, now = len(self.lr_marks), len(self.optimizer.param_groups)
        if ours != now:
            raise ValueError(
                f"OneCycleLR: made for {ours} parameter groups, the optimizer has {now} by now; make it anew after add_param_group"
            )
