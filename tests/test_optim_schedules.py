"""Schedules without PyTorch: closed forms, resuming anywhere, errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from minidcnn import nn, optim
from minidcnn.optim import lr_scheduler as S


def optimizer(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter(np.ones(1))], "lr": lr} for lr in rates or (1.0,)], lr=1.0, momentum=0.9)


def rates(make: Callable[[optim.Optimizer], S.LRScheduler], steps: int) -> list[float]:
    o = optimizer(1.0)
    schedule, seen = make(o), []
    for step in range(steps):
        if step:
            schedule.step()
        assert schedule.get_last_lr() == [o.param_groups[0]["lr"]]
        seen.append(o.param_groups[0]["lr"])
    return seen


FORMULAS: dict[str, tuple[Callable[[optim.Optimizer], S.LRScheduler], Callable[[int], float]]] = {
    "step": (lambda o: S.StepLR(o, 4, 0.5), lambda t: 0.5 ** (t // 4)),
    "multistep": (lambda o: S.MultiStepLR(o, [7, 3]), lambda t: 0.1 ** ((t >= 3) + (t >= 7))),
    "exponential": (lambda o: S.ExponentialLR(o, 0.9), lambda t: 0.9**t),
    "poly": (lambda o: S.PolynomialLR(o, 8, 0.9), lambda t: (1 - min(t, 8) / 8) ** 0.9),
    "cosine": (lambda o: S.CosineAnnealingLR(o, 8, 0.2), lambda t: 0.2 + 0.4 * (1 + math.cos(math.pi * t / 8))),
    "linear": (lambda o: S.LinearLR(o, 0.25, 1.0, 6), lambda t: 0.25 + 0.75 * min(t, 6) / 6),
    "constant": (lambda o: S.ConstantLR(o, 0.5, 2), lambda t: 0.5 if t < 2 else 1.0),
    "lambda": (lambda o: S.LambdaLR(o, lambda t: 1 / (t + 1)), lambda t: 1 / (t + 1)),
    "warm-up": (
        lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.2, total_iters=5), S.PolynomialLR(o, 6)], [5]),
        lambda t: 0.2 + 0.16 * t if t < 5 else 1 - min(t - 5, 6) / 6,
    ),
    "one-cycle": (
        lambda o: S.OneCycleLR(o, 1.0, 11, pct_start=5 / 11, anneal_strategy="linear", div_factor=4, final_div_factor=10),
        lambda t: 0.25 + 0.75 * t / 4 if t <= 4 else 1 - (1 - 0.025) * min(t - 4, 6) / 6,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_closed_forms(name: str) -> None:
    make, formula = FORMULAS[name]
    np.testing.assert_allclose(rates(make, 12), [formula(t) for t in range(12)], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("name", FORMULAS)
def test_resuming_at_any_step_gives_the_same_bits(name: str) -> None:
    make, straight = FORMULAS[name][0], rates(FORMULAS[name][0], 12)
    for stop in range(11):
        o = optimizer(1.0)
        schedule = make(o)
        for _ in range(stop):
            schedule.step()
        saved = json.dumps([o.state_dict()["param_groups"], schedule.state_dict()], allow_nan=False)
        o = optimizer(1.0)
        schedule = make(o)
        groups, state = json.loads(saved)
        o.load_state_dict({"state": {}, "param_groups": groups})
        schedule.load_state_dict(state)
        seen = [o.param_groups[0]["lr"]]
        for _ in range(stop, 11):
            schedule.step()
            seen.append(o.param_groups[0]["lr"])
        assert seen == straight[stop:]


def test_every_group_keeps_its_own_base_rate() -> None:
    o = optimizer(1.0, 0.1)
    schedule = S.PolynomialLR(o, 4)
    schedule.step()
    assert schedule.get_last_lr() == [0.75, pytest.approx(0.075)]
    assert [g["initial_lr"] for g in o.param_groups] == [1.0, 0.1]
    o = optimizer(1.0, 0.1)
    each = S.LambdaLR(o, [lambda t: 0.5**t, lambda t: 1.0])
    each.step()
    assert each.get_last_lr() == [0.5, 0.1]


def test_a_prolonged_run_takes_the_new_length() -> None:
    o = optimizer(1.0)
    schedule = S.PolynomialLR(o, 4)
    schedule.step()
    longer = S.PolynomialLR(optimizer(1.0), 8)
    longer.load_state_dict(schedule.state_dict())
    assert longer.get_last_lr() == [1 - 1 / 8]


def test_last_epoch_resumes_from_the_optimizers_initial_lr() -> None:
    o = optimizer(1.0)
    S.StepLR(o, 2).step()
    assert S.StepLR(o, 2, last_epoch=1).get_last_lr() == [0.1]
    with pytest.raises(KeyError, match="StepLR: last_epoch=3 resumes, but parameter group 0 has no"):
        S.StepLR(optimizer(1.0), 2, last_epoch=3)


def test_one_cycle_moves_momentum_the_other_way() -> None:
    o = optimizer(1.0)
    schedule = S.OneCycleLR(o, 1.0, 10)
    seen = []
    for _ in range(10):
        seen.append((o.param_groups[0]["lr"], o.param_groups[0]["momentum"]))
        schedule.step()
    top = max(range(10), key=lambda i: seen[i][0])
    assert seen[top] == (pytest.approx(1.0), pytest.approx(0.85)) and seen[0] == (pytest.approx(0.04), pytest.approx(0.95))
    assert all((a[0] < b[0]) == (a[1] > b[1]) for a, b in pairwise(seen))
    with pytest.raises(ValueError, match="OneCycleLR: step 11 lies beyond total_steps=10"):
        schedule.step()
    adam = optim.Adam([nn.Parameter(np.ones(1))])
    S.OneCycleLR(adam, 1.0, 10)
    assert adam.param_groups[0]["betas"] == (0.95, 0.999)


@pytest.mark.parametrize("total, start", [(1, 0.3), (2, 0.5), (3, 0.0), (4, 1.0), (10, 0.1)])
def test_short_cycles_have_no_division_by_zero(total: int, start: float) -> None:
    for three in (False, True):
        o = optimizer(1.0)
        schedule = S.OneCycleLR(o, 1.0, total, pct_start=start, three_phase=three)
        for _ in range(total):
            assert 0 < o.param_groups[0]["lr"] <= 1
            schedule.step()


def test_plateau() -> None:
    o = optimizer(1.0)
    schedule = S.ReduceLROnPlateau(o, factor=0.5, patience=1)
    seen = []
    for metric in (3.0, 2.0, 2.0, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0):
        schedule.step(metric)
        seen.append(o.param_groups[0]["lr"])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    state = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
    other = optimizer(1.0)
    again = S.ReduceLROnPlateau(other, factor=0.5, patience=1)
    json.dumps(again.state_dict(), allow_nan=False)  # also before the first metric
    again.load_state_dict(state)
    assert other.param_groups[0]["lr"] == 0.125
    for metric in (1.0, 1.0, 0.5):
        schedule.step(metric)
        again.step(metric)
        assert other.param_groups[0]["lr"] == o.param_groups[0]["lr"] and again.best == schedule.best


@pytest.mark.parametrize("call, message", [
    (lambda o: S.StepLR(3, 1), "StepLR: optimizer must be an Optimizer, got int"),
    (lambda o: S.StepLR(o, True), "StepLR: step_size must be an int, got True"),
    (lambda o: S.StepLR(o, 0), "StepLR: step_size must be at least 1, got 0"),
    (lambda o: S.PolynomialLR(o, 0), "PolynomialLR: total_iters must be at least 1, got 0"),
    (lambda o: S.CosineAnnealingLR(o, 2.5), "CosineAnnealingLR: T_max must be an int, got 2.5"),
    (lambda o: S.LinearLR(o, 0.0), "LinearLR: start_factor must lie in (0, 1] and end_factor in [0, 1], got 0.0 and 1.0; scale lr itself"),
    (lambda o: S.LambdaLR(o, [math.sqrt]), "LambdaLR: lr_lambda must be one value or one for each of the 2 parameter groups, got 1"),
    (lambda o: S.OneCycleLR(o, 1.0), "OneCycleLR: give total_steps, or both epochs and steps_per_epoch"),
    (lambda o: S.OneCycleLR(o, 1.0, 0), "OneCycleLR: total_steps must be at least 1, got 0"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, pct_start=2), "OneCycleLR: pct_start must lie between 0 and 1, got 2"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, anneal_strategy="sin"), 'OneCycleLR: anneal_strategy must be "cos" or "linear", got "sin"'),
    (lambda o: S.OneCycleLR(o, [1.0], 5), "OneCycleLR: max_lr must be one value or one for each of the 2 parameter groups, got 1"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [2]), "SequentialLR: 1 schedules need 0 rising milestones, got [2]"),
    (lambda o: S.SequentialLR(o, [S.StepLR(optimizer(), 1)], []), "SequentialLR: schedule 0 belongs to another optimizer"),
    (lambda o: S.SequentialLR(o, [S.ReduceLROnPlateau(o)], []), "SequentialLR: schedule 0 must step without a metric, got ReduceLROnPlateau"),
    (lambda o: S.ReduceLROnPlateau(o, factor=1.0), "ReduceLROnPlateau: factor must be below 1, got 1.0"),
    (lambda o: S.ReduceLROnPlateau(o, mode="low"), 'ReduceLROnPlateau: mode must be "min" or "max" and threshold_mode "rel" or "abs", got "low", "rel"'),
    (lambda o: S.ReduceLROnPlateau(o).step(), "ReduceLROnPlateau: step needs the metric to watch: step(val_loss)"),
    (lambda o: S.StepLR(o, 1).load_state_dict(S.StepLR(optimizer(), 1).state_dict()), "the schedule's state is for 1 parameter groups, the optimizer has 2"),
    (lambda o: S.MultiStepLR(o, ["2"]), "MultiStepLR: milestones must be an int or a sequence of ints, got ['2']"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)] * 2, [2.0]), "SequentialLR: milestones must be an int or a sequence of ints, got [2.0]"),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call(optimizer(1.0, 0.1))


def test_numbers_of_numpy_become_pythons() -> None:
    o = optimizer(1.0, 0.1)
    for schedule in (
        S.CosineAnnealingLR(o, np.int64(5), np.float32(0.25)),
        S.OneCycleLR(o, np.array([0.5, 0.25], np.float32), np.int64(10), cycle_momentum=False),
        S.MultiStepLR(o, np.array([4, 2]), np.float32(0.5)),
        S.MultiStepLR(o, (n for n in (4, 2)), np.float32(0.5)),
        S.MultiStepLR(o, 3),  # type: ignore[arg-type]
    ):
        schedule.step()
        json.dumps([schedule.state_dict(), schedule.get_last_lr(), [g["lr"] for g in o.param_groups]])
        assert all(type(g["lr"]) is float for g in o.param_groups)


@pytest.mark.parametrize("make", [lambda o: S.StepLR(o, 2), lambda o: S.SequentialLR(o, [S.StepLR(o, 2)], []), S.ReduceLROnPlateau])
def test_a_state_without_its_keys_is_refused_and_changes_nothing(make: Callable[[Any], Any]) -> None:
    o = optim.SGD([nn.Parameter(np.ones(2))], lr=0.5)
    schedule = make(o)
    state, name = schedule.state_dict(), type(schedule).__name__
    for key in state.keys() - {"formula", *(["base_lrs"] if "_schedulers" in state else [])}:  # which torch's states lack
        lacking = {k: v for k, v in state.items() if k != key}
        with pytest.raises(ValueError, match=f"^{name}.load_state_dict: the state lacks {key}; pass what state_dict"):
            schedule.load_state_dict(lacking)
    for other in ([], None, "last_epoch"):
        with pytest.raises(ValueError, match=f"^{name}.load_state_dict: the state must be a dict, as state_dict"):
            schedule.load_state_dict(other)
    with pytest.raises(ValueError, match="the schedule's state is for 2 parameter groups, the optimizer has 1"):
        schedule.load_state_dict({**state, "_last_lr": [0.1, 0.2]})
    assert schedule.state_dict() == state and o.param_groups[0]["lr"] == 0.5


def test_a_plateau_has_rates_and_cannot_jump() -> None:
    o = optim.SGD([nn.Parameter(np.ones(2))], lr=0.5)
    schedule = S.ReduceLROnPlateau(o, factor=0.5, patience=0)
    schedule.step(1.0)
    schedule.step(1.0)
    assert schedule.get_lr() == schedule.get_last_lr() == [0.25]
    with pytest.raises(TypeError, match=r"ReduceLROnPlateau: its rates follow a metric.* step\(metric\)"):
        schedule.jump(3)
