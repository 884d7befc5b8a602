"""What a run tells while it goes on: a bar where a person watches, and one line per epoch everywhere."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from ..backend import exhausted
from ..backend.compiling import on_compile

_BAR = "{desc} {percentage:3.0f}%|{bar}|"


def on_terminal() -> bool:
    """Whether stderr is a terminal. A program without a console has none, and some streams cannot tell."""
    return bool(getattr(sys.stderr, "isatty", bool)())


class Progress:
    """A bar over all steps of a run with loss, images per second and time left, on stderr; quiet when that is no terminal.

    total: steps of the whole run; done: those that an earlier session did. A context manager.
    """

    def __init__(self, total: int, done: int = 0, *, shown: bool | None = None) -> None:
        from tqdm import tqdm

        self.total, self.first, self.done = total, done, done
        self.started = self.after_first = time.perf_counter()
        self.images, self.seconds = 0, 0.0  # of training steps, without validation
        self.shown = on_terminal() if shown is None else shown
        self.bar: Any = tqdm(
            total=total, initial=done, disable=not self.shown, leave=False, dynamic_ncols=True, file=sys.stderr, bar_format=_BAR
        )

    def step(self, epoch: str, loss: float, images: int, seconds: float) -> None:
        """One more step is done: of so many images, in so many seconds."""
        self.done += 1
        if self.done == self.first + 1:
            self.after_first = time.perf_counter()
        self.images += images
        self.seconds += seconds
        self.bar.set_description_str(epoch, refresh=False)
        self._set(f"loss {loss:.3f}, {self.speed}{self._left()}")
        self.bar.update()

    def validating(self, epoch: str, done: int, total: int) -> None:
        """So many of the images held out are predicted."""
        self.bar.set_description_str(epoch, refresh=False)
        self.tell(f"validating {done}/{total}{self._left()}")

    def tell(self, what: str) -> None:
        """Show at once what goes on between steps."""
        self._set(what)
        self.bar.refresh()

    def _set(self, what: str) -> None:
        self.bar.bar_format = f"{_BAR} {what}"  # tqdm puts a comma before a postfix

    def _left(self) -> str:
        """Nothing after the last step: what is left then takes time, too, but nobody knows how much."""
        return f", {clock(self.left)} left" if self.done < self.total else ""

    @property
    def speed(self) -> str:
        rate = self.images / self.seconds if self.seconds > 0 else 0.0
        return f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s"

    @property
    def left(self) -> float:
        """Seconds to the end at the speed so far, validation included; the first step, which may compile kernels, counts only if it is alone."""
        steps = self.done - self.first
        begun, steps = (self.after_first, steps - 1) if steps > 1 else (self.started, steps)
        return (time.perf_counter() - begun) / steps * (self.total - self.done) if steps else 0.0

    def say(self, text: str) -> None:
        """A line on stdout that stays, above the bar."""
        self._above(text, sys.stdout)

    def warn(self, text: str) -> None:
        """A warning on stderr."""
        self._above(f"warning: {text}", sys.stderr)

    def _above(self, text: str, stream: TextIO) -> None:
        if self.shown:
            self.bar.clear()
        print(text, file=stream, flush=True)
        if self.shown:
            self.bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


@contextlib.contextmanager
def compiling_said(shown: bool | None = None) -> Iterator[None]:
    """Within it, a line on stderr says so when the first kernel must be compiled: a bar that stands still looks broken. Quiet as the bar is."""
    from tqdm import tqdm

    said = not (on_terminal() if shown is None else shown)

    def say() -> None:
        nonlocal said
        if not said:
            said = True
            tqdm.write("compiling kernels: up to half a minute, in the first run on a machine", file=sys.stderr)

    with on_compile(say):
        yield


def sentence(error: BaseException) -> str:
    """What an error says to a user: how much memory was missing, of which file the system complains, or its own words."""
    if isinstance(error, MemoryError):
        return f"out of memory ({exhausted(error)})"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)


def any_name_printable() -> None:
    """Names of files and classes are printed also where the output cannot hold all characters: as \\u9053 instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clock(seconds: float) -> str:
    """75 -> "1:15", 3700 -> "1:01:40"."""
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
