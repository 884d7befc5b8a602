"""Settings that every optimizer checks the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..tensor import Tensor


def plain(value: Any) -> Any:
    """`value` with NumPy's numbers, arrays, and tensors of one element, as Python's numbers and lists: settings are saved as JSON."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, Tensor):
        return value.item()
    return value.tolist() if hasattr(value, "tolist") else value


def iterated(name: str, params: Any) -> list[Any]:
    """The members of an iterable. TypeError for anything else, and for a set: states are saved, and norms summed, in the order given."""
    if isinstance(params, set | frozenset):
        raise TypeError(f"{name} must have an order, which a {type(params).__name__} has not; pass a list")
    if not isinstance(params, Iterable):
        way = "; pass its .parameters()" if hasattr(params, "parameters") else ""
        raise TypeError(f"{name} must be an iterable of tensors, got {type(params).__name__}{way}")
    return list(params)


def numbers(optimizer: str, group: Mapping[str, Any], *names: str) -> None:
    """TypeError unless the settings `names` are numbers."""
    for name in names:
        if not isinstance(group[name], int | float):
            raise TypeError(f"{optimizer}: {name} must be a number, got {group[name]!r}")


def number(value: Any, name: str, least: float = -math.inf) -> None:
    """TypeError unless `value` is a number, ValueError unless it is at least `least`."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not value >= least:
        raise ValueError(f"{name} must be {'a number' if least == -math.inf else f'at least {least:g}'}, got {value}")


def not_negative(optimizer: str, group: Mapping[str, Any], *names: str) -> None:
    """TypeError unless the settings `names` are numbers, ValueError unless they are >= 0 (NaN is not)."""
    numbers(optimizer, group, *names)
    for name in names:
        if not group[name] >= 0:
            raise ValueError(f"{optimizer}: {name} must not be negative, got {group[name]}")


def complete(name: str, state: Any, *keys: str) -> None:
    """ValueError unless `state` is a dict with all of `keys`."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{name}: the state must be a dict, as state_dict() returns, got {type(state).__name__}")
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"{name}: the state lacks {', '.join(missing)}; pass what state_dict() returned, got keys {', '.join(map(str, state)) or 'none'}"
        )
