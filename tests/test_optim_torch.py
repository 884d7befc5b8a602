"""Optimizers, clipping and schedules against PyTorch's: the same numbers over several steps."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn, optim

torch = pytest.importorskip("torch")

SHAPES = [(4, 3, 2, 5), (7,), (6, 5), ()]

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.2}),
    ("Adam", {"lr": 0.1, "betas": (0.9, 0.5), "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
]


def twins(shapes: list[tuple[int, ...]]) -> tuple[list[nn.Parameter], list[Any]]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in shapes]
    return [nn.Parameter(a) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]


def give_gradients(ours: list[nn.Parameter], theirs: list[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        g = rng.standard_normal(p.shape) * 10.0 ** rng.integers(-2, 2)
        if (seed + i) % 4 == 3:  # now and then a parameter without a gradient
            p.grad = q.grad = None
        else:
            p.grad, q.grad = Tensor(g), torch.tensor(g)


def agree(ours: list[nn.Parameter], theirs: list[Any]) -> None:
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-13)


def filled(state: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """A state of torch's without the entries that hold nothing."""
    each = {i: {k: v for k, v in s.items() if v is not None} for i, s in state["state"].items()}
    return {i: s for i, s in each.items() if s}


@pytest.mark.parametrize("name, kwargs", OPTIMIZERS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(OPTIMIZERS)])
def test_trajectories_agree(name: str, kwargs: dict[str, Any]) -> None:
    ours, theirs = twins(SHAPES)
    a = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.01, "weight_decay": 0.5}], **kwargs)
    b = getattr(torch.optim, name)([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.01, "weight_decay": 0.5}], **kwargs)
    for seed in range(6):
        give_gradients(ours, theirs, seed)
        a.step()
        b.step()
        agree(ours, theirs)
    state, other = a.state_dict(), b.state_dict()
    assert {i: set(s) for i, s in state["state"].items()} == {i: set(s) for i, s in filled(other).items()}
    assert [g["params"] for g in state["param_groups"]] == [g["params"] for g in other["param_groups"]]
    for i, values in state["state"].items():
        for key, value in values.items():
            np.testing.assert_allclose(value, np.asarray(other["state"][i][key]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name, kwargs", OPTIMIZERS[::3], ids=[n for n, _ in OPTIMIZERS[::3]])
def test_torchs_state_loads(name: str, kwargs: dict[str, Any]) -> None:
    ours, theirs = twins(SHAPES)
    b = getattr(torch.optim, name)(theirs, **kwargs)
    for seed in range(3):
        give_gradients(ours, theirs, seed)
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        p.data = q.detach().numpy().copy()
    a = getattr(optim, name)(ours, **{**kwargs, "lr": 7.0})
    state = b.state_dict()
    known = set(a.param_groups[0])
    state["param_groups"] = [{k: v for k, v in g.items() if k in known} for g in state["param_groups"]]
    state["state"] = {i: {k: int(v) if k == "step" else v.clone() for k, v in s.items()} for i, s in filled(state).items()}
    a.load_state_dict(state)
    for seed in range(3, 6):
        give_gradients(ours, theirs, seed)
        a.step()
        b.step()
    agree(ours, theirs)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0])
def test_clipping_by_norm_agrees(norm_type: float, max_norm: float) -> None:
    ours, theirs = twins(SHAPES)
    give_gradients(ours, theirs, 1)
    norm = optim.clip_grad_norm_(ours, max_norm, norm_type)
    other = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm == pytest.approx(float(other), rel=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_clipping_by_value_agrees() -> None:
    ours, theirs = twins(SHAPES)
    give_gradients(ours, theirs, 0)
    optim.clip_grad_value_(ours, 0.25)
    torch.nn.utils.clip_grad_value_(theirs, 0.25)
    for p, q in zip(ours, theirs, strict=True):
        if p.grad is not None:
            np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_state_of_torch_goes_on_here(name: str) -> None:
    ours, theirs = twins([(2, 3), (), (4,)])
    kwargs = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
    a, b = getattr(optim, name)(ours, lr=0.1, **kwargs), getattr(torch.optim, name)(theirs, lr=0.1, **kwargs)
    for step in range(4):
        give_gradients(ours, theirs, step)
        if step == 2:
            for p, q in zip(ours, theirs, strict=True):
                p.data = q.detach().numpy().copy()
            a.load_state_dict(b.state_dict())
        if step >= 2:
            a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)
    steps = [values["step"] for values in a.state_dict()["state"].values() if "step" in values]
    assert all(type(step) is int for step in steps) and len(steps) == (0 if name == "SGD" else 3)


@pytest.mark.parametrize(
    "kwargs", [{}, {"foreach": True}, {"lr": torch.tensor(0.02, dtype=torch.float64), "capturable": False, "differentiable": False}]
)
@pytest.mark.parametrize("theirs", ["Adam", "AdamW"])
@pytest.mark.parametrize("ours", ["Adam", "AdamW"])
def test_a_state_of_the_other_adam_decays_as_in_torch(ours: str, theirs: str, kwargs: dict[str, Any]) -> None:
    p, q = twins([(4, 3)])
    first = getattr(torch.optim, theirs)(q, weight_decay=0.3, **kwargs)
    give_gradients(p, q, 0)
    first.step()
    p[0].data = q[0].detach().numpy().copy()
    a, b = getattr(optim, ours)(p), getattr(torch.optim, ours)(q)
    a.load_state_dict(first.state_dict())
    b.load_state_dict(first.state_dict())
    assert all(type(a.param_groups[0][key]) is float for key in ("lr", "weight_decay"))
    for _ in range(2):
        give_gradients(p, q, 1)
        a.step()
        b.step()
        agree(p, q)
        a.load_state_dict(
            json.loads(json.dumps({"state": {}, "param_groups": a.state_dict()["param_groups"]})) | {"state": a.state_dict()["state"]}
        )


def test_torchs_states_from_before_decoupled_weight_decay_was_a_setting() -> None:
    for name in ("Adam", "AdamW"):
        p, q = twins([(4, 3)])
        state = getattr(torch.optim, name)(q, weight_decay=0.3).state_dict()
        del state["param_groups"][0]["decoupled_weight_decay"]
        a, b = getattr(optim, name)(p), getattr(torch.optim, name)(q)
        for o in (a, b):
            o.load_state_dict(state)
        give_gradients(p, q, 0)
        a.step()
        b.step()
        agree(p, q)


@pytest.mark.parametrize("ours, theirs, kwargs, message", [
    ("SGD", "SGD", {"maximize": True}, "the state has maximize=True, but SGD minimizes; set it to False, and negate the loss"),
    ("AdamW", "Adam", {"maximize": True}, "the state has maximize=True, but AdamW minimizes; set it to False, and negate the loss"),
    ("Adam", "SGD", {"momentum": 0.9}, "the state lacks betas, eps, amsgrad, which Adam has; it is another optimizer's"),
    ("SGD", "Adam", {}, "the state lacks momentum, dampening, nesterov, which SGD has; it is another optimizer's"),
    ("SGD", "RMSprop", {"momentum": 0.9}, "the state lacks dampening, nesterov, which SGD has; it is another optimizer's"),
    ("Adam", "Adamax", {}, "the state lacks amsgrad, which Adam has; it is another optimizer's"),
    ("Adam", "NAdam", {}, "the state lacks amsgrad, which Adam has; it is another optimizer's"),
])  # fmt: skip
def test_a_state_that_would_train_differently_is_refused(ours: str, theirs: str, kwargs: dict[str, Any], message: str) -> None:
    p, q = twins([(4, 3)])
    other = getattr(torch.optim, theirs)(q, **kwargs)
    give_gradients(p, q, 0)
    other.step()
    o = getattr(optim, ours)(p)
    before = o.state_dict()
    with pytest.raises(ValueError) as caught:
        o.load_state_dict(other.state_dict())
    assert str(caught.value) == f"load_state_dict: {message}" and o.state_dict() == before


# -- schedules -----------------------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, Any] = {
    "lambda": lambda m, o: m.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    "step": lambda m, o: m.StepLR(o, 3, 0.3),
    "multistep": lambda m, o: m.MultiStepLR(o, [2, 5, 5, 11], 0.5),
    "constant": lambda m, o: m.ConstantLR(o, 0.25, 4),
    "linear": lambda m, o: m.LinearLR(o, 0.1, 0.8, 7),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.8),
    "poly": lambda m, o: m.PolynomialLR(o, 12, 0.9),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 10, 0.01),
    "onecycle": lambda m, o: m.OneCycleLR(o, [1.0, 0.5], 20),
    "onecycle-linear": lambda m, o: m.OneCycleLR(
        o, 1.0, epochs=5, steps_per_epoch=4, pct_start=0.4, anneal_strategy="linear", three_phase=True
    ),
    "warm-up": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, 1.0, 4), m.PolynomialLR(o, 14, 0.9)], [4]),
    "three": lambda m, o: m.SequentialLR(o, [m.ConstantLR(o, 0.1, 9), m.ExponentialLR(o, 0.9), m.StepLR(o, 2)], [3, 8]),
}


def optimizers(name: str) -> tuple[Any, Any]:
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    made = []
    for module, parameters in zip((optim, torch.optim), twins([(2,), (3,)]), strict=True):
        groups = [{"params": parameters[:1], "lr": 0.2}, {"params": parameters[1:], "lr": 0.05}]
        made.append(getattr(module, name)(groups, **kwargs))
    return made[0], made[1]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_agree(name: str, optimizer: str) -> None:
    a, b = optimizers(optimizer)
    key = "momentum" if optimizer == "SGD" else "betas"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that the optimizer did not step
        ours, theirs = SCHEDULES[name](optim.lr_scheduler, a), SCHEDULES[name](torch.optim.lr_scheduler, b)
        for step in range(20):
            for g, h in zip(a.param_groups, b.param_groups, strict=True):
                assert g["lr"] == pytest.approx(h["lr"], rel=1e-11, abs=1e-16), step
                assert g[key] == pytest.approx(h[key], rel=1e-12), step
            assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-11, abs=1e-16)
            assert ours.last_epoch == theirs.last_epoch
            if step < 19:
                ours.step()
                theirs.step()


@pytest.mark.parametrize("kwargs", [
    {},
    {"mode": "max", "factor": 0.5, "patience": 1, "threshold": 0.1},
    {"factor": 0.3, "patience": 0, "threshold_mode": "abs", "threshold": 0.2, "cooldown": 2, "min_lr": [0.01, 0.001]},
    {"mode": "max", "patience": 2, "threshold_mode": "abs", "cooldown": 1, "min_lr": 0.004, "eps": 0.01},
])  # fmt: skip
def test_plateau_agrees(kwargs: dict[str, Any]) -> None:
    a, b = optimizers("SGD")
    ours, theirs = optim.lr_scheduler.ReduceLROnPlateau(a, **kwargs), torch.optim.lr_scheduler.ReduceLROnPlateau(b, **kwargs)
    metrics = [*np.random.default_rng(2).choice([0.5, 1.0, 1.05, 2.0, 3.0, math.nan, math.inf], 40), 0.1]
    for metric in [math.nan, math.inf, -math.inf if kwargs.get("mode") == "max" else math.inf, *metrics]:
        ours.step(metric)
        theirs.step(metric)
        assert [g["lr"] for g in a.param_groups] == [g["lr"] for g in b.param_groups]
        assert (ours.num_bad_epochs, ours.cooldown_counter, ours.last_epoch) == (
            theirs.num_bad_epochs,
            theirs.cooldown_counter,
            theirs.last_epoch,
        )
