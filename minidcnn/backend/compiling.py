"""Who waits should know why: kernels are compiled when they first run on a machine, which takes from seconds to half a minute.

The library says nothing by itself. Programs that people watch listen here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

LONG = 0.5  # seconds: what is found in a cache takes less

_listeners: list[Callable[[], object]] = []


@contextlib.contextmanager
def on_compile(listener: Callable[[], object]) -> Iterator[None]:
    """Within it, listener() is called for each kernel that is compiled and not found in a cache, from whichever thread compiles it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell() -> None:
    """A kernel is about to be compiled."""
    for listener in _listeners:
        listener()


@contextlib.contextmanager
def told_if_long() -> Iterator[None]:
    """Around the loading of a kernel by a library that does not say whether it compiles: told if it takes long."""
    if not _listeners:
        yield
        return
    timer = threading.Timer(LONG, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
