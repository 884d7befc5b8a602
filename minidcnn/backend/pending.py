"""Errors that only the device knows of yet.

Asking a GPU whether a label is wrong would wait for everything launched before. So the answer stays there, as a number, and is looked at
when a value is read anyway: `to_backend(array, "numpy")`, Tensor.item() and Tensor.numpy() call `raise_pending`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .arrays import Array

Check: TypeAlias = tuple[Array, Callable[[int], Exception]]  # an integer on the device, at least 0 if something is wrong; error(integer)

MOST = 64  # who never reads a value waits once in so many checks, and is told then

_pending: list[Check] = []
_collecting: list[list[Check]] = []


def defer(wrong: Array, error: Callable[[int], Exception]) -> None:
    """Raise error(i) later if the 0-d integer array `wrong` holds i >= 0."""
    if _collecting:
        _collecting[-1].append((wrong, error))
        return
    _pending.append((wrong, error))
    if len(_pending) > MOST:
        raise_pending()


def raise_pending() -> None:
    """Look at all that is pending; raise the first error found and forget the others, which may follow from it."""
    checks = _pending[:]
    _pending.clear()
    for wrong, error in checks:
        at = int(wrong)
        if at >= 0:
            raise error(at)


@contextlib.contextmanager
def collected() -> Iterator[list[Check]]:
    """Within a `with` block, checks go into the list that it gives: for work that is only recorded, and launched later."""
    checks: list[Check] = []
    _collecting.append(checks)
    try:
        yield checks
    finally:
        _collecting.pop()
