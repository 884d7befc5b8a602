"""What a GradScaler says of itself, beside torch.amp.GradScaler, over random settings and after steps good and bad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn import Tensor, nn, optim

torch = pytest.importorskip("torch")

GETTERS = ("get_scale", "get_growth_factor", "get_backoff_factor", "get_growth_interval", "is_enabled")
SETTINGS = st.fixed_dictionaries(
    {
        "init_scale": st.integers(-20, 20).map(lambda e: 2.0**e),
        "growth_factor": st.sampled_from([1.5, 2.0, 4.0, 8.0]),
        "backoff_factor": st.sampled_from([0.125, 0.25, 0.5, 0.75]),
        "growth_interval": st.integers(1, 4),
    }
)


def told(scaler: Any) -> dict[str, Any]:
    return {name: getattr(scaler, name)() for name in GETTERS} | scaler.state_dict()


@given(SETTINGS, st.lists(st.booleans(), max_size=8))
def test_the_getters_are_torchs(settings: dict[str, Any], finite: list[bool]) -> None:
    ours, theirs = optim.GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    assert told(ours) == told(theirs)
    for good in finite:
        p, q = nn.Parameter(np.ones(3, np.float32)), torch.nn.Parameter(torch.ones(3))
        gradient = np.array([1.0, 2.0 if good else np.inf, 3.0], np.float32)
        assert ours.scale(Tensor(np.float32(3))).item() == theirs.scale(torch.tensor(3.0)).item()
        p.grad, q.grad = Tensor(gradient), torch.tensor(gradient)
        ours.step(optim.SGD([p], 0.5))
        theirs.step(torch.optim.SGD([q], 0.5))
        ours.update()
        theirs.update()
        assert told(ours) == told(theirs)


@given(SETTINGS, SETTINGS, st.integers(0, 3))
def test_a_state_that_is_loaded_brings_its_settings(settings: dict[str, Any], others: dict[str, Any], good: int) -> None:
    """Each takes the state of the other's kind."""
    state = {
        **{name: others[name] for name in ("growth_factor", "backoff_factor", "growth_interval")},
        "scale": others["init_scale"], "_growth_tracker": good,
    }  # fmt: skip
    ours, theirs = optim.GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    assert told(ours) == told(theirs)
    assert ours.state_dict() == state and ours.get_scale() == others["init_scale"]


def test_one_that_is_not_enabled_says_so() -> None:
    """It has a scale, 1; PyTorch's has no other settings then."""
    ours, theirs = optim.GradScaler(8.0, enabled=False), torch.amp.GradScaler("cpu", 8.0, enabled=False)
    for name in ("get_scale", "is_enabled", "state_dict"):
        assert getattr(ours, name)() == getattr(theirs, name)()
