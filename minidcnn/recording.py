"""Whether functions record the graph that the backward pass walks: switched in each thread for itself."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether functions record a graph in this thread."""
    return _mode.enabled


class Recording(contextlib.ContextDecorator, threading.local):
    """Recording switched on or off, within `with` blocks of any number and depth or in decorated functions, of each thread for itself."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.before: list[bool] = []

    def __enter__(self) -> None:
        self.before.append(_mode.enabled)
        _mode.enabled = self.enabled

    def __exit__(self, *_: object) -> None:
        if self.before:  # not so where a generator was entered in another thread, or is thrown away there
            _mode.enabled = self.before.pop()

    def __call__(self, function: F) -> F:
        """`function` with recording switched while it runs; of a generator function each step, so that its caller is not switched.

        TypeError for an async function, which lets others run in its middle.
        """
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{'enable_grad' if self.enabled else 'no_grad'}: {function.__name__} is async, so others run in its middle; write "
                f"`with` around what it computes between two awaits"
            )
        if not inspect.isgeneratorfunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            go_on, value = generator.send, None
            while True:
                try:
                    with self:
                        result = go_on(value)
                except StopIteration as end:
                    return end.value
                finally:
                    value = None  # an error that goes on holds this frame, which must not hold it
                try:
                    go_on, value = generator.send, (yield result)
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:
                    go_on, value = generator.throw, error

        return steps  # type: ignore[return-value]


def no_grad() -> Recording:
    """Within `with no_grad():` (or a function decorated by `@no_grad()`) nothing is recorded and no memory is kept for gradients."""
    return Recording(False)


def enable_grad() -> Recording:
    """Record again, inside no_grad()."""
    return Recording(True)
