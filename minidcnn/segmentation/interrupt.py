"""Ctrl-C that asks rather than breaks off: the step is finished and the state is saved first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any


class Stopped(Exception):  # no error
    """Somebody asked the run to stop; everything done so far is saved."""


class Interrupt:
    """Within a `with` block, Ctrl-C (and SIGTERM, which a batch system sends) sets `asked` and says so; the second one breaks off at once.

    Outside of the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with contextlib.suppress(OSError):  # print may be at work itself, and stderr closed
            os.write(
                2, b"\n" * os.isatty(2) + b"stopping: this step is finished and the state saved first; Ctrl-C again breaks off at once\n"
            )

    def check(self) -> None:
        """Raise Stopped if somebody asked for it."""
        if self.asked:
            raise Stopped

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # as a script's background processes ignore Ctrl-C
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
