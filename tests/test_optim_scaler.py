"""Loss scaling against torch.amp.GradScaler on the same gradients, and by itself: steps left out, scales, errors, what comes down from a device."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn, optim
from minidcnn.backend import Kernels


def parameters(count: int = 2) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.standard_normal((3, 4 + i)).astype(np.float32)) for i in range(count)]


def give(params: list[nn.Parameter], seed: int, bad: float | None = None) -> None:
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = Tensor(rng.standard_normal(p.shape).astype(np.float32))
    if bad is not None:
        params[seed % len(params)].grad[1, 2] = bad  # type: ignore[index]


SEQUENCES = {
    "grows": [None] * 9,
    "backs off": [np.inf, np.nan, -np.inf, None],
    "counts good steps in a row only": [None, None, np.inf, None, None, None, np.nan, None, None, None, None],
}


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", SEQUENCES)
def test_scales_and_steps_are_torchs(name: str, clip: bool) -> None:
    """Same scaled gradients, same decisions: the scale after every step, the parameters, momentum's state, and the state of the scaler."""
    torch = pytest.importorskip("torch")
    ours, settings = parameters(), {"init_scale": 8.0, "growth_interval": 3, "growth_factor": 4.0, "backoff_factor": 0.25}
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ours]
    scaler, peer = optim.GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    mine, other = optim.SGD(ours, 0.1, momentum=0.9), torch.optim.SGD(theirs, 0.1, momentum=0.9)
    for step, bad in enumerate(SEQUENCES[name]):
        assert scaler.scale(Tensor(np.float32(step))).item() == peer.scale(torch.tensor(float(step))).item()
        give(ours, step, bad)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.tensor(p.grad.numpy())  # type: ignore[union-attr]
        if clip:
            scaler.unscale_(mine)
            peer.unscale_(other)
            with np.errstate(invalid="ignore"):  # an infinite norm spoils them all, and the step is left out
                norm = optim.clip_grad_norm_(ours, 0.3)
            their_norm = torch.nn.utils.clip_grad_norm_(theirs, 0.3).item()
            np.testing.assert_allclose(norm, their_norm, rtol=1e-6)
        scaler.step(mine)
        peer.step(other)
        scaler.update()
        peer.update()
        assert scaler.get_scale() == peer.get_scale()
        assert scaler.state_dict() == peer.state_dict()
        for p, q in zip(ours, theirs, strict=True):  # after 11 steps of 3 roundings of numbers below 8
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=33 * 2.0**-22)


def test_names_and_defaults_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    peer = torch.amp.GradScaler("cpu")
    assert optim.GradScaler().state_dict() == peer.state_dict()
    for name in dir(peer):
        if not name.startswith("_") and not name.startswith("set_"):
            assert hasattr(optim.GradScaler, name), name


def test_scaled_gradients_come_back() -> None:
    """scale(loss).backward() and unscale_ give the gradients of the loss: exactly, as the scale is a power of two."""
    params, scaler = parameters(1), optim.GradScaler(2.0**10)
    optimizer = optim.SGD(params, 1.0)
    loss = (params[0] * params[0]).sum()
    scaler.scale(loss).backward()
    np.testing.assert_array_equal(params[0].grad.numpy(), 2.0**11 * params[0].numpy())  # type: ignore[union-attr]
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(params[0].grad.numpy(), 2 * params[0].numpy())  # type: ignore[union-attr]
    one, (two, three) = scaler.scale([loss, (loss, params[0])])
    assert one.item() == two.item() == 1024 * loss.item() and three.shape == params[0].shape


def test_a_step_left_out_changes_nothing_but_the_scale() -> None:
    params = parameters()
    optimizer, scaler = optim.Adam(params, 0.1), optim.GradScaler(1024.0, growth_interval=2)
    give(params, 0, np.inf)
    before = [p.numpy().copy() for p in params]
    assert scaler.step(optimizer) is None
    scaler.update()
    assert scaler.get_scale() == 512 and not any(optimizer.state.values())
    for p, q in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), q)
    give(params, 1)
    scaler.step(optimizer)
    scaler.update()
    assert all(state["step"] == 1 for state in optimizer.state.values())
    assert scaler.state_dict()["_growth_tracker"] == 1


def test_one_of_several_optimizers_may_overflow() -> None:
    """Each steps by its own gradients; the scale goes down if any of them overflowed."""
    good, bad = parameters(1), parameters(1)
    first, second = optim.SGD(good, 1.0), optim.SGD(bad, 1.0)
    scaler = optim.GradScaler(4.0)
    give(good, 0)
    give(bad, 0, np.nan)
    start = good[0].numpy().copy()
    gradient = good[0].grad.numpy().copy()  # type: ignore[union-attr]
    for optimizer in (first, second):
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2
    np.testing.assert_allclose(good[0].numpy(), start - gradient / 4, rtol=1e-6)
    np.testing.assert_array_equal(bad[0].numpy(), start)


def test_the_scale_stays_a_float32_number() -> None:
    params = parameters(1)
    optimizer, scaler = optim.SGD(params, 0.0), optim.GradScaler(2.0**127, growth_interval=1)
    for _ in range(2):
        give(params, 0)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2.0**127
    scaler.update(3.0)
    assert scaler.get_scale() == 3.0
    for _ in range(1200):  # a network that is NaN for good
        give(params, 0, np.nan)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == np.finfo(np.float32).tiny


def test_a_float16_loss_is_scaled_in_float32() -> None:
    scaled = optim.GradScaler().scale(Tensor(np.array([0.0, 1e-4, 0.75], np.float16)))
    assert scaled.dtype == np.float16 and scaled.numpy().tolist() == [0.0, 6.5546875, 49152.0]


def test_states_go_through_json_and_make_the_same_decisions() -> None:
    params, scaler = parameters(1), optim.GradScaler(np.float32(16), np.float32(2), np.array(0.5), np.int64(3))  # type: ignore[arg-type]
    optimizer = optim.SGD(params, 0.1)
    for step in range(2):
        give(params, step)
        scaler.step(optimizer)
        scaler.update()
    again = optim.GradScaler()
    again.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    give(params, 2)
    again.step(optimizer)
    again.update()
    assert again.get_scale() == 32
    with pytest.raises(ValueError, match="the state is empty"):
        again.load_state_dict({})
    with pytest.raises(
        ValueError, match="^GradScaler.load_state_dict: the state lacks _growth_tracker, growth_factor; pass what state_dict"
    ):
        again.load_state_dict({"scale": 2.0, "backoff_factor": 0.5, "growth_interval": 3})


def test_not_enabled_it_passes_everything_through() -> None:
    params, scaler = parameters(1), optim.GradScaler(enabled=False)
    optimizer = optim.SGD(params, 1.0)
    give(params, 0)
    gradient, start = params[0].grad.numpy().copy(), params[0].numpy().copy()  # type: ignore[union-attr]
    loss = Tensor(np.float32(3))
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1 and not scaler.is_enabled() and scaler.state_dict() == {}
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer, lambda: loss) is loss
    scaler.update()
    scaler.load_state_dict({})
    np.testing.assert_array_equal(params[0].numpy(), start - gradient)


def test_calls_in_the_wrong_order() -> None:
    params, scaler = parameters(1), optim.GradScaler()
    optimizer = optim.SGD(params, 1.0)
    with pytest.raises(RuntimeError, match=r"no step\(\) since the last update"):
        scaler.update()
    with pytest.raises(RuntimeError, match="no parameter of this optimizer has a gradient"):
        scaler.unscale_(optimizer)
    give(params, 0)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) came already"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="step: it came already"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) came already"):
        scaler.unscale_(optimizer)
    scaler.update()
    scaler.unscale_(optimizer)  # and again
    with pytest.raises(TypeError, match="must be a Tensor, or lists or tuples of them, got float"):
        scaler.scale(1.0)
    with pytest.raises(RuntimeError, match="a closure would make gradients that nobody has unscaled"):
        scaler.step(optimizer, lambda: 1.0)
    for scale in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="new_scale must be a positive number of float32"):
            scaler.update(scale)
    scaler.step(optimizer)
    scaler.update()  # what was refused has changed nothing
    assert scaler.get_scale() == 2.0**16


def test_any_order_of_calls_is_torchs() -> None:
    """Two optimizers, gradients good and bad, and calls in the wrong order: the same calls are refused, and nothing else differs."""
    torch = pytest.importorskip("torch")
    loss = [(0, [1.0, 2.0]), (1, [1.0, 3.0]), (0, [np.inf, 1.0]), (1, [np.nan, 1.0])]
    calls = [*loss, *((name, i) for name in ("unscale_", "step") for i in (0, 1)), ("update",), ("update", 4.0)]
    rng = np.random.default_rng(0)
    refused = 0

    def play(scaler: Any, params: list[Any], optimizers: list[Any], tensor: Any, sequence: list[Any]) -> list[Any]:
        told = []
        for name, *rest in sequence:
            failed = False
            try:
                if isinstance(name, int):
                    with np.errstate(invalid="ignore"):  # the loss itself may be infinite times 0
                        scaler.scale((params[name] * tensor(*rest)).sum()).backward()
                else:
                    getattr(scaler, name)(*((optimizers[rest[0]],) if name != "update" else rest))
            except (RuntimeError, AssertionError):
                failed = True
            told.append(
                (
                    name,
                    failed,
                    scaler.get_scale(),
                    [[p.detach().numpy().tolist(), p.grad.numpy().tolist()] for p in params if p.grad is not None],
                )
            )
        return told

    for _ in range(200):
        sequence = [*loss[:2], *(calls[i] for i in rng.integers(len(calls), size=12))]
        ours = [nn.Parameter(np.array([1.0, 2.0], np.float32)) for _ in range(2)]
        theirs = [torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2)]
        mine = play(
            optim.GradScaler(8.0, growth_interval=2),
            ours,
            [optim.SGD([p], 0.5) for p in ours],
            lambda v: Tensor(np.array(v, np.float32)),
            sequence,
        )
        other = play(
            torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2),
            theirs,
            [torch.optim.SGD([p], 0.5) for p in theirs],
            lambda v: torch.tensor(v, dtype=torch.float32),
            sequence,
        )
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_equal(a, b)
            refused += a[1]
    assert refused > 200


def test_float16_parameters_are_refused() -> None:
    half = nn.Parameter(np.ones(3, np.float16))
    half.grad = Tensor(np.ones(3, np.float16))
    with pytest.raises(ValueError, match="keep parameters in float32"):
        optim.GradScaler().unscale_(optim.SGD([half], 1.0))


@pytest.mark.parametrize(
    "settings", [{"init_scale": 0.0}, {"init_scale": np.inf}, {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"growth_interval": 0}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"GradScaler: {next(iter(settings))} must"):
        optim.GradScaler(**settings)


class Waiting:
    """An array without axes that counts how often somebody reads it."""

    reads = 0

    def __rand__(self, other: Any) -> Waiting:
        return self

    __and__ = __rand__

    def __bool__(self) -> bool:
        Waiting.reads += 1
        return True


def test_one_value_comes_down_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernels, "all_finite", lambda self, x: Waiting())
    monkeypatch.setattr(Waiting, "reads", 0)
    params, scaler = parameters(5), optim.GradScaler()
    optimizer = optim.SGD(params, 0.1)
    for step in range(1, 4):
        give(params, step)
        scaler.unscale_(optimizer)
        assert Waiting.reads == step - 1
        scaler.step(optimizer)
        scaler.update()
        assert Waiting.reads == step
    give(params, 9)
    scaler.unscale_(optimizer, finite=True)  # who knows it already is not asked
    scaler.step(optimizer)
    assert Waiting.reads == 3
