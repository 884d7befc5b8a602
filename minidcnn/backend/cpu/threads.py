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
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

VARIABLE = "MINIDCNN_NUM_THREADS"

_lock = threading.Lock()
_count: int | None = None
_pool: ThreadPoolExecutor | None = None


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
    global _count, _pool
    if count < 1:
        raise ValueError(f"set_num_threads: count must be at least 1, got {count}")
    with _lock:
        pool, _pool, _count = _pool, None, count
    if pool is not None:
        pool.shutdown(wait=False)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1


def parallel(work: Callable[[int, int], object], count: int, grain: int = 1) -> None:
    """Call work(start, stop) over ranges that cover range(count), in several threads at once; parts must be independent.

    `grain`: the fewest items worth a part of their own. The calling thread takes part, and threads of the pool that come late are not
    waited for, so calls may come from many threads at once. Work split inside a part runs in that part's thread.
    """
    threads = num_threads()
    parts = min(4 * threads, -(-count // max(grain, 1)))  # four each: a thread that is interrupted is overtaken
    if threads == 1 or parts <= 1 or _here.busy:
        if count:
            work(0, count)
        return
    edges = [i * count // parts for i in range(parts + 1)]
    todo = deque(itertools.pairwise(edges))

    def share() -> None:
        _here.busy = True
        try:
            while True:
                try:
                    start, stop = todo.popleft()
                except IndexError:  # none is left
                    return
                work(start, stop)
        except BaseException:
            todo.clear()
            raise
        finally:
            _here.busy = False

    helpers = _submit(share, min(threads, parts) - 1)
    try:
        share()
    finally:
        for helper in helpers:
            helper.cancel()
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def _submit(share: Callable[[], None], count: int) -> list[Future[None]]:
    """`share` given to `count` threads of the pool, or to fewer: where no thread can be had, the caller does it all."""
    global _pool
    helpers: list[Future[None]] = []
    with _lock, contextlib.suppress(RuntimeError):  # the interpreter is shutting down, or the system gives no more threads
        if _pool is None:
            _pool = ThreadPoolExecutor(num_threads() - 1, "minidcnn")
        for _ in range(count):
            helpers.append(_pool.submit(contextvars.copy_context().run, share))  # np.errstate holds in all threads
    return helpers


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
    global _lock, _limits, _pool, _users
    if _users and _libraries is not None:
        for library, count in zip(_libraries, _before, strict=True):
            library.set_num_threads(count)
    _lock, _limits, _pool, _users = threading.Lock(), threading.Lock(), None, 0
    _here.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
