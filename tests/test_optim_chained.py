"""Rates that several change: schedules stepped side by side, by hand, groups that come later; and all of it resumed, as PyTorch has it."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from minidcnn import nn, optim
from minidcnn.optim import lr_scheduler as S

torch = pytest.importorskip("torch")

MAKERS: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda m, o: m.StepLR(o, 3, 0.3),
    "multistep": lambda m, o: m.MultiStepLR(o, [2, 5, 5], 0.5),
    "constant": lambda m, o: m.ConstantLR(o, 0.25, 4),
    "linear": lambda m, o: m.LinearLR(o, 0.1, 0.8, 5),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.9),
    "poly": lambda m, o: m.PolynomialLR(o, 9, 0.9),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 5, 0.01),
    "cosine to 0": lambda m, o: m.CosineAnnealingLR(o, 4),
    "lambda": lambda m, o: m.LambdaLR(o, lambda t: 1 / (1 + t)),
    "one-cycle": lambda m, o: m.OneCycleLR(o, 0.7, 14),
    "warm-up": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, 1.0, 4), m.CosineAnnealingLR(o, 7)], [4]),
    "warm-up and one-cycle": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, 1.0, 4), m.OneCycleLR(o, 1.0, 10)], [4]),
    "plateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1, factor=0.5, min_lr=1e-3),
}
FOLLOWING = sorted(set(MAKERS) - {"lambda", "one-cycle", "warm-up", "warm-up and one-cycle"})  # in torch the others end in an error


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that the optimizer did not step
        yield


class Run:
    """An optimizer with schedules, ours or PyTorch's."""

    def __init__(self, module: Any, names: tuple[str, ...], groups: int = 2) -> None:
        self.module, self.names = module, names
        self.optimizer = module.SGD([self.group(lr) for lr in (0.2, 0.05, 0.4)[:groups]], lr=1.0, momentum=0.9)
        self.schedules = [MAKERS[name](module.lr_scheduler, self.optimizer) for name in names]

    def group(self, lr: float) -> dict[str, Any]:
        parameter = nn.Parameter(np.ones(2)) if self.module is optim else torch.nn.Parameter(torch.ones(2))
        return {"params": [parameter], "lr": lr}

    def step(self, t: int) -> None:
        for name, schedule in zip(self.names, self.schedules, strict=True):
            if name == "plateau":
                schedule.step(1.0 + t % 3)
            else:
                schedule.step()

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def saved(self) -> list[Any]:
        groups = self.optimizer.state_dict()["param_groups"]
        return json.loads(json.dumps([groups, [s.state_dict() for s in self.schedules]], allow_nan=False))  # type: ignore[no-any-return]

    def load(self, saved: list[Any], order: tuple[int, ...]) -> None:
        """The optimizer is 0, the schedules come after it."""
        for i in order:
            if i:
                self.schedules[i - 1].load_state_dict(saved[1][i - 1])
            else:
                self.optimizer.load_state_dict({"state": {}, "param_groups": saved[0]})


def agree(ours: Run, theirs: Run, t: int) -> None:
    for group in theirs.optimizer.param_groups:
        group["lr"] = max(0.0, group["lr"])  # a cosine that rises makes a rate below its eta_min negative
    assert ours.rates == pytest.approx(theirs.rates, rel=1e-11, abs=1e-15), t
    for a, b in zip(ours.schedules, theirs.schedules, strict=True):
        assert a.get_last_lr() == pytest.approx([max(0.0, lr) for lr in b.get_last_lr()], rel=1e-11, abs=1e-15), t


CYCLES = ("one-cycle", "warm-up and one-cycle")  # of two PyTorch keeps the marks in the same entries of the groups


@pytest.mark.parametrize("first, second", [(a, b) for a in MAKERS for b in MAKERS if not (a in CYCLES and b in CYCLES)])
def test_side_by_side(first: str, second: str) -> None:
    ours, theirs = Run(optim, (first, second)), Run(torch.optim, (first, second))
    for t in range(14):
        agree(ours, theirs, t)
        ours.step(t)
        theirs.step(t)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("at", range(11))
def test_a_rate_set_by_hand(name: str, at: int) -> None:
    ours, theirs = Run(optim, (name,)), Run(torch.optim, (name,))
    for t in range(13):
        agree(ours, theirs, t)
        for run in (ours, theirs):
            if t == at:
                run.optimizer.param_groups[1]["lr"] = 0.3
            run.step(t)


@pytest.mark.parametrize(
    "names", [("step",), ("warm-up and one-cycle",), ("warm-up", "plateau"), ("plateau", "cosine"), ("linear", "exponential", "step")]
)
@pytest.mark.parametrize("order", ["optimizer first", "optimizer last", "no optimizer"])
def test_resumed_at_any_step_it_goes_on_with_the_same_bits(names: tuple[str, ...], order: str) -> None:
    def go(run: Run, t: int) -> None:
        run.step(t)
        if t == 3:
            run.optimizer.param_groups[0]["lr"] *= 0.5

    for stop in range(12):
        straight, later = Run(optim, names), Run(optim, names)
        for t in range(stop):
            go(straight, t)
        parts = range(1, len(names) + 1)
        orders = {"optimizer first": (0, *parts), "optimizer last": (*reversed(parts), 0), "no optimizer": tuple(reversed(parts))}
        for group in later.optimizer.param_groups:
            group["lr"] = 77.0
        later.load(straight.saved(), orders[order])
        for t in range(stop, 13):
            assert later.rates == straight.rates, (stop, t)
            go(straight, t)
            go(later, t)
        assert later.saved() == straight.saved()


def test_the_parts_of_a_sequence_keep_their_own_base_rates() -> None:
    """One-cycle writes its own start into "initial_lr", which the warm-up before it does not have; and a sequence may hold another."""

    def make(lr: float) -> tuple[optim.SGD, S.SequentialLR]:
        o = optim.SGD([nn.Parameter(np.ones(2))], lr=lr)
        inner = S.SequentialLR(o, [S.LinearLR(o, 0.1, 1.0, 3), S.ExponentialLR(o, 0.9)], [3])
        return o, S.SequentialLR(o, [inner, S.OneCycleLR(o, 1.0, 10, cycle_momentum=False)], [5])

    for stop in range(12):
        o, schedule = make(0.1)
        for _ in range(stop):
            schedule.step()
        other, again = make(0.3)
        again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        for _ in range(stop, 13):
            assert other.param_groups[0]["lr"] == o.param_groups[0]["lr"]
            schedule.step()
            again.step()
    with pytest.raises(ValueError, match="the state is for 1 schedules one after the other, this SequentialLR has 2"):
        again.load_state_dict({**again.state_dict(), "_schedulers": [{}]})


@pytest.mark.parametrize("names", [(name,) for name in FOLLOWING] + [("linear", "plateau")])
@pytest.mark.parametrize("at", [0, 2, 6])
def test_a_group_added_later_follows(names: tuple[str, ...], at: int) -> None:
    ours, theirs = Run(optim, names), Run(torch.optim, names)
    for t in range(4 if "cosine" in names[0] else 12):  # behind its lowest point torch's ends in an error
        for run in (ours, theirs):
            if t == at:
                run.optimizer.add_param_group(run.group(0.7))
            run.step(t)
        agree(ours, theirs, t)
        for prepared in (True, False):  # the group was added before the schedule was made, or after
            again = Run(optim, names, 3 if prepared or t < at else 2)
            if t < at:
                continue
            if not prepared:
                again.optimizer.add_param_group(again.group(0.7))
            again.load(ours.saved(), (*range(len(names) + 1),))
            going = copy.copy(ours)
            going.optimizer, going.schedules = copy.deepcopy((ours.optimizer, ours.schedules))
            for later in range(t + 1, t + 4):
                going.step(later)
                again.step(later)
                assert again.rates == going.rates


@pytest.mark.parametrize("name", [*FOLLOWING, "warm-up"])
def test_a_group_added_and_saved_at_once_is_in_the_state(name: str) -> None:
    run, again = Run(optim, (name,)), Run(optim, (name,), 3)
    for t in range(2):
        run.step(t)
    run.optimizer.add_param_group(run.group(0.7))
    again.load(run.saved(), (0, 1))
    for t in range(2, 6):
        run.step(t)
        again.step(t)
        assert again.rates == run.rates


def test_a_group_added_between_the_parts_of_a_sequence() -> None:
    o = optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
    schedule = S.SequentialLR(o, [S.LinearLR(o, 0.25, 1.0, 3), S.StepLR(o, 2, 0.5)], [3])
    schedule.step()
    o.add_param_group({"params": [nn.Parameter(np.ones(2))], "lr": 0.1})
    seen = []
    for _ in range(5):
        schedule.step()
        seen.append([g["lr"] for g in o.param_groups])
    assert seen == [[0.75, pytest.approx(0.15)], [1, 0.1], [1, 0.1], [0.5, 0.05], [0.5, 0.05]]
    assert [g["initial_lr"] for g in o.param_groups] == [1, 0.1] and len(schedule.state_dict()["_schedulers"][0]["base_lrs"]) == 2
    assert [part.get_last_lr() for part in schedule.schedulers] == [seen[0], seen[-1]]  # each the rates that it set last


@pytest.mark.parametrize("make, message", [
    (lambda o: S.OneCycleLR(o, 1.0, 9), "OneCycleLR: made for 1 parameter groups, the optimizer has 2 by now; make it anew after add_param_group"),
    (lambda o: S.LambdaLR(o, [math.exp]), "LambdaLR: lr_lambda must be one value or one for each of the 2 parameter groups, got 1"),
    (lambda o: S.ReduceLROnPlateau(o, patience=0, min_lr=[1]), "ReduceLROnPlateau: min_lr must be one value or one for each of the 2 parameter groups, got 1"),
])  # fmt: skip
def test_settings_for_each_group_do_not_fit_one_more(make: Callable[[Any], Any], message: str) -> None:
    o = optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
    schedule = make(o)
    metric = [math.inf] if isinstance(schedule, S.ReduceLROnPlateau) else []
    o.add_param_group({"params": [nn.Parameter(np.ones(2))]})
    before = [g["lr"] for g in o.param_groups]
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            schedule.step(*metric)
            schedule.step(*metric)
        assert str(caught.value) == message and [g["lr"] for g in o.param_groups] == before


@pytest.mark.parametrize("name", [name for name in MAKERS if "one-cycle" not in name])  # whose marks torch keeps in the groups
@pytest.mark.parametrize("stop", [0, 3, 4, 7])
def test_states_go_over_to_torch_and_back(name: str, stop: int) -> None:
    for first, second in ((optim, torch.optim), (torch.optim, optim)):
        if second is torch.optim and (name == "lambda" or (name == "plateau" and not stop)):
            continue  # it wants its own functions, and a best metric of infinity, which JSON lacks
        began, goes_on = Run(first, (name,)), Run(second, (name,))
        for t in range(stop):
            began.step(t)
        state = began.schedules[0].state_dict()
        goes_on.schedules[0].load_state_dict(copy.deepcopy(state))
        if second is optim:
            json.dumps(goes_on.schedules[0].state_dict(), allow_nan=False)
        for mine, group in zip(began.rates, goes_on.optimizer.param_groups, strict=True):
            group["lr"] = mine  # torch's schedules leave that to the state of the optimizer
        for t in range(stop, stop + 6):
            assert goes_on.rates == pytest.approx(began.rates, rel=1e-11, abs=1e-15), t
            began.step(t)
            goes_on.step(t)


def test_a_part_that_torchs_sequence_has_not_begun_stays_at_its_beginning() -> None:
    def make(m: Any, run: Run) -> Any:
        warm_up = m.LinearLR(run.optimizer, 0.1, 1.0, 3)
        return m.SequentialLR(run.optimizer, [warm_up, m.LambdaLR(run.optimizer, lambda t: 1 / (1 + t))], [3])

    ours, theirs = Run(optim, ()), Run(torch.optim, ())
    mine, other = make(S, ours), make(torch.optim.lr_scheduler, theirs)
    other.step()
    assert other.state_dict()["_schedulers"][1]["last_epoch"] == -1
    mine.load_state_dict(other.state_dict())
    for _ in range(5):
        mine.step()
        other.step()
        assert ours.rates == pytest.approx(theirs.rates, rel=1e-11)


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize("which", [0, 1])
def test_a_group_taken_away_is_forgotten(name: str, which: int) -> None:
    ours, theirs = Run(optim, (name,)), Run(torch.optim, (name,))
    for t in range(4):
        for run in (ours, theirs):
            if t == 2:
                del run.optimizer.param_groups[which]
            run.step(t)
        agree(ours, theirs, t)
    again = Run(optim, (name,), 1)
    again.load(ours.saved(), (0, 1))
    for t in range(4, 8):
        again.step(t)
        ours.step(t)
        assert again.rates == ours.rates


def test_a_longer_run_keeps_what_was_changed() -> None:
    """The rate halved by hand stays half of what the longer schedule's formula has."""
    for factor in (1.0, 0.5):
        o = optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
        schedule = S.PolynomialLR(o, 4)
        o.param_groups[0]["lr"] *= factor
        schedule.step()
        other = optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
        S.PolynomialLR(other, 8).load_state_dict(schedule.state_dict())
        assert other.param_groups[0]["lr"] == factor * 7 / 8
