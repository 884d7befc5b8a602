"""The threads of the CPU kernels: the same bits with any number of them, errors, interrupts, forks and the environment."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import numpy as np
import pytest
from cpu_kernels import CPU, laid_out, python

from minidcnn.backend.cpu import threads
from minidcnn.backend.rules import AdamRule, SgdRule
from minidcnn.window import Window


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def everything(rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """(name, result) of each kernel, on arrays that are split among threads, with real rounding errors."""

    def images(*shape: int) -> np.ndarray:
        return laid_out(rng.standard_normal(shape, dtype="f4"), "channels-last")

    for c, o, window, size in (
        (24, 40, Window((3, 3), padding=(1, 1)), (50, 61)),
        (200, 160, Window((3, 3), padding=(1, 1)), (17, 20)),
        (24, 40, Window((3, 2), (2, 1), (1, 1)), (50, 61)),
        (12, 24, Window((2, 2), (2, 2)), (64, 40)),
        (600, 250, Window((3, 3), padding=(1, 1)), (7, 5)),
        (40, 300, Window((1, 1)), (20, 30)),
    ):
        out = window.positions(size)
        x, y, w = images(2, c, *size), images(2, o, *out), rng.standard_normal((o, c, *window.kernel), dtype="f4")
        yield "conv2d", CPU.conv2d(x, w, None, window, out)
        scale, offset = rng.standard_normal((2, o), dtype="f4")
        yield "conv2d_affine", CPU.conv2d_affine(x, w, scale, offset, True, window, out)
        yield "conv_transpose2d", CPU.conv_transpose2d(y, w, None, window, size)
        yield "conv2d_weight", CPU.conv2d_weight(x, y, window)
        cols = CPU.im2col(x, window, out)
        yield "im2col", cols
        yield "col2im", CPU.col2im(cols, window, size)
    window, x = Window((3, 2), (2, 2), (1, 0)), images(2, 30, 80, 60)
    out = window.positions((80, 60))
    best, taps = CPU.max_pool2d(x, window, out)
    g, weight = images(2, 30, *out), rng.random(out, dtype="f4")
    indices = CPU.plane_indices(taps, window, (80, 60))
    yield from (("max_pool2d", best), ("max_pool2d", taps), ("plane_indices", indices))
    yield from (("pool_gather", CPU.pool_gather(x, taps, window)), ("pool_scatter", CPU.pool_scatter(g, taps, window, (80, 60))))
    yield from (("gather", CPU.gather(x, indices)), ("scatter", CPU.scatter(g, indices, (80, 60))))
    yield "avg_pool2d", CPU.avg_pool2d(x, window, weight)
    yield "avg_pool2d_adjoint", CPU.avg_pool2d_adjoint(g, window, weight, (80, 60))
    yield from (("sum", CPU.sum(x, (0, 2, 3))), ("sum", CPU.sum(x, (0, 1, 2, 3))))
    yield "concatenate", CPU.concatenate([x, x], 1)
    yield "channels", CPU.channels(x, 1, 2)
    mean, variance = CPU.batch_norm_stats(x)
    of_class = rng.standard_normal(30, dtype="f4")
    yield from (("batch_norm_stats", mean), ("batch_norm_stats", variance))
    yield "batch_norm_track", CPU.batch_norm_track(mean, variance, 7, 0.1, 0.1, mean.copy(), mean.copy())
    yield "batch_norm_apply", CPU.batch_norm_apply(x, mean, 1 / variance, of_class, of_class)
    yield from (("batch_norm_grad", v) for v in CPU.batch_norm_grad(x * x, x, mean, 1 / variance, of_class))
    losses, top, logs = CPU.cross_entropy(x, taps_of(x), of_class, 0.1)
    yield from (("cross_entropy", losses), ("cross_entropy", logs))
    yield "cross_entropy_grad", CPU.cross_entropy_grad(losses, x, top, logs, taps_of(x), of_class, 0.1)
    p, state, square = images(300, 40, 7, 5), images(300, 40, 7, 5), np.abs(images(300, 40, 7, 5))
    CPU.sgd_step(p, square, state, False, SgdRule(0.1, 0.9, 0.0, 0.1))
    yield from (("sgd_step", p.copy()), ("sgd_step", state.copy()))
    CPU.adam_step(p, p * 2, state, square, None, 2, AdamRule(0.1, 0.9, 0.99, 1e-3, 0.1, True))
    yield from (("adam_step", p), ("adam_step", state), ("adam_step", square))
    yield from (("power_sum", CPU.power_sum([p, losses, state[:3], square, of_class], power)) for power in (1.0, 2.0, np.inf))
    yield from (("relu", CPU.relu(x)), ("relu_grad", CPU.relu_grad(x[:1], best[:1].mean() * x[:1])))


def taps_of(x: np.ndarray) -> np.ndarray:
    """A class for each pixel."""
    return x.argmax(1)


@pytest.mark.usefixtures("restore_threads")
def test_the_same_bits_with_any_number_of_threads_and_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 3 and 7 threads, each twice, and parts that are much smaller than they would be: work is cut by shape alone."""
    monkeypatch.setattr(threads, "WORTH", 1 << 10)
    first: list[tuple[str, np.ndarray]] = []
    for count in (1, 2, 3, 7, 2, 1):
        threads.set_num_threads(count)
        results = list(everything(np.random.default_rng(7)))
        first = first or results
        for (name, got), (_, expected) in zip(results, first, strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=f"{name} with {count} threads")


def test_kernels_may_be_called_from_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH", 1 << 10)
    expected = list(everything(np.random.default_rng(3)))
    failures: list[str] = []

    def run() -> None:
        for (name, got), (_, right) in zip(everything(np.random.default_rng(3)), expected, strict=True):
            if not np.array_equal(got, right):
                failures.append(name)

    callers = [threading.Thread(target=run) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_the_first_calls_of_a_process_may_come_from_several_threads_at_once() -> None:
    """They import numba, some by way of one of its modules and some by way of another."""
    code = (
        "import threading\nfrom minidcnn.window import Window\nx, w, window = np.ones((1, 8, 40, 40), 'f4'), np.ones((8, 8, 3, 3), 'f4'), Window((3, 3))\n"
        "k, gate, done = kernels(), threading.Barrier(4), []\n"
        "def run(i):\n    gate.wait()\n    y = k.conv2d(x, w, None, window, (38, 38)) if i % 2 else k.im2col(x, window, (38, 38))\n    done.append(y.shape)\n"
        "callers = [threading.Thread(target=run, args=(i,)) for i in range(4)]\nfor t in callers: t.start()\nfor t in callers: t.join()\nprint(len(done))"
    )
    ran = python(code)
    assert ran.stdout.strip() == "4", ran.stderr


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parallel_covers_the_range_once(count: int) -> None:
    threads.set_num_threads(count)
    for total in (0, 1, 5, 1000):
        seen: list[int] = []
        threads.parallel(lambda a, b: seen.extend(range(a, b)), total)  # noqa: B023
        assert sorted(seen) == list(range(total))


@pytest.mark.usefixtures("restore_threads")
def test_an_error_in_a_part_reaches_the_caller() -> None:
    threads.set_num_threads(3)

    def work(start: int, stop: int) -> None:
        raise RuntimeError(f"part {start}")

    with pytest.raises(RuntimeError, match="part"):
        threads.parallel(work, 100)


@pytest.mark.usefixtures("restore_threads")
def test_an_error_in_another_thread_reaches_the_caller_and_the_pool_goes_on() -> None:
    threads.set_num_threads(2)
    main, seen = threading.get_ident(), threading.Event()

    def work(start: int, stop: int) -> None:
        if threading.get_ident() != main:
            seen.set()
            raise FloatingPointError("in a helper")
        seen.wait(60)

    for _ in range(2):
        seen.clear()
        with pytest.raises(FloatingPointError, match="in a helper"):
            threads.parallel(work, 2)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="nothing interrupts a thread that waits")
@pytest.mark.usefixtures("restore_threads")
def test_an_interrupt_waits_for_the_threads_that_write_to_the_callers_memory() -> None:
    threads.set_num_threads(2)
    main, inside, interrupted, done = threading.main_thread(), threading.Event(), threading.Event(), threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def work(start: int, stop: int) -> None:
        if threading.current_thread() is main:
            inside.wait(60)
            return
        inside.set()
        time.sleep(0.1)  # the caller has nothing left to do and waits
        signal.pthread_kill(main.ident or 0, signal.SIGINT)
        interrupted.wait(60)
        time.sleep(0.1)
        done.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.parallel(work, 2)
        assert interrupted.is_set() and done.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("restore_threads")
def test_nobody_goes_on_for_a_caller_who_was_interrupted_while_calling_for_help(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.set_num_threads(2)
    calls: list[Callable[[], object]] = []

    class Interrupted:
        def put(self, call: Callable[[], object]) -> None:
            calls.append(call)
            raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_pool", Interrupted)
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        threads.parallel(lambda a, b: seen.append(a), 4)
    for call in calls:
        call()
    assert len(calls) == 1 and not seen


@pytest.mark.usefixtures("restore_threads")
def test_threads_that_come_late_hold_no_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.set_num_threads(2)
    late: SimpleQueue[Callable[[], object]] = SimpleQueue()  # nobody comes
    monkeypatch.setattr(threads, "_pool", lambda: late)
    array = np.ones(4)
    held = weakref.ref(array)
    threads.parallel(lambda a, b, array=array: array[a:b].sum(), 4)
    del array
    assert held() is None and late.qsize() == 1
    late.get()()


@pytest.mark.usefixtures("restore_threads")
def test_settings_of_numpy_hold_in_all_threads() -> None:
    threads.set_num_threads(2)
    main, seen = threading.get_ident(), threading.Event()
    settings: list[str] = []

    def work(start: int, stop: int) -> None:
        settings.append(np.geterr()["divide"])
        if threading.get_ident() != main:
            seen.set()
        seen.wait(60)

    with np.errstate(divide="call"):
        threads.parallel(work, 2)
    assert seen.is_set() and settings == ["call"] * 2


@pytest.mark.usefixtures("restore_threads")
def test_small_work_is_not_split() -> None:
    threads.set_num_threads(2)
    for count, each, parts in (
        (100, 1, 1),
        (100, threads.WORTH / 100, 1),
        (100, threads.WORTH / 50, 2),
        (3, threads.WORTH, 3),
        (10**6, 1e6, 8),
    ):
        seen: list[tuple[int, int]] = []
        threads.parallel(lambda a, b: seen.append((a, b)), count, each)  # noqa: B023
        assert len(seen) == parts, (count, each)


@pytest.mark.usefixtures("restore_threads")
def test_threads_of_a_pool_that_is_replaced_go_home() -> None:
    for count in (4, 2, 3):
        threads.set_num_threads(count)
        threads.parallel(lambda a, b: None, 100)
    threads.set_num_threads(1)
    pool = [t for t in threading.enumerate() if t.name.startswith("minidcnn")]
    for thread in pool:
        thread.join(60)
    assert not any(thread.is_alive() for thread in pool)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_has_threads_of_its_own() -> None:
    code = (
        "import os\nthreads.set_num_threads(2)\nthreads.parallel(lambda a, b: None, 100)\nchild = os.fork()\nseen = []\n"
        "threads.parallel(lambda a, b: seen.extend(range(a, b)), 100)\nassert sorted(seen) == list(range(100))\n"
        "if child == 0: os._exit(0)\nprint(os.waitpid(child, 0)[1])"
    )
    assert python(code).stdout.strip() == "0"


def test_the_environment_sets_the_number_of_threads() -> None:
    code = "import threading\nkernels().relu(np.ones((2, 64, 99, 99), 'f4'))\nprint(threads.num_threads(), threading.active_count())"
    assert python(code, MINIDCNN_NUM_THREADS="1").stdout.split() == ["1", "1"]
    assert python(code, MINIDCNN_NUM_THREADS="3").stdout.split() == ["3", "3"]
    for wrong in ("0", "two", "-1"):
        message = f"MINIDCNN_NUM_THREADS must be a whole number of threads, at least 1, got '{wrong}'"
        assert message in python(code, MINIDCNN_NUM_THREADS=wrong).stderr


def test_without_a_variable_it_is_all_that_the_process_may_use() -> None:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert python("print(threads.num_threads())").stdout.strip() == str(count)


def test_set_num_threads_needs_at_least_one() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        threads.set_num_threads(0)
