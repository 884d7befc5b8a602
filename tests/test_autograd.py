"""The engine: what the graph keeps, when it is freed, how gradients add up, and what it refuses to do."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import minidcnn
from minidcnn import Function, Tensor, check_grads, enable_grad, grad, no_grad
from minidcnn import functional as F
from minidcnn.optim import clip_grad_value_
from minidcnn.recording import is_grad_enabled


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float64), requires_grad=True)


# -- values -------------------------------------------------------------------------------------------------------------


def test_a_diamond_adds_both_paths() -> None:
    x = leaf(3.0)
    y = x * x
    (y * x + y).sum().backward()  # x^3 + x^2
    assert x.grad is not None
    assert x.grad.item() == 3 * 9 + 2 * 3


def test_each_node_runs_once_however_many_paths_lead_to_it() -> None:
    calls = []

    @dataclass(frozen=True)
    class Count(Function):
        def forward(self, x):
            return x * 1.0

        def vjp(self, g, *_):
            calls.append(g)
            return (g,)

    x = leaf(1.0)
    y = Count()(x)
    for _ in range(40):
        y = y + y  # 2^40 paths
    y.sum().backward()
    assert x.grad.item() == 2.0**40
    assert len(calls) == 1


def test_backward_accumulates_and_zero_grad_forgets() -> None:
    x = leaf(2.0)
    for k in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.item() == 4 * k
    x.zero_grad()
    assert x.grad is None


def test_grad_returns_gradients_and_leaves_grad_alone() -> None:
    x, y = leaf(2.0), leaf(5.0)
    z = x * x * y
    gx, gy = grad(z, [x, y])
    assert (gx.item(), gy.item()) == (20.0, 4.0)
    assert x.grad is None
    assert y.grad is None


def test_grad_of_an_intermediate_tensor_does_not_run_what_lies_before_it() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * y
    (gy,) = grad(z, y, retain_graph=True)
    assert gy.item() == 8.0
    gy, gx = grad(z, [y, x])
    assert (gy.item(), gx.item()) == (8.0, 32.0)


def test_grad_of_several_outputs_is_the_sum_weighted_by_grad_outputs() -> None:
    x = leaf(2.0)
    (g,) = grad([x * x, x * 3], x, [np.array([10.0]), np.array([100.0])])
    assert g.item() == 40 + 300
    y = (x * x).sum()
    assert grad(y, x, 2.0, retain_graph=True)[0].item() == grad(y, x, [2])[0].item() == 8  # as y.backward(2.0)


def test_unused_inputs_are_an_error_or_zeros() -> None:
    x, y = leaf(1.0), leaf(1.0, 2.0)
    z = x * x
    with pytest.raises(RuntimeError, match="do not depend on input 1; pass allow_unused=True"):
        grad(z, [x, y], retain_graph=True)
    gx, gy = grad(z, [x, y], allow_unused=True)
    assert gx.item() == 2.0
    assert gy.numpy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("f", [lambda x: x**0, lambda x: grad(F.relu(x), x, np.ones(2), create_graph=True)[0]], ids=["power", "relu"])
def test_a_derivative_of_zero_is_no_error(f) -> None:
    x, apart = leaf(2.0, -3.0), leaf(1.0)
    y = f(x)
    with pytest.raises(RuntimeError, match="do not depend on input 1"):
        grad(y.sum(), [x, apart], retain_graph=True)
    assert grad(y.sum(), x)[0].numpy().tolist() == [0.0, 0.0]
    z = x * 2
    assert grad(f(z).sum(), [z, x])[1].numpy().tolist() == [0.0, 0.0]


def test_infinite_values_do_not_falsify_seeds_and_zeros() -> None:
    x, unused = leaf(np.inf), leaf(np.nan, np.inf)
    gx, gu = grad(x * 2, [x, unused], allow_unused=True)
    assert gx.item() == 2.0
    assert gu.numpy().tolist() == [0.0, 0.0]


def test_derivatives_of_any_order() -> None:
    x = leaf(2.0)
    y = x**5
    for expected in (5 * 2**4, 20 * 2**3, 60 * 2**2, 120 * 2, 120):
        (y,) = grad(y, x, create_graph=True)
        assert y.item() == expected


def test_create_graph_makes_grad_itself_differentiable() -> None:
    x = leaf(3.0)
    (x * x * x).sum().backward(create_graph=True)
    first = x.grad
    x.zero_grad()
    (first * first).sum().backward()  # d (3x^2)^2 / dx = 36 x^3
    assert x.grad.item() == 36 * 27


def test_gradients_of_two_leaves_never_share_memory() -> None:
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = Tensor(np.array([1.0, 1.0]))
    (a + b).backward(seed)
    a.grad._array += 10
    assert b.grad.numpy().tolist() == [1.0, 1.0]
    assert seed.numpy().tolist() == [1.0, 1.0]
    c = leaf(1.0, 2.0, 3.0)
    c.sum().backward()  # a broadcast of one number
    c.grad._array[0] = 7
    assert c.grad.numpy().tolist() == [7.0, 1.0, 1.0]


def test_gradients_that_can_be_differentiated_share_no_memory_either() -> None:
    a, b, c = leaf(1.0), leaf(1.0), leaf(1.0)
    seed = Tensor(np.array([1.0]), requires_grad=True)
    (a + b).backward(seed, create_graph=True)
    (c + 0.0).backward(Tensor(np.array([1.0])), create_graph=True)
    assert grad(a.grad + b.grad * 2, [seed])[0].item() == 3
    for x in (a, b):
        x.grad = x.grad.detach()
    (a + b + c).sum().backward()  # adds in place
    assert [x.grad.item() for x in (a, b, c)] == [2.0, 2.0, 2.0]
    assert seed.item() == 1


def test_gradients_of_one_pass_with_create_graph_add_up_apart() -> None:
    a, b = leaf(1.0), leaf(1.0)
    seed = Tensor(np.array([1.0]))
    (a + b).backward(seed, create_graph=True)
    (a + b).backward(seed)
    assert (a.grad.item(), b.grad.item(), seed.item()) == (2.0, 2.0, 1.0)


def test_a_gradient_that_was_returned_is_not_added_to_by_a_later_pass() -> None:
    x, w = leaf(1.0, 2.0, 3.0), leaf(1.0, 2.0, 3.0)
    (g,) = grad((x * 2 + x * 3).sum(), x)
    a = w * 2
    grad([a, a * 1], w, [g, Tensor(np.ones(3))])
    assert g.numpy().tolist() == [5.0, 5.0, 5.0]
    (x * 2 + x * 3).sum().backward()
    assert x.grad is not None
    a = w * 2
    grad([a, a * 1], w, [x.grad, Tensor(np.ones(3))])
    assert x.grad.numpy().tolist() == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_that_are_returned_share_no_memory(create_graph: bool) -> None:
    a, b, c = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0)
    seed = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    results = grad(a + b + c, [a, a, b, c], seed, create_graph=create_graph)
    with no_grad():
        for i, g in enumerate(results):
            g *= 10**i
    assert [g.numpy().tolist() for g in results] == [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0], [3000.0]]
    assert seed.numpy().tolist() == [1.0, 2.0]
    (whole,) = grad(a.sum(), a)
    whole._array[0] = 7  # no broadcast of one number
    assert whole.numpy().tolist() == [7.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "f"), [((1, 3), lambda x: x.sum(0) * 3), ((2, 1, 1), lambda x: x.sum((1, 2)) * 3), ((1,), lambda x: x.mean() * 3)]
)
def test_the_gradient_of_a_sum_of_one_number_can_be_added_to(shape: tuple[int, ...], f) -> None:
    """It is a broadcast to as many numbers as there were, which NumPy makes read-only."""
    x = Tensor(np.ones(shape), requires_grad=True)
    (returned,) = grad(f(x).sum(), x)
    returned += 1
    assert (returned.numpy() == 4).all()
    for passes in (1, 2):
        f(x).sum().backward()
        assert x.grad is not None
        assert (x.grad.numpy() == 3 * passes).all()
    clip_grad_value_([x], 5)
    assert (x.grad.numpy() == 5).all()


def test_a_leaf_frozen_after_the_forward_pass_collects_nothing() -> None:
    a, b = leaf(2.0), leaf(3.0)
    y = a * b * b
    b.requires_grad_(False)
    y.sum().backward()
    assert a.grad is not None and a.grad.item() == 9
    assert b.grad is None


def test_a_sum_of_many_gradients_is_not_added_into_one_that_others_hold() -> None:
    """x + y passes one gradient on to both sides: adding into it in place would corrupt the other."""
    x, y = leaf(1.0), leaf(1.0)
    z = x + y
    w = z + z + z + x
    w.sum().backward()
    assert (x.grad.item(), y.grad.item()) == (4.0, 3.0)


# -- memory ---------------------------------------------------------------------------------------------------------------


def test_a_chain_of_100_000_operations() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.sum().backward()
    assert x.grad.item() == 1.0
    z = x
    for _ in range(100_000):
        z = z * 1.0
    del z  # a graph that is never run backward goes without recursion too


def test_the_graph_is_freed_during_backward() -> None:
    """When the first function runs backward, the arrays that the later ones kept are gone already."""
    alive_at_first: list[bool] = []
    refs: list[weakref.ref] = []

    @dataclass(frozen=True)
    class First(Function):
        def forward(self, x):
            return x * 1.0

        def vjp(self, g, *_):
            alive_at_first.extend(r() is not None for r in refs)
            return (g,)

    x = leaf(*range(1, 10))
    y = First()(x)
    for _ in range(5):
        y = F.exp(y * 0.1)
        refs.append(weakref.ref(y._array))
    total = y.sum()
    del y
    assert all(r() is not None for r in refs)
    total.backward()
    assert alive_at_first == [False] * 5


def test_no_reference_cycles() -> None:
    """Memory goes when the last reference goes, not when the garbage collector happens to run."""
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = F.max_pool2d(F.exp(F.reshape(x, (1, 1, 1, 2))), (1, 2))
        ref = weakref.ref(y._node)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_functions_keep_only_what_they_declare() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2.0  # linear: needs nothing
    array = weakref.ref(y._array)
    z = y + 1.0
    del y
    assert array() is None
    z.sum().backward()


def test_backward_twice_is_a_clear_error_without_retain_graph() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8.0
    with pytest.raises(RuntimeError, match="run backward already and its memory freed; pass retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        grad(y, x)
    assert x.grad.item() == 8.0  # a backward that fails changes nothing


# -- changes in place ---------------------------------------------------------------------------------------------------


def test_an_array_that_backward_needs_cannot_be_written() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        x.reshape(2, 1).data[0] = 5  # a view of it neither
    y.sum().backward()
    x.data[0] = 5  # backward is done with it
    assert x.numpy().tolist() == [5.0, 2.0]


def test_a_graph_that_is_dropped_releases_its_arrays() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    del y
    x.data[0] = 5
    assert x.numpy()[0] == 5


@pytest.mark.parametrize("change", ["setitem", "data", "changed", "view"])
def test_a_change_behind_the_back_of_a_graph_is_an_error_not_a_wrong_gradient(change: str) -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    with no_grad():
        if change == "setitem":
            x[0] = 5.0
        elif change == "data":
            x.data = np.array([5.0, 2.0])
        elif change == "view":
            x.detach()[1] = 3.0
        else:
            x._array[0] = 5.0
            x.changed()
    with pytest.raises(RuntimeError, match=r"array of shape \(2,\) that Mul needs was changed in place"):
        y.backward()
    assert x.grad is None


def test_a_changed_output_is_noticed_too() -> None:
    x = leaf(1.0, 2.0)
    y = F.exp(x)
    z = y.sum()
    with no_grad():
        y[0] = 0.0
    with pytest.raises(RuntimeError, match="Exp needs was changed"):
        z.backward()


def test_assigning_into_a_tensor_of_a_graph_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="write inside no_grad"):
        (x * 2)[0] = 1.0
    with pytest.raises(RuntimeError, match="write inside no_grad"):
        Tensor(np.zeros(2))[0] = x[0]


def test_the_constructor_copies() -> None:
    array = np.array([1.0, 2.0])
    x = Tensor(array, requires_grad=True)
    y = (x * x).sum()
    array[0] = 100
    y.backward()
    assert x.grad.numpy().tolist() == [2.0, 4.0]


# -- switching ------------------------------------------------------------------------------------------------------------


def test_no_grad_can_be_kept_and_used_again_and_within_itself() -> None:
    off, on = no_grad(), enable_grad()
    for _ in range(2):
        with off, off, on, off:
            assert not is_grad_enabled()
            with on:
                assert is_grad_enabled()
        assert is_grad_enabled()

    modes: list[bool] = []

    def worker() -> None:
        with off:
            modes.append(is_grad_enabled())
        modes.append(is_grad_enabled())

    with off, on:
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    assert modes == [False, True]


def test_a_decorated_generator_records_nothing_and_its_caller_does() -> None:
    said: list[object] = []

    @no_grad()
    def steps(n: int) -> Iterator[bool]:
        try:
            for _ in range(n):
                try:
                    said.append((yield is_grad_enabled()))
                except KeyError as error:
                    said.append(error.args[0])
        finally:
            said.append(is_grad_enabled())
        return "done"

    modes = []
    for mode in steps(2):
        modes.append((mode, is_grad_enabled()))
    assert modes == [(False, True)] * 2 and said == [None, None, False]
    generator = steps(5)
    assert next(generator) is False and generator.send(3) is False and generator.throw(KeyError(4)) is False  # type: ignore[attr-defined]
    assert said[3:] == [3, 4]
    generator.close()  # type: ignore[attr-defined]
    assert said[5:] == [False] and is_grad_enabled()
    generator = steps(0)
    with pytest.raises(StopIteration, match="done"):
        next(generator)
    with pytest.raises(ZeroDivisionError):
        (generator := steps(2)).send(None), generator.throw(ZeroDivisionError)  # type: ignore[attr-defined]
    assert is_grad_enabled()


def test_an_error_that_a_decorated_generator_lets_pass_is_freed_at_once() -> None:
    """It holds the frames that it went through, with their tensors; so none of these may hold the error."""

    class Failed(Exception):
        pass

    @no_grad()
    def steps() -> Generator[None, None, None]:
        yield

    def failing() -> weakref.ref[Failed]:
        generator = steps()
        next(generator)
        try:
            generator.throw(Failed())
        except Failed as error:
            return weakref.ref(error)
        raise AssertionError("it has passed")

    gc.disable()
    try:
        assert failing()() is None
    finally:
        gc.enable()


def test_a_generator_left_in_another_thread_switches_nothing_there() -> None:
    def plain() -> Iterator[bool]:
        with no_grad():
            yield is_grad_enabled()

    generator, modes = plain(), []
    thread = threading.Thread(target=lambda: modes.append(next(generator)))
    thread.start()
    thread.join()
    assert modes == [False] and is_grad_enabled()
    assert list(generator) == [] and is_grad_enabled()


def test_async_functions_are_not_decorated() -> None:
    async def request() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"^no_grad: request is async, so others run in its middle; write `with` around what it computes"):
        no_grad()(request)
    with pytest.raises(TypeError, match="^enable_grad: stream is async"):
        enable_grad()(stream)


def test_no_grad_records_nothing_also_as_a_decorator() -> None:
    x = leaf(1.0)
    with no_grad():
        assert not is_grad_enabled()
        y = x * x
        with enable_grad():
            assert (x * x).requires_grad
    assert not y.requires_grad
    assert is_grad_enabled()

    @no_grad()
    def f() -> Tensor:
        return x * x

    assert not f().requires_grad
    assert not f().requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_detach_stops_gradients_and_shares_memory() -> None:
    x = leaf(2.0)
    y = x.detach()
    assert not y.requires_grad
    assert np.shares_memory(x.numpy(), y.numpy())
    (x * y).backward()
    assert x.grad.item() == 2.0


def test_vjp_thunks_run_only_where_a_gradient_is_wanted() -> None:
    made = []

    @dataclass(frozen=True)
    class Product(Function):
        needs_inputs = (0, 1)

        def forward(self, a, b):
            return a * b

        def vjp(self, g, a, b):
            return lambda: made.append("a") or g * b, lambda: made.append("b") or g * a

    x, frozen = leaf(2.0), Tensor(np.array([3.0]))
    Product()(x, frozen).backward()
    assert made == ["a"]
    y = leaf(5.0)
    z = Product()(x, y)
    made.clear()
    assert grad(z, y)[0].item() == 2.0
    assert made == ["b"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: (leaf(1.0, 2.0) * 2).backward(), r"shape \(2,\) needs a grad argument of that shape"),
        (lambda: Tensor([1.0]).backward(), "does not depend on anything that requires gradients"),
        (lambda: (leaf(1.0) * 2).requires_grad_(False), "only leaves can be switched"),
        (lambda: grad(leaf(1.0) * 2, Tensor([1.0])), "input 0 does not require gradients"),
    ],
)
def test_runtime_errors(make, sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("outputs", "inputs", "sentence"),
    [
        (leaf(1.0), np.ones(2), "^grad: input 0 must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor"),
        (leaf(1.0), [leaf(1.0), 2.0], "^grad: input 1 must be a Tensor, got float"),
        (np.array(3.0), leaf(1.0), "^grad: output 0 must be a Tensor, got ndarray"),
        (3.0, leaf(1.0), "^grad: output 0 must be a Tensor, got float"),
        (None, leaf(1.0), "^grad: output 0 must be a Tensor, got NoneType"),
    ],
)
def test_gradients_are_those_of_tensors(outputs, inputs, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        grad(outputs, inputs)


def test_a_seed_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grad has shape \(3,\), the tensor has \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward(np.ones(3))
    with pytest.raises(ValueError, match="2 outputs need as many grad_outputs, got 1"):
        x = leaf(1.0)
        grad([x * 2, x * 3], x, [None])


def test_only_floating_tensors_carry_gradients() -> None:
    with pytest.raises(TypeError, match="got dtype int64"):
        Tensor([1, 2], requires_grad=True)
    whole = Tensor([1, 2])
    with pytest.raises(TypeError, match="got dtype int64"):
        whole.requires_grad_()
    with pytest.raises(TypeError, match="got dtype int64"):
        whole.requires_grad = True
    whole.requires_grad = False
    assert not whole.requires_grad


def test_assigning_requires_grad_cannot_cut_the_graph() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    with pytest.raises(RuntimeError, match="only leaves can be switched; use detach"):
        h.requires_grad = False
    ((h * h).sum() + x.sum()).backward()
    assert x.grad is not None and x.grad.numpy().tolist() == [9.0, 17.0]
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_float32_stays_float32_through_backward() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    ((x * np.float64(2.0) + 1) ** 2 / 3).mean().backward(np.float64(1.0))
    assert x.grad.dtype == np.float32


def test_a_function_of_ones_own() -> None:
    """A function of the user's own: forward, vjp by differentiable functions, and the library checks it to second order."""

    @dataclass(frozen=True)
    class Cube(Function):
        needs_inputs = (0,)

        def forward(self, x):
            return x**3

        def vjp(self, g, x):
            return (g * 3 * x * x,)

    check_grads(Cube(), [np.array([0.5, -1.5])], order=3)


def test_public_names_exist() -> None:
    for name in minidcnn.__all__:
        if name not in ("data", "interop", "models", "nn", "optim", "segmentation"):
            assert getattr(minidcnn, name) is not None


def test_an_empty_result_needs_a_gradient_too() -> None:
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    with pytest.raises(RuntimeError, match="needs a grad argument"):
        (x * 2).backward()


def test_gradients_of_joined_tensors_do_not_keep_the_whole_one_alive() -> None:
    x, y = (Tensor(np.ones((2, 3)), requires_grad=True) for _ in range(2))
    z = F.cat([x, y], 0)
    (z * z).sum().backward()
    for gradient in (x.grad, y.grad):
        assert gradient is not None and (gradient._array.base is None or gradient._array.base.size == gradient.size)
