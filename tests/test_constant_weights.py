"""nn.constant_weights: transformed weights are made once for many runs, results keep their bits, and every change of the engine's is noticed."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidcnn
from minidcnn import functional as F
from minidcnn import models, nn, no_grad, optim
from minidcnn.backend import Array, kernels, nchw, use_kernels
from minidcnn.backend.cpu import CpuKernels, winograd
from minidcnn.backend.cpu.kept import Kept
from minidcnn.nn.constant import FEWEST
from minidcnn.segmentation import predict_mask
from minidcnn.tensor import Storage
from minidcnn.window import Window

SAME = Window((3, 3), padding=(1, 1))


def images(rng: np.random.Generator, n: int, c: int, h: int, w: int) -> Array:
    return nchw(rng.standard_normal((n, h, w, c), dtype=np.float32))


def kept_arrays(of: Any = None) -> list[Array]:
    """What the kernels keep at the moment."""
    kept = (of or kernels()).kept
    return [made for block in kept.blocks for entry in block.values() for _, made in entry.made.values()]


@pytest.fixture(autouse=True)
def by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about Winograd: whatever algorithm is forced for all tests, here the shape decides."""
    monkeypatch.delenv("MINIDCNN_CONV", raising=False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of weights that were transformed to be kept, in order."""
    shapes: list[tuple[int, ...]] = []
    transformed = winograd._transformed

    def noting(w: Array, turned: int, s: Any, half: int | None, together: int, scratch: Any = None) -> Array:
        if scratch is None:
            shapes.append(w.shape)
        return transformed(w, turned, s, half, together, scratch)

    monkeypatch.setattr(winograd, "_transformed", noting)
    return shapes


@pytest.fixture
def net() -> nn.Sequential:
    """Two convolutions that Winograd takes: of many channels for its tiles (weights pass by), and of few (blocks of tiles)."""
    return nn.Sequential(nn.Conv2d(20, 132, 3, padding=1), nn.ReLU(), nn.Conv2d(132, 148, 3, padding=1), nn.Conv2d(148, 17, 3, padding=1))


# -- kernels -------------------------------------------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 2), size=st.tuples(st.integers(5, 40), st.integers(5, 40)), c=st.sampled_from([16, 21, 32, 64, 96, 150, 288]),
    o=st.sampled_from([16, 23, 32, 64, 80, 144, 200]), bf16=st.booleans(), turned=st.booleans(), affine=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_results_have_the_same_bits(
    n: int, size: tuple[int, int], c: int, o: int, bf16: bool, turned: bool, affine: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own, x = CpuKernels("bf16" if bf16 else "float32"), images(rng, n, c, *size)
    w = images(rng, *((c, o) if turned else (o, c)), 3, 3)
    scale, offset = rng.standard_normal((2, o), dtype=np.float32)

    def run() -> Array:
        if turned:
            return own.conv_transpose2d(x, w, offset, SAME, size)
        return own.conv2d_affine(x, w, scale, offset, True, SAME, size) if affine else own.conv2d(x, w, offset, SAME, size)

    expected = run()
    with own.constant_weights([(w, Storage())]):
        assert np.array_equal(run(), expected)
        assert len(kept_arrays(own)) == 1
        kept_arrays(own)[0][...] = 0  # it is used, not made again
        assert not np.array_equal(run(), expected)
    assert np.array_equal(run(), expected)


def test_one_weight_serves_images_of_all_sizes(rng: np.random.Generator, made: list[tuple[int, ...]]) -> None:
    """In at most two forms: one for few tiles, one for many."""
    own, w = CpuKernels(), images(rng, 160, 144, 3, 3)
    sizes = [(5, 9), (12, 8), (40, 52), (16, 20), (64, 60), (8, 8)]
    many = [images(rng, 1, 144, *size) for size in sizes]
    expected = [own.conv2d(x, w, None, SAME, size) for x, size in zip(many, sizes, strict=True)]
    with own.constant_weights([(w, Storage())]):
        for _ in range(2):
            for x, size, y in zip(many, sizes, expected, strict=True):
                assert np.array_equal(own.conv2d(x, w, None, SAME, size), y)
    assert made == [w.shape] * 2


def test_a_new_version_replaces_the_old_one() -> None:
    kept, source, owner = Kept(), np.zeros(3), Storage()
    numbers = itertools.count()

    def make() -> Array:
        return np.array(next(numbers))

    assert kept.of(source, "a", make) is None
    with kept.constant([(source, owner)]):
        assert [kept.of(source, name, make) for name in "aab"] == [0, 0, 1]
        first = weakref.ref(kept.of(source, "a", make))  # type: ignore[arg-type]
        owner.version += 1
        assert [kept.of(source, name, make) for name in "aba"] == [2, 3, 2]
        gc.collect()
        assert first() is None  # not both at a time
        assert kept.of(source.copy(), "a", make) is None
        with kept.constant([(source, owner)]):  # the outer block has it already
            assert kept.of(source, "a", make) == 2
        assert kept.of(source, "a", make) == 2
    assert kept.of(source, "a", make) is None
    assert not kept.blocks


def test_an_array_lives_as_long_as_the_block() -> None:
    """Else another one could take its place in memory, and be taken for it."""
    source = np.zeros(3)
    alive = weakref.ref(source)
    with Kept().constant([(source, Storage())]):
        del source
        gc.collect()
        assert alive() is not None
    gc.collect()
    assert alive() is None


# -- networks --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_network_makes_each_weight_once(
    net: nn.Sequential, made: list[tuple[int, ...]], precision: str, rng: np.random.Generator
) -> None:
    x = minidcnn.Tensor(images(rng, 1, 20, 30, 26))
    minidcnn.use("numpy", precision)
    try:
        with no_grad():
            expected = net(x).numpy()
            assert not made
            with nn.constant_weights(net):
                for _ in range(3):
                    assert np.array_equal(net(x).numpy(), expected)
                assert made == [p.shape for p in net.parameters() if p.ndim == 4]
            assert not kernels().kept.blocks  # type: ignore[attr-defined]
            assert np.array_equal(net(x).numpy(), expected)
            assert len(made) == 3
    finally:
        minidcnn.use("numpy")


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "an optimizer": lambda net: optim.SGD(net.parameters(), lr=0.1).step(),
    "adam": lambda net: optim.Adam(net.parameters(), lr=0.1).step(),
    "load_state_dict": lambda net: net.load_state_dict({name: 2 * array for name, array in net.state_dict().items()}),
    "assignment to a part": lambda net: net[2].weight.__setitem__(0, 3.0),
    "assignment to data": lambda net: setattr(net[2].weight, "data", net[2].weight.numpy() * 2),
    "init": lambda net: nn.init.kaiming_normal_(net[2].weight),
    "a view": lambda net: net[2].weight.detach()[1:3].__setitem__(0, 5.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(net: nn.Sequential, change: str, rng: np.random.Generator) -> None:
    x = minidcnn.Tensor(images(rng, 1, 20, 14, 18))
    F.mean(net(x) ** 2).backward()
    with no_grad(), nn.constant_weights(net):
        before = net(x).numpy()
        CHANGES[change](net)
        now = net(x).numpy()
    with no_grad():
        expected = net(x).numpy()
    assert not np.array_equal(before, expected)
    assert np.array_equal(now, expected)


def test_gradients_are_the_same_within_a_block(net: nn.Sequential, made: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    """Small batches whose gradients add up share the transforms of both directions; the step makes them anew."""
    batches = [minidcnn.Tensor(images(rng, 1, 20, 14, 18)) for _ in range(3)]

    def gradients() -> list[Array]:
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        for batch in batches:
            F.mean(net(batch) ** 2).backward()
        result = [p.grad.numpy().copy() for p in net.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
        return result

    state = {name: array.copy() for name, array in net.state_dict().items()}
    expected = [gradients(), gradients()]
    net.load_state_dict(state)
    with nn.constant_weights(net):
        got = [gradients(), gradients()]
    for a, b in zip(itertools.chain(*got), itertools.chain(*expected), strict=True):
        assert np.array_equal(a, b)
    forward, back = 3, 2  # the images need no gradient
    assert len(made) == 2 * (forward + back)


def test_data_is_read_only_within_a_block(net: nn.Sequential) -> None:
    weight = net[0].weight
    with nn.constant_weights(net):
        with nn.constant_weights(net):
            pass
        with pytest.raises(ValueError, match="read-only"):
            weight.data[0] = 1
    weight.data[0] = 1
    assert (weight.numpy()[0] == 1).all()


def test_memory_is_free_after_the_block_even_after_an_error(net: nn.Sequential, rng: np.random.Generator) -> None:
    x = minidcnn.Tensor(images(rng, 1, 20, 14, 18))
    with pytest.raises(KeyError), no_grad(), nn.constant_weights(net):
        net(x)
        held = [weakref.ref(array) for array in kept_arrays()]
        assert len(held) == 3
        raise KeyError
    gc.collect()
    assert [h() for h in held] == [None] * 3
    net[0].weight.data[...] = 0  # writable again


def test_few_runs_keep_nothing(net: nn.Sequential, made: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    x = minidcnn.Tensor(images(rng, 1, 20, 14, 18))
    with no_grad(), nn.constant_weights(net, FEWEST - 1):
        net(x)
        net[0].weight.data[...] = 0
    assert not made
    with no_grad(), nn.constant_weights(net, FEWEST):
        net(x)
    assert len(made) == 3


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="constant_weights: module must be a Module, got list"), nn.constant_weights([]):  # type: ignore[arg-type]
        pass


def test_blocks_in_threads(rng: np.random.Generator) -> None:
    """Each thread has a network of its own and blocks that begin and end whenever they do."""
    x = minidcnn.Tensor(images(rng, 1, 16, 14, 18))
    nets = [nn.Sequential(nn.Conv2d(16, 16 * k, 3, padding=1), nn.Conv2d(16 * k, 24, 3, padding=1)) for k in (1, 2, 3, 4)]
    with no_grad():
        expected = [net(x).numpy() for net in nets]

    def work(k: int) -> bool:
        same = True
        for _ in range(10):
            with no_grad(), nn.constant_weights(nets[k]):
                same = same and all(np.array_equal(nets[k](x).numpy(), expected[k]) for _ in range(3))
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert not kernels().kept.blocks  # type: ignore[attr-defined]


def test_blocks_that_threads_leave_at_the_same_time_are_all_gone() -> None:
    """Threads take turns as often as they can: one of them may still hold the list from which another takes its block."""
    kept, interval = Kept(), sys.getswitchinterval()
    weight = [(np.ones((3, 2), np.float32), Storage())]

    def enter_and_leave(_: int) -> None:
        for _ in range(2000):
            with kept.constant(weight):
                pass

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(enter_and_leave, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert kept.blocks == []


@pytest.mark.parametrize("forced", ["gemm", "reference"])
def test_other_algorithms_keep_nothing(
    net: nn.Sequential, made: list[tuple[int, ...]], forced: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("MINIDCNN_CONV", forced)
    x = minidcnn.Tensor(images(rng, 1, 20, 14, 18))
    with no_grad(), nn.constant_weights(net):
        once, again = net(x).numpy(), net(x).numpy()
    assert np.array_equal(once, again)
    assert not made


def test_reference_kernels_keep_nothing(net: nn.Sequential, rng: np.random.Generator) -> None:
    x = minidcnn.Tensor(images(rng, 1, 20, 7, 9))
    with use_kernels("reference"), no_grad(), nn.constant_weights(net):
        once, again = net(x).numpy(), net(x).numpy()
    assert np.array_equal(once, again)


@pytest.fixture
def unet() -> models.UNet:
    return models.UNet(3, 2, base=16, padding="same", norm="batch")


def test_tiles_of_an_image_share_the_transforms(unet: models.UNet, made: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    image = rng.random((3, 200, 180), dtype=np.float32)
    small = predict_mask(unet, image[:, :90], tile=64)  # fewer tiles than pay
    assert not made
    mask = predict_mask(unet, image, tile=64, flips=True)
    shapes = {p.shape for p in unet.parameters() if p.shape[2:] == (3, 3) and min(p.shape[:2]) >= 16}
    assert set(made) <= shapes
    weights = [p for p in unet.parameters() if p.shape in set(made)]
    assert len(made) == len(weights)  # each one once
    assert len(made) >= 12
    with use_kernels(CpuKernels()):
        assert np.array_equal(mask[:5], predict_mask(unet, image, tile=64, flips=True)[:5])
    assert small.shape == (90, 180)
