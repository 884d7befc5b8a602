"""Hooks of modules, and what takes them away again."""

from __future__ import annotations

from typing import Any, Self


class Handle:
    """What registering a hook returns; `remove()` takes the hook away again. Also a context manager that does so at its end."""

    def __init__(self, hooks: dict[Handle, Any], hook: Any) -> None:
        self._hooks = hooks
        hooks[self] = hook

    def remove(self) -> None:
        self._hooks.pop(self, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
