"""What looking at a network, or computing it again, must not change: random numbers, statistics, and what others watch."""

from __future__ import annotations

import numpy as np

from minidcnn import Tensor, nn, no_grad
from minidcnn import functional as F
from minidcnn.backend import random_state
from minidcnn.tensor import watch


class Noisy(nn.Module):
    """Draws in eval mode too, as networks do whose dropout estimates how sure they are."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


def test_a_summary_draws_no_random_numbers() -> None:
    net, before = nn.Sequential(nn.Conv2d(2, 3, 1), Noisy()), random_state()
    nn.summary(net, (1, 2, 4, 5))
    assert random_state() == before


class Counts(nn.Module):
    """Counts how often it is called, in eval mode too."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", Tensor(np.ones(3)))

    def forward(self, x: Tensor) -> Tensor:
        with no_grad():
            self.seen += 1
        return x * 2


def test_a_summary_does_not_disturb_a_backward_pass_that_is_still_to_come() -> None:
    counts, x = Counts(), Tensor(np.full((2, 3), 5.0), requires_grad=True)
    y = F.sum(x * counts.seen)
    nn.summary(counts, (2, 3))
    y.backward()
    assert x.grad is not None and (x.grad.numpy() == 1).all() and counts.seen.numpy().tolist() == [1, 1, 1]


def test_a_checkpoint_computed_again_does_not_disturb_one_either() -> None:
    counts, x = Counts(), Tensor(np.full((2, 3), 5.0), requires_grad=True)
    y = F.sum(F.checkpoint(counts, x) * counts.seen)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None and (x.grad.numpy() == 2 * 2 * 2).all() and counts.seen.numpy().tolist() == [2, 2, 2]


def test_a_checkpoint_within_one_moves_the_statistics_once() -> None:
    """What the inner one changes in place is the outer one's to put back."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    plain, nested = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    plain(Tensor(x))
    t = Tensor(x, requires_grad=True)
    y = F.checkpoint(lambda a: F.checkpoint(lambda b: nested(b) * b, a) + a, t)
    F.sum(y).backward()
    for name, buffer in plain.named_buffers():
        np.testing.assert_array_equal(getattr(nested, name).numpy(), buffer.numpy(), err_msg=name)


def test_whoever_watches_learns_of_changes_within_a_checkpoint_and_not_of_those_made_again() -> None:
    norm, x = nn.BatchNorm2d(3).double(), Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 5)), requires_grad=True)
    outer = watch.changed
    heard: list[Tensor] = []
    watch.changed = heard
    try:
        y = F.checkpoint(norm, x)
        changed = {id(t) for t in heard}
        assert {id(t) for t in norm.buffers()} <= changed and watch.changed is heard
        F.sum(y * y).backward()
        assert watch.changed is heard and not {id(t) for t in norm.buffers()} & {id(t) for t in heard[len(changed) :]}
    finally:
        watch.changed = outer
