"""Optimizers without PyTorch: formulas by hand, memory layouts, state, resuming to the same bits, errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, nn, optim
from minidcnn.backend import kernels, use_kernels

ALL: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1),
}


def gradient(shape: tuple[int, ...], seed: int, dtype: str = "float64") -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def test_sgd_by_hand() -> None:
    p = nn.Parameter(np.array([1.0, -2.0]))
    o = optim.SGD([p], lr=0.5, momentum=0.5, dampening=0.25, weight_decay=0.1)
    p.grad = Tensor(np.array([1.0, 1.0]))
    o.step()  # d = g + 0.1 p = (1.1, 0.8), buffer = d
    np.testing.assert_allclose(p.numpy(), [1 - 0.55, -2 - 0.4])
    o.step()  # d = (1.045, 0.76), buffer = 0.5 (1.1, 0.8) + 0.75 d
    np.testing.assert_allclose(p.numpy(), [0.45 - 0.5 * (0.55 + 0.78375), -2.4 - 0.5 * (0.4 + 0.57)])


def test_the_first_adam_step_has_the_size_of_the_learning_rate() -> None:
    for make in (optim.Adam, optim.AdamW):
        p = nn.Parameter(np.array([1.0, -1.0, 5.0]))
        o = make([p], lr=0.01, eps=0.0, weight_decay=0.0)
        p.grad = Tensor(np.array([1e-3, -100.0, 7.0]))
        o.step()
        np.testing.assert_allclose(p.numpy(), [0.99, -0.99, 4.99])


def test_adamw_shrinks_weights_without_looking_at_gradients() -> None:
    p = nn.Parameter(np.array([2.0]))
    o = optim.AdamW([p], lr=0.1, weight_decay=0.5)
    p.grad = Tensor(np.array([0.0]))
    o.step()
    assert p.item() == pytest.approx(2 * (1 - 0.05))


LAYOUTS = {
    "C": lambda a: a,
    "channels-last": lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "reversed": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "strided": lambda a: np.repeat(a, 2, 3)[..., ::2],
    "Fortran": lambda a: np.asfortranarray(a),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_changes_no_bit(name: str, layout: str) -> None:
    shape = (3, 5, 2, 4)
    start = np.random.default_rng(9).standard_normal(shape)
    plain, other = nn.Parameter(start), nn.Parameter(start)
    other._array = LAYOUTS[layout](start)
    optimizers = ALL[name]([plain]), ALL[name]([other])
    for seed in range(3):
        plain.grad = gradient(shape, seed)
        other.grad = Tensor.wrap(LAYOUTS["channels-last"](plain.grad._array))
        for o in optimizers:
            o.step()
    np.testing.assert_array_equal(plain.numpy(), other.numpy())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (70_001,), (3, 40_000), (2, 3, 16_385), (300, 1, 117)])
def test_blocks_cover_every_element_once(name: str, shape: tuple[int, ...]) -> None:
    """Large arrays are updated in blocks: the same bits as element by element, for the current kernels and the reference."""
    start = np.random.default_rng(1).standard_normal(shape)
    whole = nn.Parameter(start)
    o = ALL[name]([whole])
    flat = [nn.Parameter(part) for part in np.array_split(start.reshape(-1), 3)]
    o3 = ALL[name](flat)
    for seed in range(2):
        whole.grad = gradient(shape, seed)
        for p, g in zip(flat, np.array_split(whole.grad.numpy().reshape(-1), 3), strict=True):
            p.grad = Tensor(g)
        o.step()
        o3.step()
    np.testing.assert_allclose(whole.numpy().reshape(-1), np.concatenate([p.numpy() for p in flat]), rtol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_fast_kernels_agree_with_the_reference_and_keep_float32(name: str) -> None:
    for dtype, rtol in (("float32", 1e-6), ("float64", 1e-14)):
        results = []
        for which in ("fast", "reference"):
            p = nn.Parameter(np.random.default_rng(1).standard_normal((5, 40, 3, 7)).astype(dtype))
            o = ALL[name]([p])
            with use_kernels(which):
                for seed in range(4):
                    p.grad = gradient(p.shape, seed, dtype)
                    o.step()
            assert p.dtype == dtype and all(v.dtype == dtype for s in o.state.values() for v in s.values() if hasattr(v, "dtype"))
            results.append(p.numpy())
        np.testing.assert_allclose(*results, rtol=rtol, atol=rtol)


def test_gradients_are_only_read_and_missing_ones_skipped() -> None:
    for make in ALL.values():
        p, q = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(3))
        o = make([p, q])
        p.grad = Tensor(np.array([1.0, 2.0, 3.0]))
        o.step()
        np.testing.assert_array_equal(p.grad.numpy(), [1, 2, 3])
        np.testing.assert_array_equal(q.numpy(), [1, 1, 1])
        assert q not in o.state


def test_a_step_inside_a_graph_is_noticed() -> None:
    p = nn.Parameter(np.ones(3))
    loss = (p * p).sum()
    p.grad = Tensor(np.ones(3))
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="was changed in place after the forward pass"):
        loss.backward()


def test_closure_is_run_with_gradients_and_returned() -> None:
    p = nn.Parameter(np.array([3.0]))
    o = optim.SGD([p], lr=0.1)

    def closure() -> Tensor:
        o.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with minidcnn.no_grad():
        assert o.step(closure).item() == 9
    assert p.item() == pytest.approx(3 - 0.6)


def test_zero_grad() -> None:
    p = nn.Parameter(np.ones(3))
    p.grad = Tensor(np.array([1.0, np.nan, -np.inf]))
    o = optim.SGD([p], lr=0.1)
    o.zero_grad(set_to_none=False)
    assert p.grad is not None and p.grad.numpy().tolist() == [0.0, 0.0, 0.0]
    o.zero_grad()
    assert p.grad is None


# -- state ------------------------------------------------------------------------------------------------------------------------


def train(parameters: list[nn.Parameter], o: optim.Optimizer, seeds: range, schedule: Any = None) -> None:
    for seed in seeds:
        for i, p in enumerate(parameters):
            p.grad = gradient(p.shape, 10 * seed + i, "float32")
        o.step()
        if schedule is not None:
            schedule.step()


@pytest.mark.parametrize("name", ALL)
def test_resuming_gives_the_same_bits(name: str) -> None:
    def fresh() -> tuple[list[nn.Parameter], optim.Optimizer, Any]:
        minidcnn.manual_seed(0)
        parameters = list(nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.Linear(4, 5)).parameters())
        o = ALL[name]([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.03}])
        schedules = optim.lr_scheduler
        warm = schedules.SequentialLR(o, [schedules.LinearLR(o, 0.1, total_iters=3), schedules.PolynomialLR(o, 12, 0.9)], [3])
        return parameters, o, warm

    straight, o, schedule = fresh()
    train(straight, o, range(8), schedule)
    first, o, schedule = fresh()
    train(first, o, range(5), schedule)
    weights, saved = [p.numpy().copy() for p in first], o.state_dict()
    text = json.dumps({"groups": saved["param_groups"], "schedule": schedule.state_dict()}, allow_nan=False)
    arrays = {i: dict(values) for i, values in saved["state"].items()}
    train(first, o, range(5, 6), schedule)  # what was saved must not change with it
    second, o, schedule = fresh()
    for p, w in zip(second, weights, strict=True):
        p.data = w
    plain = json.loads(text)
    o.load_state_dict({"state": {str(i): values for i, values in arrays.items()}, "param_groups": plain["groups"]})
    schedule.load_state_dict(plain["schedule"])
    assert isinstance(o.param_groups[0].get("betas", ()), tuple)
    train(second, o, range(5, 8), schedule)
    for a, b in zip(straight, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_state_dict_is_arrays_and_json() -> None:
    parameters = list(nn.Conv2d(3, 4, (2, 3)).parameters())
    o = optim.Adam(parameters, lr=np.float64(0.1))
    train(parameters, o, range(2))
    state = o.state_dict()
    assert state["param_groups"] == [
        {"lr": 0.1, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
        | {"decoupled_weight_decay": False, "params": [0, 1]}
    ]
    assert list(state["state"]) == [0, 1] and state["state"][0]["step"] == 2
    for i, p in enumerate(parameters):
        for key in ("exp_avg", "exp_avg_sq"):
            value = state["state"][i][key]
            assert type(value) is np.ndarray and value.flags.c_contiguous and value.flags.owndata and value.shape == p.shape
    assert o.state[parameters[0]]["exp_avg"].strides == parameters[0]._array.strides


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    parameters = [nn.Parameter(np.ones((2, 3))), nn.Parameter(np.ones(4))]
    o = optim.SGD(parameters, lr=0.1, momentum=0.9)
    for p in parameters:
        p.grad = Tensor(np.ones(p.shape))
    o.step()
    state = o.state_dict()
    with pytest.raises(ValueError, match="the state is for groups of 2 parameters, this SGD has groups of 1, 1"):
        optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=1.0).load_state_dict(state)
    wrong = optim.SGD(parameters[::-1], lr=1.0, momentum=0.9)
    with pytest.raises(ValueError, match=re.escape("momentum_buffer of parameter 0 has shape (2, 3), the parameter has (4,)")):
        wrong.load_state_dict(state)
    assert wrong.param_groups[0]["lr"] == 1.0 and not wrong.state
    state["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match="SGD: lr must not be negative, got -1.0"):
        o.load_state_dict(state)
    assert o.param_groups[0]["lr"] == 0.1


# -- arguments -----------------------------------------------------------------------------------------------------------------------


def test_parameter_groups() -> None:
    a, b, c = (nn.Parameter(np.ones(2)) for _ in range(3))
    o = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.1)
    o.add_param_group({"params": (p for p in [c]), "weight_decay": 0.5})
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in o.param_groups] == [(1, 1.0, 0.0), (1, 0.1, 0.0), (1, 0.1, 0.5)]
    for p in (a, b, c):
        p.grad = Tensor(np.ones(2))
    o.step()
    np.testing.assert_allclose([a.numpy()[0], b.numpy()[0], c.numpy()[0]], [0, 0.9, 1 - 0.15])
    assert repr(o).startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 1.0\n")


@pytest.mark.parametrize("call, message", [
    (lambda p: optim.SGD([], lr=1), "SGD: got no parameters; note that an iterator such as model.parameters() can be used up only once"),
    (lambda p: optim.SGD(p, lr=1), "SGD: params must be an iterable of tensors or dicts, got one tensor; wrap it in a list"),
    (lambda p: optim.SGD([p, 3], lr=1), "SGD: parameter 1 must be a Tensor, got int"),
    (lambda p: optim.SGD([p, p], lr=1), "SGD: parameter 1 of this group (shape (2,)) is given twice; list each parameter once"),
    (lambda p: optim.Adam([{"params": [p]}, {"params": [p]}]), "Adam: parameter 0 of this group (shape (2,)) is given twice"),
    (lambda p: optim.SGD([p * 2], lr=1), "SGD: parameter 0 (shape (2,), float64) must be a floating-point tensor that no function made"),
    (lambda p: optim.SGD([Tensor([1])], lr=1), "SGD: parameter 0 (shape (1,), int64) must be a floating-point tensor"),
    (lambda p: optim.SGD(3), "SGD: params must be an iterable of tensors, got int"),
    (lambda p: optim.SGD(nn.Linear(2, 2)), "SGD: params must be an iterable of tensors, got Linear; pass its .parameters()"),
    (lambda p: optim.SGD([{"params": nn.Linear(2, 2)}]), "SGD: params must be an iterable of tensors, got Linear; pass its .parameters()"),
    (lambda p: optim.SGD({p}), "SGD: params must have an order, which a set has not; pass a list"),
    (lambda p: optim.SGD([{"params": {p}}]), "SGD: params must have an order, which a set has not; pass a list"),
    (lambda p: optim.SGD({"params": [p]}), "SGD: params must be an iterable of tensors or dicts, got one dict; wrap it in a list"),
    (lambda p: optim.SGD([p], lr="0.1"), "SGD: lr must be a number, got '0.1'"),
    (lambda p: optim.SGD([p], momentum=[0.9]), "SGD: momentum must be a number, got [0.9]"),
    (lambda p: optim.SGD([p], dampening=None), "SGD: dampening must be a number, got None"),
    (lambda p: optim.Adam([p], eps=np.ones(2)), "Adam: eps must be a number, got [1.0, 1.0]"),
    (lambda p: optim.Adam([p], betas=0.9), "Adam: betas must be two numbers of at least 0 and below 1, got 0.9"),
    (lambda p: optim.Adam([p], betas=("0.9", 0.99)), "Adam: betas must be two numbers of at least 0 and below 1, got ('0.9', 0.99)"),
    (lambda p: optim.clip_grad_norm_(nn.Linear(2, 2), 1.0), "parameters must be an iterable of tensors, got Linear; pass its .parameters()"),
    (lambda p: optim.grads_finite([("weight", p)]), "parameter 0 must be a Tensor, got tuple"),
    (lambda p: optim.SGD([p]).load_state_dict({}), 'SGD needs a dict of "state" and "param_groups", as state_dict() returns, got keys none'),
    (lambda p: optim.SGD([p]).load_state_dict({"optimizer": 1, "epoch": 2}), "as state_dict() returns, got keys optimizer, epoch"),
    (lambda p: optim.SGD([p], lr=-1), "SGD: lr must not be negative, got -1"),
    (lambda p: optim.SGD([p], lr=float("nan")), "SGD: lr must not be negative, got nan"),
    (lambda p: optim.SGD([p], momentum=-0.1), "SGD: momentum must not be negative, got -0.1"),
    (lambda p: optim.SGD([p], nesterov=True), "SGD: nesterov needs momentum above 0 and dampening 0, got momentum=0.0 and dampening=0.0"),
    (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), "AdamW: betas must be two numbers of at least 0 and below 1, got (0.9, 1.0)"),
    (lambda p: optim.Adam([p], betas=(0.9,)), "Adam: betas must be two numbers of at least 0 and below 1, got (0.9,)"),
    (lambda p: optim.Adam([p], weight_decay=-1), "Adam: weight_decay must not be negative, got -1"),
    (lambda p: optim.SGD([{"params": [p], "momentun": 1}], lr=1), "SGD: 'momentun' is no setting of this optimizer; known are lr, momentum"),
    (lambda p: optim.SGD([{"weights": [p]}], lr=1), 'SGD: a parameter group must be a dict with the key "params", got dict'),
])  # fmt: skip
def test_errors_are_sentences(call: Callable[[nn.Parameter], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call(nn.Parameter(np.ones(2)))


# -- clipping ------------------------------------------------------------------------------------------------------------------------


def with_gradients(*arrays: Any) -> list[nn.Parameter]:
    parameters = [nn.Parameter(np.zeros(np.shape(a))) for a in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p.grad = Tensor(np.array(a, np.float64))
    return [*parameters, nn.Parameter(np.zeros(2))]  # one without a gradient


def test_clip_grad_norm_by_hand() -> None:
    parameters = with_gradients([3.0], [[4.0]])
    assert optim.grad_norm(parameters) == 5 and optim.grad_norm(parameters, 1) == 7 and optim.grad_norm(parameters, np.inf) == 4
    assert optim.clip_grad_norm_(parameters, 10) == 5
    assert parameters[0].grad.item() == 3
    assert optim.clip_grad_norm_(iter(parameters), 1) == 5
    assert optim.grad_norm(parameters) == pytest.approx(1, abs=1e-6)
    assert parameters[0].grad.item() / parameters[1].grad.item() == pytest.approx(0.75)
    assert optim.clip_grad_norm_(parameters[2:], 1) == 0


def test_the_norm_of_float32_gradients_does_not_overflow() -> None:
    p = nn.Parameter(np.zeros((300, 300), np.float32))
    p.grad = Tensor(np.full((300, 300), 1e30, np.float32))
    assert optim.grad_norm([p]) == pytest.approx(3e32, rel=1e-6)
    assert optim.clip_grad_norm_(p, 1.0) == pytest.approx(3e32, rel=1e-6)
    assert p.grad.numpy()[0, 0] == pytest.approx(1 / 300, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_are_noticed(bad: float) -> None:
    parameters = with_gradients([1.0, 2.0], np.ones((50, 999)))
    assert optim.grads_finite(parameters) and optim.grads_finite([])
    parameters[1].grad._array[49, 998] = bad
    assert not optim.grads_finite(parameters)
    assert not np.isfinite(optim.grad_norm(parameters)) and not np.isfinite(optim.grad_norm(parameters, np.inf))
    with pytest.raises(RuntimeError, match="the gradients' norm is (nan|inf); lower the learning rate"):
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert parameters[0].grad.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("norm_type", [1, 2, 3, 0.5, np.inf])
def test_norms_of_no_one_and_many_gradients_of_any_dtype(norm_type: float, rng: np.random.Generator) -> None:
    assert optim.power_sum([], norm_type) is None and optim.grad_norm([nn.Parameter(np.ones(3))], norm_type) == 0
    arrays = [
        rng.standard_normal(shape).astype(dtype) for dtype in ("f4", "f8") for shape in ((), (0, 3), (5, 7), (300, 40), (70, 3, 2, 40))
    ]
    parameters = [nn.Parameter(np.zeros_like(a)) for a in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p.grad = Tensor(a.transpose(a.ndim - 1, *range(a.ndim - 1)).copy().transpose(*range(1, a.ndim), 0) if a.ndim else a)
    for count in (1, 4, 10):
        flat = np.concatenate([a.ravel().astype(np.float64) for a in arrays[:count]])
        assert optim.grad_norm(parameters[:count], norm_type) == pytest.approx(np.linalg.norm(flat, norm_type), rel=1e-12)
        total = optim.power_sum(iter(parameters[:count]), norm_type)
        assert total is not None and (total.shape, total.dtype) == ((), np.float64)


def test_clip_grad_value() -> None:
    parameters = with_gradients([-3.0, 0.5, 2.0])
    optim.clip_grad_value_(parameters, 1.0)
    assert parameters[0].grad.numpy().tolist() == [-1, 0.5, 1]
    for call, message in (
        (lambda: optim.clip_grad_value_(parameters, -1), "clip_value must not be negative, got -1"),
        (lambda: optim.clip_grad_norm_(parameters, -1), "max_norm must not be negative, got -1"),
        (lambda: optim.grad_norm(parameters, 0), "norm_type must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_reference_kernels_name_what_they_do() -> None:
    assert {"sgd_step", "adam_step", "power_sum", "all_finite"} <= set(dir(kernels()))


@pytest.mark.parametrize("order", ["C", "F"])
def test_gradients_given_in_another_dtype_count_in_the_parameters(order: str) -> None:
    """The square of 1e-4 is 0 in float16: a step would be divided by nothing."""
    p, q = (nn.Parameter(np.ones((3, 4), np.float32)) for _ in range(2))
    p._array = np.asarray(p._array, order=order)
    small = np.full((3, 4), 1e-4, np.float16)
    p.grad, q.grad = Tensor(small), Tensor(small.astype(np.float32))
    for one in (p, q):
        optim.AdamW([one], lr=0.1).step()
    np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6)


@pytest.mark.parametrize("number", [np.float32(0.25), np.array(0.25), Tensor(0.25)])
def test_settings_are_kept_as_numbers_of_python(number: Any) -> None:
    """They go into JSON with the checkpoint, wherever they came from."""

    def stepped(kind: Any, **settings: Any) -> dict[str, Any]:
        p = nn.Parameter(np.ones(2, np.float32))
        p.grad = Tensor(np.ones(2, np.float32))
        optimizer = kind((q for q in [p]), **settings)
        optimizer.step()
        optimizer.param_groups[0]["weight_decay"] = np.float32(0.5)  # as users change them
        state = optimizer.state_dict()
        state["state"] = {i: {key: np.asarray(value).tolist() for key, value in values.items()} for i, values in state["state"].items()}
        return json.loads(json.dumps({**state, "p": p.numpy().tolist()}))

    assert stepped(optim.SGD, lr=number, momentum=number) == stepped(optim.SGD, lr=0.25, momentum=0.25)
    assert (
        stepped(optim.Adam, betas=(number, 0.5))
        == stepped(optim.Adam, betas=np.array([0.25, 0.5]))
        == stepped(optim.Adam, betas=[0.25, 0.5])
    )


def test_a_norm_that_is_no_number_spoils_all_gradients() -> None:
    """As in PyTorch: a step with them is seen to be wrong, where one with the unlimited others would not be."""
    p = [Tensor(np.zeros(2), requires_grad=True) for _ in range(2)]
    p[0].grad, p[1].grad = Tensor(np.array([np.nan, 1.0])), Tensor(np.array([1e9, 1.0]))
    assert np.isnan(optim.clip_grad_norm_(p, 1.0))
    assert np.isnan(p[1].grad.numpy()).all()


def test_nesterov_refuses_dampening() -> None:
    with pytest.raises(ValueError, match="nesterov needs momentum above 0 and dampening 0"):
        optim.SGD([Tensor(np.zeros(2), requires_grad=True)], momentum=0.9, dampening=0.1, nesterov=True)
