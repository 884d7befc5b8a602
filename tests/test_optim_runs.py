"""Whole trainings with what happens in them: freezing, shared layers, groups that come later, copies, states there and back; as PyTorch."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn, optim
from minidcnn import functional as F

torch = pytest.importorskip("torch")

FIRST, REST = ["a.weight", "a.bias", "norm.weight", "norm.bias"], ["b.weight", "b.bias", "c.weight", "c.bias"]
KINDS: dict[str, Any] = {
    "sgd": lambda m, groups: m.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda m, groups: m.SGD(groups, lr=0.05, momentum=0.8, nesterov=True),
    "adam": lambda m, groups: m.Adam(groups, lr=0.01, eps=1e-3, weight_decay=0.1),
    "adamw": lambda m, groups: m.AdamW(groups, lr=0.01, eps=1e-3, amsgrad=True),
}
SCHEDULES: dict[str, Any] = {
    "warm-up": lambda m, o: m.LinearLR(o, 0.1, 1.0, 6),
    "poly": lambda m, o: m.PolynomialLR(o, 25, 0.9),
    "step": lambda m, o: m.StepLR(o, 3, 0.5),
    "plateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1, factor=0.5),
}
EVENTS = ["nothing", "freeze", "unfreeze", "late", "copy", "resume", "take torch's", "give torch ours", "rate", "zero", "mode"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the order of its calls
        yield


def network(layers: Any, functional: Any) -> Any:
    """A small network one layer of which is used twice."""

    class Net(layers.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = layers.Conv2d(2, 3, 3, padding=1), layers.BatchNorm2d(3)
            self.b, self.c = layers.Conv2d(3, 3, 1), layers.Conv2d(3, 2, (1, 3))
            self.again = self.b

        def forward(self, x: Any) -> Any:
            return self.c(self.again(functional.relu(self.b(functional.relu(self.norm(self.a(x)))))))

    return Net().double()


class Side:
    """A network, its optimizer and schedules, ours or PyTorch's."""

    def __init__(self, module: Any, kind: str, schedules: list[str], groups: list[list[str]]) -> None:
        self.module, self.kind, self.schedules_of, self.groups = module, kind, schedules, groups
        self.net = network(nn, F) if module is optim else network(torch.nn, torch.nn.functional)
        self.make()

    def named(self) -> dict[str, Any]:
        return dict(self.net.named_parameters())

    def make(self) -> None:
        named = self.named()
        self.optimizer = KINDS[self.kind](self.module, [{"params": [named[n] for n in group]} for group in self.groups])
        self.schedules = [SCHEDULES[name](self.module.lr_scheduler, self.optimizer) for name in self.schedules_of]

    def resume(self, order: np.ndarray) -> None:
        """Everything anew from what was saved, in any order; ours only."""
        state, before = self.optimizer.state_dict(), self.named()
        kept = json.loads(json.dumps([state["param_groups"], [s.state_dict() for s in self.schedules]], allow_nan=False))
        weights, training, self.net = self.net.state_dict(), self.net.training, network(nn, F)
        self.net.load_state_dict(weights)
        self.net.train(training)
        for name, p in self.named().items():
            p.requires_grad_(before[name].requires_grad)
            p.grad = before[name].grad
        self.make()
        for i in order:
            if i:
                self.schedules[i - 1].load_state_dict(kept[1][i - 1])
            else:
                self.optimizer.load_state_dict({"state": state["state"], "param_groups": kept[0]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_a_training_happens_as_in_torch(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    names = [str(name) for name in rng.permutation(list(SCHEDULES))[: rng.integers(0, 4)]]
    groups = [FIRST] if seed % 2 else [FIRST + REST]
    sides = ours, theirs = Side(optim, kind, names, groups), Side(torch.optim, kind, names, groups)
    ours.net.load_state_dict({name: value.numpy() for name, value in theirs.net.state_dict().items()})
    happened = []
    for event in rng.permutation(EVENTS * 2):
        happened.append(str(event))
        chosen, switch = str(rng.choice(FIRST + REST)), bool(rng.integers(2))
        x, metric, order = rng.standard_normal((2, 2, 5, 6)), float(rng.choice([1.0, 2.0, 3.0])), rng.permutation(len(names) + 1)
        if event == "copy":
            ours.net, ours.optimizer, ours.schedules = copy.deepcopy((ours.net, ours.optimizer, ours.schedules))
        elif event == "resume":
            ours.resume(order)
        elif event == "take torch's":
            ours.optimizer.load_state_dict(theirs.optimizer.state_dict())
        elif event == "give torch ours":
            state = ours.optimizer.state_dict()
            tensors = {i: {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()} for i, values in state["state"].items()}
            theirs.optimizer.load_state_dict({"state": tensors, "param_groups": state["param_groups"]})
        for side in sides:
            if event == "freeze":
                side.named()[chosen].requires_grad_(False)
            elif event == "unfreeze":
                side.net.requires_grad_(True)
            elif event == "late" and len(side.groups) == 1 and side.groups[0] == FIRST:
                side.groups = [FIRST, REST]
                side.optimizer.add_param_group({"params": [side.named()[n] for n in REST], "lr": 0.02})
            elif event == "rate":
                side.optimizer.param_groups[-1]["lr"] *= 0.7
            elif event == "mode":
                side.net.train(switch)
            (side.net if switch else side.optimizer).zero_grad(set_to_none=event != "zero")
            if any(p.requires_grad for p in side.net.parameters()):
                (side.net(Tensor(x) if side is ours else torch.tensor(x)) ** 2).mean().backward()
            (optim.clip_grad_norm_ if side is ours else torch.nn.utils.clip_grad_norm_)(side.net.parameters(), 2.0)
            side.optimizer.step()
            for name, schedule in zip(names, side.schedules, strict=True):
                schedule.step(*[metric] * (name == "plateau"))
        for name, value in theirs.net.state_dict().items():
            np.testing.assert_allclose(
                ours.net.state_dict()[name], value.numpy(), rtol=1e-7, atol=1e-10, err_msg=f"{name} after {happened}"
            )
        for g, h in zip(ours.optimizer.param_groups, theirs.optimizer.param_groups, strict=True):
            assert g["lr"] == pytest.approx(h["lr"], rel=1e-11), happened
