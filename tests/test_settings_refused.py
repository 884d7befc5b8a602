"""Settings that make no sense are refused where they are given, in one sentence, and not by Python somewhere later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, optim
from minidcnn.optim import lr_scheduler as S


def said(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# -- schedules -----------------------------------------------------------------------------------------------------------------------------

# fmt: off
SCHEDULES: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda o: S.LambdaLR(o, 0.5), TypeError, "LambdaLR: lr_lambda must be a function of the step, or one for each group, got 0.5"),
    (lambda o: S.LambdaLR(o, [abs, "a"]), TypeError, "LambdaLR: lr_lambda must be a function of the step, or one for each group, got 'a'"),
    (lambda o: S.StepLR(o, 2, gamma=None), TypeError, "StepLR: gamma must be a number, got None"),
    (lambda o: S.StepLR(o, 2, last_epoch=1.5), TypeError, "StepLR: last_epoch must be an int, got 1.5"),
    (lambda o: S.StepLR(o, 2, last_epoch=-2), ValueError, "StepLR: last_epoch must be at least -1, got -2"),
    (lambda o: S.MultiStepLR(o, [2, 3], "a"), TypeError, "MultiStepLR: gamma must be a number, got 'a'"),
    (lambda o: S.ConstantLR(o, 2), ValueError, "ConstantLR: factor must lie between 0 and 1, got 2"),
    (lambda o: S.ConstantLR(o, 0.5, 2.5), TypeError, "ConstantLR: total_iters must be an int, got 2.5"),
    (lambda o: S.ConstantLR(o, 0.5, -1), ValueError, "ConstantLR: total_iters must be at least 0, got -1"),
    (lambda o: S.LinearLR(o, "a"), TypeError, "LinearLR: start_factor must be a number, got 'a'"),
    (lambda o: S.LinearLR(o, 0.5, None), TypeError, "LinearLR: end_factor must be a number, got None"),
    (lambda o: S.ExponentialLR(o, float("nan")), ValueError, "ExponentialLR: gamma must be a number, got nan"),
    (lambda o: S.PolynomialLR(o, 3, -1), ValueError, "PolynomialLR: power must be at least 0, got -1"),
    (lambda o: S.CosineAnnealingLR(o, 3, "a"), TypeError, "CosineAnnealingLR: eta_min must be a number, got 'a'"),
    (lambda o: S.SequentialLR(o, [], []), ValueError, "SequentialLR: give at least one schedule, got none"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [], last_epoch=-2), ValueError, "SequentialLR: last_epoch must be at least -1, got -2"),
    (lambda o: S.ReduceLROnPlateau(o, factor=-0.5), ValueError, "ReduceLROnPlateau: factor must be at least 0, got -0.5"),
    (lambda o: S.ReduceLROnPlateau(o, patience=-1), ValueError, "ReduceLROnPlateau: patience must be at least 0, got -1"),
    (lambda o: S.ReduceLROnPlateau(o, cooldown=1.5), TypeError, "ReduceLROnPlateau: cooldown must be an int, got 1.5"),
    (lambda o: S.ReduceLROnPlateau(o, threshold="a"), TypeError, "ReduceLROnPlateau: threshold must be a number, got 'a'"),
    (lambda o: S.OneCycleLR(o, 1.0, epochs=-2, steps_per_epoch=-3), ValueError, "OneCycleLR: epochs must be at least 1, got -2"),
    (lambda o: S.OneCycleLR(o, "a", 5), TypeError, "OneCycleLR: max_lr must be a number, got 'a'"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, div_factor=0), ValueError, "OneCycleLR: div_factor must be above 0, got 0; rates are divided by it"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, final_div_factor=-1), ValueError, "OneCycleLR: final_div_factor must be above 0, got -1; rates are divided by it"),
]
# fmt: on


@pytest.mark.parametrize(("make", "kind", "sentence"), SCHEDULES, ids=[sentence for *_, sentence in SCHEDULES])
def test_settings_of_schedules(make: Callable[[Any], Any], kind: type[Exception], sentence: str) -> None:
    o = optim.SGD([Tensor(np.ones(3, np.float32), requires_grad=True)], lr=0.5, momentum=0.9)
    assert said(kind, lambda: make(o)) == sentence
    assert o.param_groups[0]["lr"] == 0.5  # as it was
