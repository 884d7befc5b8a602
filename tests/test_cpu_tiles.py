"""bf16 on a matrix unit: blocks of tiles to the bit, and convolutions made of them against the reference, exact for whole numbers of 8 bits.

Where the processor has no such unit, the same code runs on vectors; where it has one, both run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minidcnn
from minidcnn import Tensor, models, nn
from minidcnn import functional as F
from minidcnn.backend import BackendError, Kernels, nchw
from minidcnn.backend.cpu import CpuKernels, cache, conv, threads, tiled, tiles
from minidcnn.backend.cpu.jit import jit
from minidcnn.window import Window

Array = np.ndarray
REFERENCE = Kernels(np)
SAME = Window((3, 3), padding=(1, 1))
ALL = ["conv2d", "conv_transpose2d", "conv2d_weight"]
WAYS = {"vectors": tiles._on_vectors, **({"tiles": tiles._on_tiles} if tiles.AMX else {})}


@pytest.fixture(autouse=True)
def by_shape(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Convolutions run on tiles wherever they suit, whatever this processor has and the environment forces."""
    monkeypatch.delenv("MINIDCNN_CONV", raising=False)
    monkeypatch.setattr(conv, "_has_tiles", lambda: True)
    count = threads.num_threads()
    yield
    threads.set_num_threads(count)


def whole(rng: np.random.Generator, *shape: int) -> Array:
    """Images or weights of small whole numbers: bf16 holds them, and float32 their sums."""
    n, c, h, w = shape
    return nchw(rng.integers(-3, 4, (n, h, w, c)).astype("f4"))


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def pairs(low: Array, high: Array) -> Array:
    """Two arrays of whole numbers as one of pairs of bf16, in the places of float32."""
    first, second = (np.ascontiguousarray(v, "f4").view("u4") for v in (low, high))
    return (first >> 16 | second & 0xFFFF0000).view("f4")


# -- blocks ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize(
    ("rows", "chunk", "chunks", "runs"), [(16, 16, 1, 1), (16, 16, 3, 2), (16, 9, 2, 3), (5, 16, 2, 1), (1, 1, 1, 1), (11, 12, 2, 3)]
)
def test_a_block_is_a_product(way, parts, vectors, rows, chunk, chunks, runs, rng) -> None:  # type: ignore[no-untyped-def]
    """With gaps between all that it reads, and nothing written beyond."""
    k, columns = chunk * chunks, 16 * vectors
    a = rng.integers(-3, 4, (parts, runs, chunks, rows + 1, chunk + 3, 2)).astype("f4")
    b = rng.integers(-3, 4, (runs * k, columns + 5, 2)).astype("f4")
    pa, pb = (pairs(v[..., 0], v[..., 1]) for v in (a, b))
    pa[..., chunk:], pa[..., rows, :], pb[:, columns:] = np.nan, np.nan, np.nan
    used = a[..., :rows, :chunk, :].transpose(0, 3, 1, 2, 4, 5).reshape(parts, rows, runs * k, 2)
    expected = np.einsum("prkt,kjt->prj", used, b[:, :columns])
    run = tiles.function(WAYS[way](parts, vectors), 15)

    @jit
    def block(start, a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk):  # type: ignore[no-untyped-def]
        tiles.tiles_start(rows, chunk)
        run(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk)
        tiles.tiles_stop()

    c = np.full((2, rows + 2, columns + 7), 5, "f4")
    step, row = pa[0, 0, 0].size, chunk + 3
    for more in (0, 1):
        block(
            0, address(pa), runs * chunks * step, row, step, chunks * step, runs, address(pb), columns + 5,
            address(c), c[0].size, columns + 7, k, more, rows, chunk,
        )  # fmt: skip
        np.testing.assert_array_equal(c[:parts, :rows, :columns], (1 + more) * expected)
    c[:parts, :rows, :columns] = 5
    assert (c == 5).all()


def test_sums_leave_by_scale_offset_and_relu(rng: np.random.Generator) -> None:
    source, to = rng.standard_normal((16, 48), dtype="f4"), np.full((17, 64), 7, "f4")
    scale, offset = rng.standard_normal((2, 32), dtype="f4")
    source[3, 5] = np.nan

    @jit
    def run(streamed, source, to, rows, scale, offset, relu):  # type: ignore[no-untyped-def]
        if streamed:
            tiles.finish_streamed(source, 48, to, 64, rows, 32, scale, offset, relu)
        else:
            tiles.finish(source, 48, to, 64, rows, 32, scale, offset, relu)

    held = tiled.empty((17, 64))
    for streamed, relu in ((0, 0), (0, 1), (1, 0), (1, 1)):
        held[...] = to
        run(streamed, address(source), address(held), 11, address(scale), address(offset), relu)
        expected = source[:11, :32] * scale.astype("f8") + offset
        np.testing.assert_allclose(held[:11, :32], np.maximum(expected, 0) if relu else expected, rtol=1e-5, atol=1e-6)
        assert (held[11:] == 7).all() and (held[:, 32:] == 7).all()


def test_pairs_from_odd_ones_on(rng: np.random.Generator) -> None:
    pixels = rng.integers(-3, 4, (7, 16)).astype("f4")
    even, odd = pairs(pixels[:-1:2], pixels[1::2]), np.full((3, 16), 9, "f4")
    shift = tiles.shift
    jit(lambda a, b, n, far: shift(a, b, n, far))(address(even), address(odd), 32, 16)
    np.testing.assert_array_equal(odd[:2].view("u4"), pairs(pixels[1:5:2], pixels[2:6:2]).view("u4"))
    assert (odd[2] == 9).all()


# -- convolutions ------------------------------------------------------------------------------------------------------------------------


def check(x: Array, y: Array, w: Array, window: Window) -> int:
    """The convolutions that tiles take of the three against the reference; how many these are."""
    out, size = y.shape[2:], x.shape[2:]
    exact = [v.astype(float) for v in (x, y, w)]
    np.testing.assert_array_equal(tiled.conv2d(x, w, None, window, out), REFERENCE.conv2d(exact[0], exact[2], None, window, out))
    count = 1
    if tiled.spreads(window, out, size):
        got = tiled.conv_transpose2d(y, w, None, window, size)
        np.testing.assert_array_equal(got, REFERENCE.conv_transpose2d(exact[1], exact[2], None, window, size))
        count += 1
    if tiled.sums(window):
        np.testing.assert_array_equal(tiled.conv2d_weight(x, y, window), REFERENCE.conv2d_weight(exact[0], exact[1], window))
        count += 1
    return count


sixteens = st.integers(1, 5).map(lambda n: 16 * n)
few = st.integers(1, 3)


@given(
    n=few, c=sixteens, o=sixteens, h=st.integers(1, 20), w=st.integers(1, 40), kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.tuples(few, few), padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), down=few, plain=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_all_windows_of_whole_numbers_are_exact(n, c, o, h, w, kernel, stride, padding, down, plain, seed) -> None:  # type: ignore[no-untyped-def]
    """`plain`: with stride 1 and no dilation, which all three take."""
    window = Window(kernel, padding=padding) if plain else Window(kernel, stride, padding, (down, 1))
    assume(min(a + 2 * p - s for a, p, s in zip((h, w), padding, window.span, strict=True)) >= 0)
    rng, out = np.random.default_rng(seed), window.positions((h, w))
    count = check(whole(rng, n, c, h, w), whole(rng, n, o, *out), whole(rng, o, c, *kernel), window)
    assert count >= 1 + plain * (1 + all(k - 1 >= p for k, p in zip(kernel, padding, strict=True)))


@given(
    n=few, c=sixteens, o=sixteens, out=st.tuples(st.integers(1, 12), st.integers(1, 36)), stride=st.tuples(few, few), rest=st.integers(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_windows_side_by_side_are_exact(n, c, o, out, stride, rest, seed) -> None:  # type: ignore[no-untyped-def]
    """`rest`: lines and columns that no window reaches; where there are some, images are not spread so."""
    rng, window = np.random.default_rng(seed), Window(stride, stride)
    size = tuple(k * s + (rest if s > 1 else 0) for k, s in zip(out, stride, strict=True))
    touches_all = size == window.image_size(out)
    assert check(whole(rng, n, c, *size), whole(rng, n, o, *out), whole(rng, o, c, *stride), window) == 2 + touches_all


def unwritten(name: str, size: int) -> Array:
    array = tiled.empty((size,))
    array.fill(np.nan)
    return array


SETTINGS: list[dict[str, int]] = [
    {}, {"NEAR": 0}, {"NEAR": 0, "WINDOWS": 1}, {"WINDOWS": 1}, {"ITEMS": 1}, {"SUMS": 0}, {"SUMS": 0, "HELD": 1}, {"BLOCK": 1}, {"BLOCK": 1, "PARTS": 3},
]  # fmt: skip
CASES = [
    (2, 32, 48, (13, 9), SAME), (1, 48, 16, (7, 40), Window((3, 2), padding=(2, 0))), (3, 16, 80, (8, 8), SAME), (1, 64, 32, (5, 33), Window((1, 5))),
    (2, 32, 32, (9, 18), Window((3, 3), (3, 3))), (1, 96, 32, (17, 3), Window((5, 3), padding=(4, 2))), (1, 32, 64, (1, 1), Window((1, 1))),
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("n", "c", "o", "size", "window"), CASES)
def test_every_way_to_cut_the_work_is_exact(settings, n, c, o, size, window, monkeypatch, rng) -> None:  # type: ignore[no-untyped-def]
    """Scratch holds what is not a number, so that whatever is read without having been written shows; in one thread and in three."""
    for name, value in settings.items():
        monkeypatch.setattr(tiled, name, value)
    monkeypatch.setattr(tiled, "_scratch", unwritten)
    monkeypatch.setattr(threads, "WORTH", 1)
    out = window.positions(size)
    x, y, w = whole(rng, n, c, *size), whole(rng, n, o, *out), whole(rng, o, c, *window.kernel)
    for count in (1, 3):
        threads.set_num_threads(count)
        assert check(x, y, w, window) == 3


def test_large_results_past_the_caches_are_exact(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    from minidcnn.backend.cpu import memory

    monkeypatch.setattr(memory, "STREAMED", 0)
    assert check(whole(rng, 1, 32, 12, 20), whole(rng, 1, 48, 12, 20), whole(rng, 48, 32, 3, 3), SAME) == 3


@pytest.mark.parametrize("c", [16, 48, 80, 176, 272])  # runs along k that tiles do not divide
def test_bias_scale_and_relu_are_float32(c: int, rng: np.random.Generator) -> None:
    x, w = whole(rng, 1, c, 9, 21), whole(rng, 48, c, 3, 3)
    scale, offset = rng.integers(-3, 4, (2, 48)).astype("f4")
    column = (slice(None), None, None)
    sums = REFERENCE.conv2d(x, w, None, SAME, (9, 21))
    kernels = CpuKernels("bf16")
    np.testing.assert_array_equal(kernels.conv2d(x, w, offset, SAME, (9, 21)), sums + offset[column])
    for relu in (False, True):
        expected = sums * scale[column] + offset[column]
        got = kernels.conv2d_affine(x, w, scale, offset, relu, SAME, (9, 21))
        np.testing.assert_array_equal(got, np.maximum(expected, 0) if relu else expected)
    y, two = whole(rng, 1, 48, 9, 21), Window((2, 2), (2, 2))
    bias = rng.integers(-3, 4, c).astype("f4")
    got = kernels.conv_transpose2d(y, w, bias, SAME, (9, 21))
    np.testing.assert_array_equal(got, REFERENCE.conv_transpose2d(y, w, bias, SAME, (9, 21)))
    w = whole(rng, 48, c, 2, 2)
    np.testing.assert_array_equal(
        kernels.conv_transpose2d(y, w, bias, two, (18, 42)), REFERENCE.conv_transpose2d(y, w, bias, two, (18, 42))
    )


def test_arrays_in_any_order_of_memory(rng: np.random.Generator) -> None:
    x, y, w = whole(rng, 2, 32, 9, 21), whole(rng, 2, 48, 9, 21), whole(rng, 48, 32, 3, 3)
    strange = [np.repeat(np.ascontiguousarray(v), 2, axis=3)[..., ::2] for v in (x, y, w)]
    assert not any(v.flags.carray or nchw(v).flags.carray for v in strange)
    assert check(*strange, SAME) == 3


def test_a_gradient_holds_no_more_memory_than_its_own(rng: np.random.Generator) -> None:
    """Partial sums are thrown away: there are several of so many lines."""
    owner = tiled.conv2d_weight(whole(rng, 1, 16, 400, 320), whole(rng, 1, 16, 400, 320), SAME)
    while owner.base is not None and isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert owner.size == 16 * 16 * 9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_seen_by_its_windows_only(value: float, rng: np.random.Generator) -> None:
    x, w = whole(rng, 1, 16, 8, 37), np.abs(whole(rng, 16, 16, 3, 3)) + 1
    x[0, 3, 4, 20] = value
    for got in (tiled.conv2d(x, w, None, SAME, (8, 37)), tiled.conv_transpose2d(x, w, None, SAME, (8, 37))):
        strange = np.zeros((8, 37), bool)
        strange[3:6, 19:22] = True
        np.testing.assert_array_equal(np.isfinite(got[0]).all(0), ~strange)


def test_factors_are_rounded_to_the_nearest(rng: np.random.Generator) -> None:
    """What is lost is what factors of 8 bits lose: 0.17 % each, so 0.24 % of a sum of products."""
    x, y, w = (nchw(rng.standard_normal(shape, dtype="f4")) for shape in ((1, 20, 40, 64), (1, 20, 40, 32), (32, 3, 3, 64)))
    exact = [v.astype(float) for v in (x, y, w)]
    for got, expected in (
        (tiled.conv2d(x, w, None, SAME, (20, 40)), REFERENCE.conv2d(exact[0], exact[2], None, SAME, (20, 40))),
        (tiled.conv_transpose2d(y, w, None, SAME, (20, 40)), REFERENCE.conv_transpose2d(exact[1], exact[2], None, SAME, (20, 40))),
        (tiled.conv2d_weight(x, y, SAME), REFERENCE.conv2d_weight(exact[0], exact[1], SAME)),
    ):
        assert 0.0020 < np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()) < 0.0028


# -- where they are used -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def listen(name: str, run: Callable[..., Array]) -> None:
        def heard(*arguments: Any, **keywords: Any) -> Array:
            names.append(name)
            return run(*arguments, **keywords)

        monkeypatch.setattr(tiled, name, heard)

    for name in ALL:
        listen(name, getattr(tiled, name))
    return names


@pytest.mark.parametrize(
    ("precision", "c", "o", "dtype", "window", "forced", "expected"),
    [
        ("bf16", 16, 32, "f4", SAME, "", ALL), ("float32", 16, 32, "f4", SAME, "", []), ("bf16", 16, 32, "f8", SAME, "", []),
        ("bf16", 16, 32, "f4", SAME, "winograd", []), ("bf16", 16, 32, "f4", SAME, "gemm", []), ("bf16", 16, 32, "f4", SAME, "reference", []),
        ("bf16", 24, 32, "f4", SAME, "", []), ("bf16", 16, 40, "f4", SAME, "", []), ("bf16", 16, 32, "f4", Window((2, 2), (2, 2)), "", ALL),
        ("bf16", 16, 32, "f4", Window((3, 3), (2, 2), (1, 1)), "", ALL[:1]), ("bf16", 16, 32, "f4", Window((1, 3), dilation=(1, 2)), "", []),
        ("bf16", 16, 32, "f4", Window((3, 3), dilation=(2, 1)), "", ALL[:2]),
    ],
)  # fmt: skip
def test_bf16_runs_on_tiles_where_they_take_it(precision, c, o, dtype, window, forced, expected, called, monkeypatch, rng) -> None:  # type: ignore[no-untyped-def]
    if forced:
        monkeypatch.setenv("MINIDCNN_CONV", forced)
    size = (12, 24)
    out, kernels = window.positions(size), CpuKernels(precision)
    x, y, w = (v.astype(dtype) for v in (whole(rng, 1, c, *size), whole(rng, 1, o, *out), whole(rng, o, c, *window.kernel)))
    got = kernels.conv2d(x, w, None, window, out), kernels.conv_transpose2d(y, w, None, window, size), kernels.conv2d_weight(x, y, window)
    assert called == expected
    made = (
        REFERENCE.conv2d(x, w, None, window, out),
        REFERENCE.conv_transpose2d(y, w, None, window, size),
        REFERENCE.conv2d_weight(x, y, window),
    )
    for a, b in zip(got, made, strict=True):
        np.testing.assert_allclose(a, b, atol=0 if called else 0.02 * np.abs(b).max())


def test_groups_and_processors_without_tiles_go_other_ways(
    called: list[str], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    x, w, kernels = whole(rng, 1, 32, 9, 9), whole(rng, 32, 16, 3, 3), CpuKernels("bf16")
    kernels.conv2d(x, w, None, SAME, (9, 9), 2)
    monkeypatch.setattr(conv, "_has_tiles", lambda: False)
    kernels.conv2d(x[:, :16], w, None, SAME, (9, 9))
    assert not called


def test_packed_weights_are_kept_for_their_version(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    layer, made, pack = nn.Conv2d(16, 32, 3, padding=1), [], tiled.pack
    monkeypatch.setattr(tiled, "pack", lambda *arguments: made.append(1) or pack(*arguments))
    monkeypatch.setattr(threads, "_count", 1)
    minidcnn.use("numpy", "bf16")
    try:
        x = Tensor(whole(rng, 1, 16, 9, 9))
        with minidcnn.no_grad(), nn.constant_weights(layer):
            first, again = layer(x).numpy(), layer(x).numpy()
            assert len(made) == 1
            np.testing.assert_array_equal(first, again)
            layer.load_state_dict({name: 0 * value for name, value in layer.state_dict().items()})
            assert not layer(x).numpy().any() and len(made) == 2
    finally:
        minidcnn.use("numpy")


def test_a_step_of_a_unet_points_the_same_way(called: list[str], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """On tiles as by products by the definition in bf16, whose distance from float32 is the measure."""
    x, labels = nchw(rng.standard_normal((2, 40, 48, 3), dtype="f4")), rng.integers(0, 4, (2, 40, 48))

    def gradients(precision: str, forced: str) -> Array:
        monkeypatch.setenv("MINIDCNN_CONV", forced)
        minidcnn.use("numpy", precision)
        minidcnn.manual_seed(0)
        model = models.UNet(3, 4, base=16, depth=2, padding="same", norm="batch")
        F.cross_entropy(model(Tensor(x)), Tensor(labels)).backward()
        return np.concatenate([p.grad.numpy().ravel() for p in model.parameters() if p.grad is not None])

    try:
        exact = gradients("float32", "")
        assert not called
        on_tiles, definition = gradients("bf16", ""), gradients("bf16", "gemm")
    finally:
        minidcnn.use("numpy")
    assert set(called) == set(ALL) and len(called) > 20
    far, measure = (np.linalg.norm(v - exact) / np.linalg.norm(exact) for v in (on_tiles, definition))
    assert 0 < far < 2 * measure


# -- the unit ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["1", "no", "Vectors"])
def test_a_setting_that_there_is_not(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDCNN_AMX", said)
    with pytest.raises(BackendError) as raised:
        CpuKernels()
    assert str(raised.value) == f"MINIDCNN_AMX must be 0 or vectors, got {said!r}; unset it to use the matrix unit where there is one"


@pytest.mark.parametrize(("said", "there"), [("0", False), ("vectors", True)])
def test_the_setting_says_whether_there_are_tiles(said: str, there: bool) -> None:
    code = "from minidcnn.backend.cpu import conv, tiles; print(tiles.AMX, tiles.TILES, conv._has_tiles())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MINIDCNN_AMX": said}, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", str(there), str(there)]


def test_the_unit_is_used_where_the_system_grants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor must have it, and Linux must say 0 to the request."""
    features, answers, asked = {"amx-bf16": True, "amx-tile": True}, [0], []

    class System:
        def syscall(self, *numbers: int) -> int:
            asked.append(numbers)
            return answers[0]

    monkeypatch.delenv("MINIDCNN_AMX", raising=False)
    monkeypatch.setattr(tiles, "BF16", True)
    monkeypatch.setattr(tiles.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(tiles.ctypes, "CDLL", lambda name: System())
    monkeypatch.setattr(tiles.sys, "platform", "linux")
    monkeypatch.setattr(tiles.platform, "machine", lambda: "x86_64")
    assert tiles._granted() and asked == [(158, 0x1023, 18)]
    answers[0] = -1
    assert not tiles._granted() and len(asked) == 2
    answers[0] = 0
    for change in (
        lambda: monkeypatch.setitem(features, "amx-bf16", False),
        lambda: monkeypatch.setattr(tiles.platform, "machine", lambda: "aarch64"),
        lambda: monkeypatch.setattr(tiles.sys, "platform", "darwin"),
        lambda: monkeypatch.setattr(tiles, "BF16", False),
        lambda: monkeypatch.setenv("MINIDCNN_AMX", "0"),
    ):
        with monkeypatch.context() as only:
            only.setattr(tiles, "BF16", True)
            change()
            assert not tiles._granted()
    assert len(asked) == 2


def test_code_for_the_unit_and_code_for_vectors_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In numba's cache on disk: a process that may not use the unit must not load what was compiled for it."""
    from minidcnn.backend.cpu import tiled_loops

    assert cache._depends[tiled_loops.__name__] == tiles.AMX
    made = cache.KernelCache(tiled_loops.pack.py_func)

    class Codegen:
        def magic_tuple(self) -> tuple[str, ...]:
            return ("processor",)

    keys = set()
    for amx in (True, False):
        monkeypatch.setitem(cache._depends, tiled_loops.__name__, amx)
        keys.add(repr(made._index_key((), Codegen())))
    assert len(keys) == 2


if tiles.AMX:

    def test_this_file_on_vectors_where_the_unit_is() -> None:
        """Whole convolutions on vectors, on a processor that has the unit: elsewhere the tests above ran so."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "exact or float32 or only", __file__],
            env={**os.environ, "MINIDCNN_AMX": "vectors", "HYPOTHESIS_PROFILE": "short", "PYTEST_ADDOPTS": ""},
            cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert " passed" in done.stdout and "skipped" not in done.stdout
