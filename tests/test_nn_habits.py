"""What who comes from PyTorch does with modules beside the usual."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn, no_grad


def images(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


# -- a forward set on a layer ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("at", range(6))
def test_a_forward_set_on_a_layer_runs_with_and_without_gradients(at: int, training: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, (1, 3)), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    network.train(training)
    x = images(2, 2, 5, 6)
    before = network(x).numpy()
    usual = network[at].forward
    network[at].forward = lambda x: -usual(x)
    with no_grad():
        without = network(x).numpy()
    np.testing.assert_allclose(without, network(x).numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(without - before).max() > 0.1
    del network[at].forward
    with no_grad():
        np.testing.assert_allclose(network(x).numpy(), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU])
def test_a_forward_set_on_a_class_runs_with_and_without_gradients(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, usual = nn.Sequential(nn.Conv2d(2, 3, (1, 3)), nn.BatchNorm2d(3), nn.ReLU()).eval(), images(2, 2, 5, 6), kind.forward
    runs: list[nn.Module] = []

    def watched(module: nn.Module, input: Tensor, *more: Any, **named: Any) -> Any:
        runs.append(module)
        return usual(module, input, *more, **named)

    monkeypatch.setattr(kind, "forward", watched)
    network(x)
    with no_grad():
        network(x)
    assert runs == [m for m in network if type(m) is kind] * 2


# -- hooks -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_removing_a_hook_twice_leaves_the_others(register: str) -> None:
    layer, log = nn.Identity(), ""

    def hook(letter: str) -> Any:
        def add(*_: Any) -> None:
            nonlocal log
            log += letter

        return getattr(layer, register)(add)

    a, b = hook("a"), hook("b")
    b.remove()
    with hook("c") as c:
        b.remove()
        layer(images(1))
        c.remove()
    d = hook("d")
    c.remove()
    layer(images(1))
    assert log == "acad"
    for other in (copy.deepcopy(layer), layer):
        a.remove()
        other(images(1))
    assert log == "acadadd"  # the copy has hooks of its own
    d.remove()
    layer(images(1))
    assert log == "acadadd"


def _kept(module: nn.Module, inputs: Any, output: Any) -> None:
    raise RuntimeError("the hook runs")


def test_hooks_go_with_a_pickle() -> None:
    layer = nn.Identity()
    layer.register_forward_hook(_kept)
    with pytest.raises(RuntimeError, match="the hook runs"):
        pickle.loads(pickle.dumps(layer))(images(1))  # noqa: S301  # our own


# -- gradients and moves -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_forgets_gradients_or_fills_them_with_zeros(set_to_none: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, (1, 3)), nn.BatchNorm2d(3))
    network[0].requires_grad_(False)
    network(images(2, 2, 5, 6)).sum().backward()
    network.zero_grad(set_to_none=set_to_none)
    gradients = [p.grad for p in network.parameters()]
    assert gradients[:2] == [None, None]
    if set_to_none:
        assert gradients[2:] == [None, None]
    else:
        assert all(not g.numpy().any() and g.shape == (3,) and g.dtype == np.float32 for g in gradients[2:])  # type: ignore[union-attr]


def test_a_move_that_changes_nothing_leaves_the_graph_as_it_is() -> None:
    layer = nn.Linear(3, 2)
    result = layer(images(4, 3)).sum()
    layer.to("float32").to("numpy")
    result.backward()
    assert layer.weight.grad is not None
    result = layer(images(4, 3)).sum()
    layer.double()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == np.float64
    with pytest.raises(RuntimeError, match="was changed in place after the forward pass"):
        result.backward()


def test_values_that_numpy_does_not_take_are_named() -> None:
    class Foreign:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("it requires grad")

    with pytest.raises(
        TypeError, match=r"^load_state_dict: weight is no array that NumPy can take \(it requires grad\); convert it first$"
    ):
        nn.Linear(3, 2).load_state_dict({"bias": np.zeros(2), "weight": Foreign()})


def test_the_names_of_a_module_that_holds_itself_have_no_end() -> None:
    for at in range(3):
        network = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 3)))
        part = [network, network[1], network[1][0]][at]
        part.parent = network
        assert len(list(network.parameters())) == 2 and len(list(network.modules())) == 4
        with pytest.raises(
            RecursionError, match=rf"^Sequential: {('', '1.', '1.0.')[at]}parent is a module that holds it; keep such a one in a list"
        ):
            list(itertools.islice(network.named_state(), 100))  # what state_dict() collects; without end it would fill the memory
        del part.parent
        part.parent = [network]
        assert list(network.state_dict()) == ["1.0.weight", "1.0.bias"]
    network.append(network[1])  # the same part twice is no ring
    assert len(network.state_dict()) == 4
