"""Steps of many parameters in one launch: the same bits as one by one, for any sizes, and nothing beside the parameters is touched."""

from __future__ import annotations

import math
import sys
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not

import minidcnn
from minidcnn import Tensor, nn, optim
from minidcnn.backend import Kernels, switch
from minidcnn.backend import kernels as present
from minidcnn.backend.cuda import launcher
from minidcnn.backend.cuda.optim import MOST, SHARE
from minidcnn.backend.rules import AdamRule, SgdRule

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
watched = pytest.mark.skipif(ON_DEVICE, reason="counts launches of simulated kernels")

REFERENCE = Kernels(np)
Array = np.ndarray[Any, Any]
orders = st.sampled_from([{"order": 0}, {"order": 1}, {"mode": "check", "order": 0}, {"mode": "check", "order": 2}])
shapes = st.lists(
    st.sampled_from(
        [(), (0,), (3, 0), (1,), (5, 7), (255,), (256,), (257,), (SHARE - 1,), (SHARE,), (SHARE + 1,), (2, SHARE, 1), (3, 4097)]
    ),
    max_size=8,
)
layouts = st.sampled_from(["C", "F", "mixed", "gaps"])


def parameters(shapes: list[tuple[int, ...]], seed: int, layout: str, arrays: int) -> list[list[Array]]:
    """For each shape p, g and state; float32 and float64 in turns."""
    rng, found = np.random.default_rng(seed), []
    for i, shape in enumerate(shapes):
        dtype = (np.float32, np.float64)[i % 2]
        own = [rng.standard_normal(shape).astype(dtype) for _ in range(arrays)]
        if layout == "gaps" and len(shape) == 1:
            own = [np.repeat(a, 2)[::2] for a in own]
        elif layout != "C":
            own = [
                np.asarray(a, order="F") if layout == "F" or k != 1 else a for k, a in enumerate(own)
            ]  # mixed: the gradient lies otherwise
        found.append(own)
    return found


def copies(rows: list[list[Array]]) -> list[list[Array]]:
    return [[copy(a) for a in row] for row in rows]


def copy(a: Array) -> Array:
    return a.copy(order="K") if a.flags.forc else np.repeat(a, 2)[::2]


def close(a: Array, b: Array) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    np.testing.assert_allclose(a, b, rtol=0, atol=200 * np.finfo(a.dtype).eps * max(1.0, float(np.abs(b).max(initial=0))))


@given(shapes=shapes, layout=layouts, order=orders, seed=st.integers(0, 99), momentum=st.sampled_from([0.0, 0.9]), nesterov=st.booleans())
def test_sgd(shapes: list[tuple[int, ...]], layout: str, order: dict[str, Any], seed: int, momentum: float, nesterov: bool) -> None:
    kernels, start = simulated(**order), parameters(shapes, seed, layout, 3)
    together, alone, wanted = copies(start), copies(start), copies(start)

    def arguments(rows: list[list[Array]]) -> list[tuple[Any, ...]]:
        rules = [SgdRule(0.1 / (i + 1), momentum, 0.0, 0.01 * (i % 2), nesterov and momentum > 0) for i in range(len(rows))]
        return [(p, g, buffer if momentum else None, i % 3 == 0, rules[i]) for i, (p, g, buffer) in enumerate(rows)]

    kernels.sgd_steps(arguments(together))
    for one in arguments(alone):
        kernels.sgd_step(*one)
    REFERENCE.sgd_steps(arguments(wanted))
    for a, b, c in zip(together, alone, wanted, strict=True):
        for k in range(3):
            np.testing.assert_array_equal(a[k], b[k])  # to the bit
            close(a[k], c[k])


@given(shapes=shapes, layout=layouts, order=orders, seed=st.integers(0, 99), decoupled=st.booleans(), amsgrad=st.booleans())
def test_adam(shapes: list[tuple[int, ...]], layout: str, order: dict[str, Any], seed: int, decoupled: bool, amsgrad: bool) -> None:
    kernels, start = simulated(**order), parameters(shapes, seed, layout, 5)
    for row in start:
        for k in (3, 4):
            np.abs(row[k], out=row[k])
    together, alone, wanted = copies(start), copies(start), copies(start)

    def arguments(rows: list[list[Array]]) -> list[tuple[Any, ...]]:
        rules = [AdamRule(0.1 / (i + 1), 0.9, 0.99, 1e-8, 0.01 * (i % 2), decoupled) for i in range(len(rows))]
        return [(*row[:4], row[4] if amsgrad else None, 1 + i, rules[i]) for i, row in enumerate(rows)]

    kernels.adam_steps(arguments(together))
    for one in arguments(alone):
        kernels.adam_step(*one)
    REFERENCE.adam_steps(arguments(wanted))
    for a, b, c in zip(together, alone, wanted, strict=True):
        for k in range(5):
            np.testing.assert_array_equal(a[k], b[k])
            close(a[k], c[k])


def counting(kernels: Any) -> list[tuple[str, tuple[int, ...]]]:
    """(kernel, grid) of each launch from now on."""
    launches: list[tuple[str, tuple[int, ...]]] = []
    launch = kernels.launcher.launch

    def remember(grid: Any, block: Any, file: str, kernel: str, *rest: Any, **named: Any) -> None:
        launches.append((kernel, tuple(grid)))
        launch(grid, block, file, kernel, *rest, **named)

    kernels.launcher.launch = remember
    return launches


@watched
@pytest.mark.parametrize("make", [lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9), lambda groups: optim.AdamW(groups, lr=0.01)])
def test_an_optimizer_takes_one_launch_for_all_groups(make: Any, rng: np.random.Generator) -> None:
    kernels = simulated(mode="check", order=2)
    launches = counting(kernels)
    shapes = [(8, 3, 3, 3), (8,), (0, 2), (), (5000,), (2, 4096)]
    values = [rng.standard_normal((2, *shape)).astype(np.float32) for shape in shapes]
    results = []
    for which in (kernels, REFERENCE):
        with minidcnn.use_kernels(which):
            params = [nn.Parameter(v[0]) for v in values]
            optimizer = make([{"params": params[::2], "lr": 0.05}, {"params": params[1::2], "weight_decay": 0.1}])
            for _ in range(3):
                for p, v in zip(params, values, strict=True):
                    p.grad = Tensor(v[1])
                params[3].grad = None  # without a gradient it stays as it is
                optimizer.step()
            results.append([p.numpy().copy() for p in params])
    blocks = sum(math.ceil(v[0].size / SHARE) for i, v in enumerate(values) if i != 3)
    assert [grid for _, grid in launches] == [(blocks,)] * 3
    for a, b in zip(*results, strict=True):
        close(a, b)
    np.testing.assert_array_equal(results[0][3], values[3][0])


@watched
def test_nothing_to_do_launches_nothing() -> None:
    kernels = simulated()
    launches = counting(kernels)
    kernels.sgd_steps([])
    kernels.adam_steps([])
    empty = np.zeros((0, 3), np.float32)
    kernels.sgd_step(empty, empty, None, True, SgdRule(0.1))
    assert not launches


# -- scaled gradients -----------------------------------------------------------------------------------------------------------------------


some_gradients: dict[str, Any] = {
    "shapes": shapes,
    "layout": layouts,
    "order": orders,
    "seed": st.integers(0, 99),
    "bad": st.sampled_from([None, np.inf, -np.inf, np.nan]),
}


@given(**some_gradients, look=st.booleans())
def test_gradients_are_scaled_together(
    shapes: list[tuple[int, ...]], layout: str, order: dict[str, Any], seed: int, bad: float | None, look: bool
) -> None:
    """The reference's bits, in both dtypes; one number in one of them that is not finite is noticed, wherever it is."""
    rows = parameters(shapes, seed, layout, 1)
    some = [a for (a,) in rows if a.size]
    if bad is not None and some:
        at = some[seed % len(some)]
        at[np.unravel_index(seed * 7919 % at.size, at.shape)] = bad
    together, wanted = copies(rows), copies(rows)
    finite = simulated(**order).scale_all([a for (a,) in together], 1 / 3, look)
    assert bool(finite) == bool(REFERENCE.scale_all([a for (a,) in wanted], 1 / 3, look)) == (bad is None or not some or not look)
    for (a,), (b,) in zip(together, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def overflowing(count: int, bad: bool, rng: np.random.Generator) -> list[nn.Parameter]:
    params = [nn.Parameter(rng.standard_normal((3, 300 * i)).astype(np.float32)) for i in range(count)]
    for p in params:
        p.grad = Tensor(rng.standard_normal(p.shape).astype(np.float32)).to(p.backend)
    params[-1].grad._array[2, 700] = np.inf if bad else 1  # type: ignore[union-attr]
    return params


@watched
@pytest.mark.parametrize("bad", [False, True])
def test_a_scaler_takes_one_launch_and_reads_one_value(bad: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """unscale_, clipping by a norm that is known and the step are a launch each, of however many parameters; only step() waits, once."""
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    try:
        params = overflowing(6, bad, rng)
        before = [p.numpy().copy() for p in params]
        optimizer, scaler = optim.SGD(params, 0.5), optim.GradScaler(8.0)
        gradients = [p.grad.numpy().copy() for p in params]  # type: ignore[union-attr]
        launches, reads = counting(present()), cupy_stand_in.ndarray.reads
        scaler.unscale_(optimizer)
        assert launches == [("scale_all", (sum(math.ceil(900 * i / SHARE) for i in range(6)),))]
        optim.scale_grads_(params, 1.0, 4.0 - 1e-6)
        assert [kernel for kernel, _ in launches] == ["scale_all", "scale_all"] and cupy_stand_in.ndarray.reads == reads
        scaler.step(optimizer)
        scaler.update()
        assert cupy_stand_in.ndarray.reads == reads + 1
        assert [kernel for kernel, _ in launches[2:]] == ([] if bad else ["sgd_step"])
        assert scaler.get_scale() == (4 if bad else 8)
        for p, was, g in zip(params, before, gradients, strict=True):
            np.testing.assert_array_equal(p.numpy(), was if bad else was - np.float32(0.5) * (g / np.float32(32)))
    finally:
        minidcnn.use("numpy")


# -- norms ----------------------------------------------------------------------------------------------------------------------------------

POWERS = [1.0, 2.0, 3.0, 0.5, np.inf]


def gradients(shapes: list[tuple[int, ...]], seed: int, layout: str) -> list[Array]:
    """float32, float64 and float16 in turns, some beyond what float32 can square."""
    rows = [a for (a,) in parameters(shapes, seed, layout, 1)]
    return [a.astype(np.float16) if i % 3 == 2 else a * a.dtype.type(1e30) if i % 5 == 4 else a for i, a in enumerate(rows)]


@given(**some_gradients, power=st.sampled_from(POWERS))
def test_norms(shapes: list[tuple[int, ...]], layout: str, order: dict[str, Any], seed: int, bad: float | None, power: float) -> None:
    """The reference's sum but for rounding in float64, whatever the dtype; what is not finite shows, wherever it is; nothing is changed."""
    arrays = gradients(shapes, seed, layout)
    some = [a for a in arrays if a.size]
    if bad is not None and some:
        at = some[seed % len(some)]
        at[np.unravel_index(seed * 7919 % at.size, at.shape)] = bad
    kernels, before = simulated(**order), [a.copy() for a in arrays]
    found, wanted = kernels.power_sum(arrays, power), REFERENCE.power_sum(arrays, power)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype) == ((), np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    finite = kernels.all_finite(arrays)
    assert (finite.shape, finite.dtype) == ((), bool)
    assert bool(finite) == bool(REFERENCE.all_finite(arrays)) == (bad is None or not some)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("power", POWERS)
def test_a_norm_has_the_same_bits_in_every_order_and_every_run(power: float, rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal(size).astype(np.float32) for size in (9000, 3, 40000, 257)]
    settings: list[dict[str, Any]] = [
        {"order": 0},
        {"order": 0},
        {"order": 1},
        {"order": 2, "seed": 5},
        {"order": 2, "seed": 6},
        {"host_threads": 3},
    ]
    assert len({float(simulated(**how).power_sum(arrays, power)) for how in settings}) == 1


def test_a_norm_is_exact_where_float64_is() -> None:
    """Whole numbers: every element counts once, at whatever boundary of threads, blocks and arrays."""
    for sizes in ([1], [255, 256, 257], [SHARE - 1, SHARE, SHARE + 1, 2 * SHARE], [5] * (MOST - 1), [5] * MOST, [5] * (2 * MOST + 1)):
        for dtype in (np.float32, np.float64, np.float16):
            arrays = [(np.arange(size) % 37 - 11 - i % 5).astype(dtype) for i, size in enumerate(sizes)]
            for power in (1, 2, np.inf):
                assert float(simulated().power_sum(arrays, float(power))) == float(REFERENCE.power_sum(arrays, float(power)))


@watched
def test_launches_of_a_norm() -> None:
    """One for each dtype, or each 240 of it, of all blocks; and one that adds up."""
    kernels = simulated(mode="check")
    launches = counting(kernels)

    def take(power: float, arrays: list[Array]) -> list[tuple[str, tuple[int, ...]]]:
        kernels.power_sum(arrays, power)
        taken = launches[:]
        launches.clear()
        return taken

    total = ("power_total", (1,))
    sizes = [1, SHARE, SHARE + 1, 0, 5 * SHARE]
    assert take(2.0, [np.ones(s, np.float32) for s in sizes]) == [("power_parts", (9,)), total]
    assert take(0.5, [np.ones(s, np.float32) for s in sizes]) == [("any_power_parts", (9,)), total]
    mixed = [np.ones(s, t) for s in sizes for t in (np.float64, np.float16, np.float32)]
    assert take(1.0, mixed) == [("power_parts", (9,))] * 3 + [total]
    gaps = [np.ones((4, SHARE), np.float32)[:, ::2], np.ones((40, 3), np.float32).T]
    assert take(np.inf, gaps) == [("power_parts", (3,)), total]
    assert take(2.0, [np.ones(2, np.float32)] * (MOST + 3)) == [("power_parts", (MOST,)), ("power_parts", (3,)), total]
    for nothing in ([], [np.ones((0, 3), np.float32)], [np.ones(3, np.int64)]):
        assert take(2.0, nothing) == []
    kernels.all_finite(mixed)
    assert launches == [("power_parts", (9,))] * 3 + [total]
    assert bool(kernels.all_finite([])) and float(kernels.power_sum([], np.inf)) == 0


def test_what_the_kernels_do_not_take_joins_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "LIMIT", 5000)  # elements
    kernels = simulated()
    arrays = [np.full(4999, 2, np.float32), np.full(5000, -3, np.float32), np.full(4, 5, np.int64)]
    for power in POWERS:
        np.testing.assert_allclose(kernels.power_sum(arrays, power), REFERENCE.power_sum(arrays, power), rtol=1e-12)
    assert bool(kernels.all_finite(arrays))
    arrays[1][4999] = np.nan
    assert np.isnan(kernels.power_sum(arrays, np.inf)) and not kernels.all_finite(arrays)


@watched
def test_clipping_reads_one_value_and_takes_three_launches(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six parameters of two dtypes, one launch for each dtype where they are gone through; power_sum alone waits for nothing."""
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    try:
        params = overflowing(6, False, rng)
        host = [p.grad.numpy().copy() for p in params]  # type: ignore[union-attr]
        launches, reads = counting(present()), cupy_stand_in.ndarray.reads
        squares = optim.power_sum(params)
        assert [kernel for kernel, _ in launches] == ["power_parts", "power_total"] and cupy_stand_in.ndarray.reads == reads
        wanted = sum(float((g.astype(np.float64) ** 2).sum()) for g in host)
        assert float(squares) == pytest.approx(wanted, rel=1e-12)  # type: ignore[arg-type]
        launches.clear()
        reads = cupy_stand_in.ndarray.reads
        assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(wanted**0.5, rel=1e-12)
        assert [kernel for kernel, _ in launches] == [
            "power_parts",
            "power_total",
            "scale_all",
        ] and cupy_stand_in.ndarray.reads == reads + 1
        assert optim.grad_norm(params) == pytest.approx(1, abs=1e-5)
        launches.clear()
        reads = cupy_stand_in.ndarray.reads
        assert optim.grads_finite(params)
        assert [kernel for kernel, _ in launches] == ["power_parts", "power_total"] and cupy_stand_in.ndarray.reads == reads + 1
        params[3].grad._array[1, 5] = -np.inf  # type: ignore[union-attr]
        assert not optim.grads_finite(params) and optim.grad_norm(params) == np.inf
        here = nn.Parameter(np.zeros(3, np.float32)).to("numpy")
        here.grad = Tensor(np.array([0, 3, -4], np.float32)).to("numpy")
        params[3].grad = None
        params[-1].grad = None
        both = [here, params[1]]
        wanted = 25 + float(optim.power_sum([params[1]]))  # type: ignore[arg-type]
        assert float(optim.power_sum(both)) == pytest.approx(wanted, rel=1e-12)  # type: ignore[arg-type]
        assert optim.grad_norm(both, np.inf) == 4 and optim.grads_finite(both)
    finally:
        minidcnn.use("numpy")
