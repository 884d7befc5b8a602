"""What only large or rare arguments do in the CPU kernels, and what threads and kept weights do when they meet."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, REFERENCE, both, laid_out, near, python, whole

from minidcnn.backend.cpu import CpuKernels, algorithm, conv, conv_weight, memory, threads, winograd
from minidcnn.backend.cpu.kept import Kept
from minidcnn.backend.cpu.layout import suits
from minidcnn.tensor import Storage
from minidcnn.window import Window


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "gemm")


# -- gradients of a convolution's weight --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize(
    ("window", "c", "out", "n"),
    [
        (Window((3, 2), (2, 1), (2, 1), (1, 3)), 3, (5, 4), 3),
        (Window((2, 4), (1, 3), (1, 4), (3, 2)), 2, (29, 20), 2),  # more pixels than one product takes
        (Window((3, 2), (3, 2), (0, 1), (2, 2)), 517, (4, 3), 2),  # channels in two parts, the second of which is smaller
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_large_weight_sees_each_tap_by_itself(window, c, out, n, dtype, monkeypatch, rng) -> None:
    """Threads share its taps and channels: each tap looks where stride, padding and dilation of its own axis say, through all images."""
    monkeypatch.setattr(conv_weight, "MANY", 1)
    monkeypatch.setattr(conv_weight, "BLOCK", 1)
    size = window.image_size(out)
    x, y = whole(rng, (n, c, *size), dtype, "channels-last"), whole(rng, (n, 5, *out), dtype)
    both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize("window", [Window((3, 2), (1, 1), (1, 0), (1, 2)), Window((2, 3), (2, 3))], ids=["columns", "side by side"])
@pytest.mark.parametrize("out", [(83, 71), (200, 91)], ids=["a block each", "several blocks each"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_partial_sums_hold_every_block_of_pixels_once(window, out, dtype, monkeypatch, rng) -> None:
    """Fewer blocks of pixels than there may be partial sums, and more, of a number that these do not divide."""
    monkeypatch.setattr(conv_weight, "BLOCK", 1)
    x, y = whole(rng, (1, 3, *window.image_size(out)), dtype), whole(rng, (1, 5, *out), dtype)
    both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize("together", [1, 1 << 11])
@pytest.mark.parametrize("c", [16, 5])  # with 5, it is the channels of y that lie along vectors
def test_lines_that_are_read_while_they_are_in_the_cache(together: int, c: int, monkeypatch: pytest.MonkeyPatch, rng) -> None:
    """Each partial sum goes through its lines some at a time, and through all of them."""
    monkeypatch.setattr(conv_weight, "SHORT", 1)
    monkeypatch.setattr(conv_weight, "TOGETHER", together)
    window, out = Window((3, 2), (2, 1), (1, 1)), (31, 9)
    x, y = whole(rng, (2, c, *window.image_size(out)), "f4"), whole(rng, (2, 16, *out), "f4")
    both("conv2d_weight", x, y, window)


def test_an_odd_tile_at_the_end_of_the_last_block_counts_in_bf16(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(winograd, "L2", 1)
    window, size = Window((3, 3), padding=(1, 1)), (20, 28)  # 35 tiles
    x, y = whole(rng, (1, 32, *size), "f4", "channels-last"), whole(rng, (1, 32, *size), "f4", "channels-last")
    y[:, :, :16] = y[..., :24] = 0
    expected = REFERENCE.conv2d_weight(x, y, window)
    np.testing.assert_allclose(winograd.conv2d_weight(x, y, window, True), expected, rtol=0, atol=0.05 * np.abs(expected).max())


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize(
    ("window", "out", "rest"),
    [
        (Window((3, 2), (2, 3), (3, 1), (2, 1)), (9, 4), (1, 2)),
        (Window((4, 2), (4, 3)), (5, 3), (3, 2)),  # the last rows form a block that no window reaches
        (Window((1, 2), (4, 3), (2, 1)), (6, 5), (0, 0)),  # nor do rows between windows
        (Window((1, 1), padding=(3, 2)), (14, 11), (0, 0)),  # the first blocks lie in the padding
        (Window((3, 1), padding=(1, 2)), (7, 39), (0, 0)),  # as a convolution it would have a negative padding
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_transposed_convolution_in_many_blocks_of_rows(window, out, rest, dtype, monkeypatch, rng) -> None:
    monkeypatch.setattr(conv, "FEW", 0)
    monkeypatch.setattr(conv, "BLOCK", 1)
    size = window.image_size(out, rest)
    y, w = whole(rng, (2, 3, *out), dtype), whole(rng, (3, 2, *window.kernel), dtype)
    both("conv_transpose2d", y, w, whole(rng, (2,), dtype), window, size)


# -- pooling ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_taps_in_the_padding_read_zeros_and_write_nowhere(dtype: str, rng: np.random.Generator) -> None:
    """No maximum lies there, but taps may come from anywhere: the maps are defined for all of them."""
    window, size = Window((3, 4), (2, 3), (1, 2), (1, 2)), (6, 9)
    out = window.positions(size)
    taps = rng.integers(0, window.taps, (2, 5, *out)).astype(np.uint8)
    x, g = whole(rng, (2, 5, *size), dtype), whole(rng, (2, 5, *out), dtype)
    both("pool_gather", x, taps, window)
    both("pool_scatter", g, taps, window, size)
    zeros = CPU.pool_gather(np.full_like(x, 7), np.zeros_like(taps), window)
    assert not zeros[:, :, 0].any() and not zeros[..., 0].any() and (zeros[:, :, 1:, 1:] == 7).all()


# -- batch norm ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gated", [False, True])
def test_the_gradient_of_batch_norm_adds_up_all_blocks(dtype: str, gated: bool, rng: np.random.Generator) -> None:
    """Pixels of four blocks, each with a mean of its own."""
    x = laid_out(rng.standard_normal((2, 3, 170, 111)), "channels-last")
    g = laid_out(rng.standard_normal(x.shape) + np.linspace(-2, 5, 170)[:, None], "channels-last")
    weight, bias = rng.standard_normal((2, 3)).astype(dtype)
    mean, variance = REFERENCE.batch_norm_stats(x)
    near("batch_norm_grad", g.astype(dtype), x.astype(dtype), mean, 1 / np.sqrt(variance), weight, bias if gated else None)


@pytest.mark.parametrize("dtype", FLOATS)
def test_relu_behind_batch_norm_is_closed_at_zero(dtype: str) -> None:
    """All three results are those of the definition where normalised values are exactly 0: at the mean, and everywhere for a weight of 0."""
    x = laid_out(np.arange(-12, 12).reshape(2, 2, 2, 3).astype(dtype), "channels-last")
    g, mean, rstd = x * 0 + 3, np.array([-8.0, 7.0]), np.array([0.5, 2.0])
    for weight in ([1, -2], [0, 0]):
        arguments = g, x, mean, rstd, np.array(weight, dtype), np.zeros(2, dtype)
        both("batch_norm_grad", *arguments)
        dx, dweight, dbias = CPU.batch_norm_grad(*arguments)
        assert any(weight) == bool(dbias.any()) == bool(dweight.any()) == bool(dx.any())


# -- what is unlike the rest --------------------------------------------------------------------------------------------------------------


def test_one_gradient_that_compiled_loops_do_not_take_counts_as_well(rng: np.random.Generator) -> None:
    large, small = rng.integers(-3, 4, (70, 9, 3, 4)).astype("f4"), np.array([100, -200], "f2")
    for power in (1.0, 2.0, np.inf):
        both("power_sum", [large, small], power)
        assert CPU.power_sum([large, small], power) > CPU.power_sum([large], power)


def test_joined_images_of_two_dtypes_lose_no_digits(rng: np.random.Generator) -> None:
    parts = [laid_out(rng.standard_normal((2, c, 60, 50)).astype(kind), "channels-last") for c, kind in ((3, "f4"), (5, "f8"))]
    both("concatenate", parts, 1)
    both("concatenate", parts[::-1], 1)


def test_a_gradient_that_is_spread_over_a_batch(rng: np.random.Generator) -> None:
    """Of one image, for two: nothing is read beyond it."""
    y, target = whole(rng, (2, 6, 40, 50), "f4", "channels-last"), rng.integers(-1, 6, (2, 40, 50))
    both("relu_grad", whole(rng, (1, 6, 40, 50), "f4", "channels-last"), y)
    _, top, logs = REFERENCE.cross_entropy(y, target, np.ones(6, "f4"), 0.1)
    near("cross_entropy_grad", rng.random((1, 40, 50), dtype="f4"), y, top, logs, target, np.ones(6, "f4"), 0.1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_logit_that_is_not_a_number_is_the_largest(smoothing: float) -> None:
    """Whichever class it is of."""
    x = np.arange(9.0).reshape(3, 3) / 4
    np.fill_diagonal(x, np.nan)
    near("cross_entropy", x, np.array([1, 1, 1]), np.ones(3), smoothing)
    losses, top, logs = CPU.cross_entropy(x, np.array([1, -1, 2]), np.ones(3), smoothing)
    assert np.isnan(top).all() and np.isnan(logs).all() and np.isnan(losses).tolist() == [True, False, True]


def test_compiled_kernels_take_no_other_byte_order() -> None:
    x = np.linspace(-3, 4, 30000).reshape(2, 3, 50, 100)
    for kind, fits in (("<f4", True), (">f4", False), (">f8", False)):
        assert suits(x.astype(kind)) == (fits == np.little_endian)
        both("relu", x.astype(kind))


@pytest.mark.parametrize("name", ["MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_sets_the_allocator_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert memory.keep_memory() is False


# -- threads ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


@pytest.mark.usefixtures("restore_threads")
def test_work_split_inside_a_part_runs_in_the_thread_of_that_part() -> None:
    threads.set_num_threads(2)
    main, helped, seen = threading.get_ident(), threading.Event(), []

    def work(start: int, stop: int) -> None:
        me, parts = threading.get_ident(), []
        threads.parallel(lambda a, b: parts.append((threading.get_ident(), a, b)), 1000)
        seen.append(parts == [(me, 0, 1000)])
        if me != main:
            helped.set()
        helped.wait(60)

    threads.parallel(work, 8)
    assert helped.is_set() and seen == [True] * 8
    parts: list[int] = []
    threads.parallel(lambda a, b: parts.append(a), 8)  # afterwards, work is split again
    assert len(parts) == 8


@pytest.mark.usefixtures("restore_threads")
def test_after_an_error_no_other_part_begins() -> None:
    threads.set_num_threads(2)
    main, failed, done = threading.get_ident(), threading.Event(), []

    def work(start: int, stop: int) -> None:
        if threading.get_ident() != main:
            failed.set()
            raise FloatingPointError("in a helper")
        failed.wait(60)
        time.sleep(0.05)
        done.append(start)

    with pytest.raises(FloatingPointError, match="in a helper"):
        threads.parallel(work, 8)
    assert len(done) < 7


@pytest.mark.usefixtures("restore_threads")
def test_of_two_errors_the_first_is_raised() -> None:
    threads.set_num_threads(3)
    main, both_in, second = threading.get_ident(), threading.Barrier(2), threading.Event()

    def work(start: int, stop: int) -> None:
        if threading.get_ident() == main:
            second.wait(60)
        elif both_in.wait(60) == 0:
            raise FloatingPointError("the first")
        else:
            time.sleep(0.3)
            second.set()
            raise FloatingPointError("the second")

    with pytest.raises(FloatingPointError, match="the first"):
        threads.parallel(work, 12)


@pytest.mark.usefixtures("restore_threads")
def test_where_no_thread_can_be_started_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    threads.set_num_threads(3)  # the pool is new
    monkeypatch.setattr(threading, "Thread", Refused)
    seen: list[int] = []
    threads.parallel(lambda a, b: seen.extend(range(a, b)), 100)
    assert seen == list(range(100))


class Library:
    """A BLAS that is told how many threads to use."""

    num_threads = 5

    def set_num_threads(self, count: int) -> None:
        self.num_threads = count


def test_blas_has_one_thread_until_the_last_who_asked_for_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(threads, "_libraries", [library])
    for _ in range(2):
        with threads.single_blas():
            with pytest.raises(KeyError), threads.single_blas():
                assert library.num_threads == 1
                raise KeyError
            assert library.num_threads == 1
        assert library.num_threads == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_is_free_of_what_its_parent_was_in_the_middle_of() -> None:
    """Locks that other threads held, BLAS on one thread, a part of some work, and a pool whose threads are not there."""
    code = (
        "import os, signal, threading\nclass Library:\n    num_threads = 5\n    def set_num_threads(self, n): self.num_threads = n\n"
        "library, locks = Library(), (threads._lock, threads._limits)\nthreads._libraries = [library]\nthreads.set_num_threads(2)\n"
        "threads.parallel(lambda a, b: None, 100)\n"
        "with threads.single_blas():\n    threads._here.busy = True\n    for lock in locks: lock.acquire()\n    child = os.fork()\n"
        "    if child == 0:\n        signal.alarm(20)\n        found, parts = [library.num_threads], []\n"
        "        with threads.single_blas(): found.append(library.num_threads)\n        found.append(library.num_threads)\n"
        "        threads.parallel(lambda a, b: parts.append(a), 100)\n"
        "        os._exit((found, len(parts), threading.active_count()) != ([5, 1, 5], 8, 2))\n"
        "    for lock in locks: lock.release()\n"
        "print(os.waitpid(child, 0)[1], library.num_threads)"
    )
    ran = python(code)
    assert ran.stdout.split() == ["0", "5"], ran.stderr


# -- kept weights -------------------------------------------------------------------------------------------------------------------------


def test_blocks_that_nest_keep_the_weights_of_both() -> None:
    kept, owner, one, two = Kept(), Storage(), np.zeros(3), np.ones(2)

    def never() -> np.ndarray:
        raise AssertionError("it has been made")

    with kept.constant([(one, owner)]):
        with kept.constant([(two, owner)]):
            made = kept.of(two, "a", two.copy)
            assert made is not None and kept.of(two, "a", never) is made
        assert kept.of(two, "a", never) is None
        with kept.constant([(one, owner)]):
            pass  # alike while nothing is made, but only the inner one ends
        assert kept.of(one, "a", one.copy) is not None


def test_what_was_made_while_its_source_changed_is_made_again() -> None:
    kept, owner, source, calls = Kept(), Storage(), np.zeros(3), []

    def make() -> np.ndarray:
        calls.append(owner.version)
        owner.version += len(calls) == 1  # another thread's step
        return source.copy()

    with kept.constant([(source, owner)]):
        for _ in range(3):
            kept.of(source, "a", make)
    assert calls == [calls[0], calls[0] + 1]


@pytest.mark.parametrize("channels", [16, 144])
def test_both_directions_of_one_weight_are_kept_apart(channels: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "winograd")
    own, window, size = CpuKernels(), Window((3, 3), padding=(1, 1)), (52, 40)
    x = laid_out(rng.standard_normal((1, channels, *size), dtype="f4"), "channels-last")
    w = rng.standard_normal((channels, channels, 3, 3), dtype="f4")
    expected = own.conv2d(x, w, None, window, size), own.conv_transpose2d(x, w, None, window, size)
    with own.constant_weights([(w, Storage())]):
        for _ in range(2):
            np.testing.assert_array_equal(own.conv2d(x, w, None, window, size), expected[0])
            np.testing.assert_array_equal(own.conv_transpose2d(x, w, None, window, size), expected[1])
