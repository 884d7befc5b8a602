"""Modules that run one after the other, some of them together in one pass over memory: what they compute is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .activation import ReLU
from .module import Module
from .norm import BatchNorm2d


def run(modules: Sequence[Module], x: Any) -> Any:
    """The modules in turn; batch norm and a ReLU behind it together, unless somebody watches them by hooks."""
    at = 0
    while at < len(modules):
        module = modules[at]
        if _follow(modules, at, BatchNorm2d, ReLU):
            x, at = module(x, relu=True), at + 2
        else:
            x, at = module(x), at + 1
    return x


def _follow(modules: Sequence[Module], at: int, *types: type[Module]) -> bool:
    """Whether modules of exactly these types stand from `at` on, without hooks."""
    found = modules[at : at + len(types)]
    return len(found) == len(types) and all(type(m) is t and not m._hooks and not m._pre_hooks for m, t in zip(found, types, strict=True))
