"""One pool of threads for all kernels, and BLAS limited to one thread while they share the work.

Results do not depend on the number of threads: work is split where parts are independent, and sums are split by shape alone.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

VARIABLE = "MINIDCNN_NUM_THREADS"
WORTH = 1 << 17  # numbers to go through, about 0.1 ms, that are worth a part of their own: to wake a thread takes nearly as long
MULTIPLY_ADDS = 32  # of a product, in the time of one number

_lock = threading.Lock()
_count: int | None = None
_calls: SimpleQueue[Callable[[], object] | None] | None = None  # for help, to the threads of the pool; None sends one home


class _Here(threading.local):
    busy = False  # whether this thread runs a part of some work: what it splits further, it does alone


_here = _Here()


def num_threads() -> int:
    """Threads that kernels use: as set by set_num_threads, else MINIDCNN_NUM_THREADS, else all processors that this process may use."""
    global _count
    if _count is None:
        text = os.environ.get(VARIABLE, "").strip()
        if text and (not text.isdecimal() or int(text) < 1):
            raise ValueError(f"{VARIABLE} must be a whole number of threads, at least 1, got {text!r}; unset it to use all processors")
        _count = int(text) if text else _processors()
    return _count


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on. ValueError if it is below 1."""
    global _count, _calls
    if count < 1:
        raise ValueError(f"set_num_threads: count must be at least 1, got {count}")
    with _lock:
        before, calls, _calls, _count = _count, _calls, None, count
    if calls is not None:
        for _ in range((before or 1) - 1):
            calls.put(None)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1


def parallel(work: Callable[[int, int], object], count: int, each: float = WORTH) -> None:
    """Call work(start, stop) over ranges that cover range(count), in several threads at once; parts must be independent.

    `each`: what an item costs, in numbers that a plain loop goes through meanwhile; small work is not split. The calling thread takes
    part, and threads of the pool that come late are not waited for, so calls may come from many threads at once. Work split inside a part
    runs in that part's thread.
    """
    threads = 1 if _here.busy else num_threads()
    parts = min(4 * threads, count, int(count * each / WORTH))  # four each: a thread that is interrupted is overtaken
    if threads == 1 or parts <= 1:
        if count:
            work(0, count)
        return
    _Job(work, count, parts).run(min(threads, parts) - 1)


class _Job:
    """The parts of some work, taken by whoever comes, and the errors of those who came."""

    def __init__(self, work: Callable[[int, int], object], count: int, parts: int) -> None:
        self.work = work
        self.todo = deque(itertools.pairwise([i * count // parts for i in range(parts + 1)]))
        self.door, self.closed, self.helpers = threading.Condition(threading.Lock()), False, 0
        self.error: BaseException | None = None

    def call_for_help(self, count: int) -> None:
        context = contextvars.copy_context()  # np.errstate holds in all threads
        calls = _pool()
        for _ in range(count):
            calls.put(lambda: context.copy().run(self.help))

    def run(self, helpers: int) -> None:
        """The caller's share; returns when all parts are done. Raises the first error of any part, when nobody works any more."""
        _here.busy = True
        try:
            self.call_for_help(helpers)
            self.share()
        finally:
            _here.busy = False
            self.close()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Let nobody else in and wait until all are gone; Ctrl-C is raised only then, since helpers write to the caller's memory."""
        interrupt: BaseException | None = None
        while not self.closed or self.helpers:
            try:
                self.todo.clear()  # not empty only if the caller was interrupted
                with self.door:
                    self.closed = True
                    while self.helpers:
                        self.door.wait()
            except BaseException as error:
                interrupt = error
        del self.work  # it holds arrays, and helpers who are busy elsewhere hold the job until they find it closed
        if interrupt is not None:
            raise interrupt

    def help(self) -> None:
        """A helper's share, if it does not come too late."""
        with self.door:
            if self.closed:
                return
            self.helpers += 1
        try:
            self.share()
        except BaseException as error:
            self.error = self.error or error
        finally:
            with self.door:
                self.helpers -= 1
                if self.helpers == 0:
                    self.door.notify_all()

    def share(self) -> None:
        """Do parts until none is left."""
        try:
            while True:
                try:
                    start, stop = self.todo.popleft()
                except IndexError:
                    return
                self.work(start, stop)
        except BaseException:
            self.todo.clear()
            raise


def _pool() -> SimpleQueue[Callable[[], object] | None]:
    """The queue on which the pool's threads wait; they are started at the first call, fewer where the system gives no more."""
    global _calls
    with _lock:
        if _calls is None:
            _calls = SimpleQueue()
            with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter is shutting down: callers do it all
                for i in range(num_threads() - 1):
                    threading.Thread(target=_wait, args=(_calls,), name=f"minidcnn_{i}", daemon=True).start()
        return _calls


def _wait(calls: SimpleQueue[Callable[[], object] | None]) -> None:
    """The life of a thread of the pool."""
    _here.busy = True
    while (call := calls.get()) is not None:
        call()
        del call  # it holds arrays


# -- BLAS --------------------------------------------------------------------------------------------------------------------------

_limits = threading.Lock()
_users = 0
_libraries: list[Any] | None = None
_before: list[int] = []


@contextlib.contextmanager
def single_blas() -> Iterator[None]:
    """Within the `with` block, products run on one BLAS thread each, in the whole process; the last to leave restores what was set."""
    global _users, _libraries, _before
    with _limits:
        if _libraries is None:
            from threadpoolctl import ThreadpoolController

            _libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        if _users == 0:
            _before = [library.num_threads for library in _libraries]
            for library in _libraries:
                library.set_num_threads(1)
        _users += 1
    try:
        yield
    finally:
        with _limits:
            _users -= 1
            if _users == 0:
                for library, count in zip(_libraries, _before, strict=True):
                    library.set_num_threads(count)


def _after_fork() -> None:
    """The child of a fork has none of its parent's threads, and locks in whatever state they were."""
    global _lock, _limits, _calls, _users
    if _users and _libraries is not None:
        for library, count in zip(_libraries, _before, strict=True):
            library.set_num_threads(count)
    _lock, _limits, _calls, _users = threading.Lock(), threading.Lock(), None, 0
    _here.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
