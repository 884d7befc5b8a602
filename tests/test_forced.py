"""Every algorithm of a convolution and every length of a vector, forced: what is true of convolution is true of each of them.

Numbers are whole, so the definition is exact in float64; what multiplies and adds must agree to the bit, and Winograd, which divides by 24, within
its rounding errors. The same for the whole suite: `MINIDCNN_CONV=gemm pytest`, see docs/contributing.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn import Tensor, grad, manual_seed, nn, use_kernels
from minidcnn import functional as F
from minidcnn.backend import Kernels
from minidcnn.backend.cpu import algorithm, instructions, vector
from minidcnn.testing import Conv, convs, float_dtypes, integers, lay_out, layouts, pairs, seeds
from minidcnn.window import Window

Array = np.ndarray[Any, Any]
HERE = Path(__file__).resolve()

# Numbers in a vector, a processor that has such vectors, and what this one must have to stand in for it. The last has no fused
# multiply-add, as the plainest of its kind.
VECTORS = {"16": ("skylake-avx512", "avx512f"), "8": ("haswell", "avx2"), "4": ("nehalem", "sse4.2")}

each_algorithm = pytest.mark.parametrize("chosen", algorithm.NAMES)
LAYER = Conv(Window((3, 3), padding=(1, 0)), (41, 34), 2, 36, 50, 1)
channels = st.sampled_from([1, 3, 8, 13, 16, 17, 32, 40])


@st.composite
def cases(draw: st.DrawFn) -> Conv:
    """3x3 windows of stride 1, which have the most algorithms, on images of up to three tiles; every second one is any other convolution."""
    if draw(st.booleans()):
        return draw(convs())
    padding, least = draw(pairs(0, 3)), draw(pairs(1, 11))
    size = (max(least[0], 3 - 2 * padding[0]), max(least[1] + 1, 3 - 2 * padding[1]))
    return Conv(Window((3, 3), padding=padding), size, draw(st.integers(1, 2)), draw(channels), draw(channels), 1)


def arrays(case: Conv, seed: int, dtype: Any = np.float64) -> list[Array]:
    """x, w, y and a bias for each direction, in whole numbers."""
    shapes = (case.x, case.w, case.y, (case.outputs,), (case.channels,))
    return [integers(shape, seed + i, dtype) for i, shape in enumerate(shapes)]


def normal(case: Conv, rng: np.random.Generator) -> list[Array]:
    """The same, from a normal distribution, in float32."""
    return [rng.standard_normal(shape, dtype="f4") for shape in (case.x, case.w, case.y, (case.outputs,), (case.channels,))]


def triple(case: Conv, x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None, back_bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        F.conv2d(x, w, bias, **case.options),
        F.conv_transpose2d(y, w, back_bias, output_padding=case.output_padding, **case.options),
        F.conv2d_weight(x, w.shape, y, **case.options),
    )


def close(got: Array, exact: Array, chosen: str) -> None:
    assert got.shape == exact.shape
    allowed = 1e-4 * np.abs(exact).max(initial=1) if chosen == "winograd" and got.dtype == np.float32 else 0
    np.testing.assert_allclose(got, exact, rtol=0, atol=allowed)


@each_algorithm
@given(case=cases(), seed=seeds, dtype=float_dtypes, layout=layouts)
def test_the_triple_is_that_of_the_definition(chosen: str, case: Conv, seed: int, dtype: Any, layout: str) -> None:
    whole = arrays(case, seed)
    with use_kernels("reference"):
        exact = triple(case, *map(Tensor.wrap, whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(algorithm.VARIABLE, chosen)
        laid = [lay_out(a.astype(dtype), layout if a.ndim == 4 else "C") for a in whole]
        results = triple(case, *map(Tensor.wrap, laid))
    for got, expected in zip(results, exact, strict=True):
        assert got.dtype == dtype
        close(got.numpy(), expected.numpy(), chosen)


@each_algorithm
@given(case=cases(), seed=seeds)
def test_derivatives_of_both_orders_are_those_of_the_definition(chosen: str, case: Conv, seed: int) -> None:
    """Gradients of <conv2d(x, w, b), y>, and of the norm of these, in float32."""

    def derivatives(dtype: Any) -> list[Array]:
        x, w, y, bias, _ = (Tensor(a, requires_grad=True) for a in arrays(case, seed, dtype))
        first = grad(F.conv2d(x, w, bias, **case.options), [x, w, bias], y, create_graph=True)
        second = grad(F.sum(first[0] * first[0]) + F.sum(first[1] * first[1]), [x, w, y], allow_unused=True)
        return [t.numpy() for t in (*first, *second)]

    with use_kernels("reference"):
        exact = derivatives(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(algorithm.VARIABLE, chosen)
        results = derivatives(np.float32)
    for got, expected in zip(results, exact, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4 * np.abs(expected).max(initial=1))


@each_algorithm
def test_each_of_the_triple_is_adjoint_to_the_others(chosen: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """<Aw x, y> = <x, Aw* y> = <w, A*(x, y)> on a layer of several blocks and threads, relative to the norms."""
    monkeypatch.setenv(algorithm.VARIABLE, chosen)
    x, w, y, *_ = (Tensor(a) for a in normal(LAYER, rng))
    forward, back, weight = (t.numpy().astype(float) for t in triple(LAYER, x, w, y, None, None))
    one, two, three = np.vdot(forward, y.numpy()), np.vdot(x.numpy(), back), np.vdot(w.numpy(), weight)
    assert max(abs(one - two), abs(one - three)) <= 1e-6 * np.linalg.norm(forward) * np.linalg.norm(y.numpy())


@each_algorithm
def test_a_network_has_the_gradients_of_the_definition(chosen: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smooth one: where ReLU or a maximum turns over, one bit decides."""
    monkeypatch.setenv(algorithm.VARIABLE, chosen)
    images, labels = rng.standard_normal((2, 3, 40, 56), dtype="f4"), rng.integers(0, 2, (2, 40, 56))

    def gradients(dtype: str) -> Array:
        manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh(),
            nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.Tanh(),
            nn.Conv2d(24, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40), nn.Tanh(),
            nn.ConvTranspose2d(40, 16, 2, stride=2), nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.Tanh(), nn.Conv2d(16, 2, 1),
        ).to(dtype)  # fmt: skip
        F.cross_entropy(network(Tensor(images.astype(dtype))), Tensor(labels)).backward()
        return np.concatenate([p.grad.numpy().reshape(-1) for p in network.parameters() if p.grad is not None])

    with use_kernels("reference"):
        exact = gradients("float64")
    assert np.linalg.norm(gradients("float32") - exact) <= 1e-5 * np.linalg.norm(exact)


def test_forcing_reaches_each_of_the_triple(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The reference is seen to be called or not; what tells Winograd apart are its rounding errors."""
    tensors, called = [Tensor(a) for a in normal(LAYER, rng)], []
    for name in ("conv2d", "conv_transpose2d", "conv2d_weight"):
        kernel = getattr(Kernels, name)
        monkeypatch.setattr(Kernels, name, lambda *a, name=name, kernel=kernel: (called.append(name), kernel(*a))[1])
    results = {}
    for chosen in algorithm.NAMES:
        called.clear()
        monkeypatch.setenv(algorithm.VARIABLE, chosen)
        results[chosen] = [t.numpy() for t in triple(LAYER, *tensors)]
        assert called == (["conv2d", "conv_transpose2d", "conv2d_weight"] if chosen == "reference" else [])
    for products, winograd in zip(results["gemm"], results["winograd"], strict=True):
        assert (products != winograd).any()


@pytest.mark.parametrize(
    "lanes", [n for n in VECTORS if int(n) != vector.LANES or instructions.BF16]
)  # those are what the tests above run on
def test_every_vector_path(lanes: str) -> None:
    """The above and the tests of the vector code, compiled for another processor, in a process of its own; none of these has AVX512-BF16."""
    from llvmlite import binding

    processor, feature = VECTORS[lanes]
    if not binding.get_host_cpu_features().get(feature):
        pytest.skip(f"this processor has no {feature}")
    variables = {"MINIDCNN_LANES": lanes, "NUMBA_CPU_NAME": processor, "HYPOTHESIS_PROFILE": "short", "PYTEST_ADDOPTS": ""}
    names = [HERE.name, "test_winograd.py"] if int(lanes) != vector.LANES else []
    files = [str(HERE.with_name(name)) for name in (*names, "test_bf16.py")]
    chosen = "not reference and not vector_path and not shorter_vectors and not neon"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", chosen, *files],
        env={**os.environ, **variables}, cwd=HERE.parent.parent, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


NEON = """
import re
import numba
from llvmlite import binding
from minidcnn.backend.cpu import vector

binding.initialize_all_targets()
binding.initialize_all_asmprinters()
machine = binding.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="generic", features="+neon", opt=3)
for vectors, rows in enumerate(vector.ROWS, 1):
    product = vector.make_product(rows, vectors)
    function = numba.njit(lambda a, ar, step, runs, b, c, cr, k, n, more: product(a, ar, step, runs, b, c, cr, k, n, more, None))
    function.compile((numba.int64,) * 10)
    code = re.sub('target datalayout = ".*"', "", function.inspect_llvm(function.signatures[0]))
    module = binding.parse_assembly(re.sub('target triple = ".*"', 'target triple = "aarch64-unknown-linux-gnu"', code))
    lines = machine.emit_assembly(module).splitlines()
    spilled = [line for line in lines if re.search(r"(str|stp|ldr|ldp)\\s+q.*\\[sp", line)]
    print(rows * vectors, sum("fmla" in line for line in lines), sum("fmaf" in line for line in lines), len(spilled))
"""


def test_the_product_keeps_its_block_in_the_registers_of_neon() -> None:
    """Compiled for a processor that is not here: a fused multiply-add for each vector of the block, no call, nothing spilled to the stack."""
    from llvmlite import binding

    binding.initialize_all_targets()
    try:
        binding.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM has no AArch64")
    done = subprocess.run(
        [sys.executable, "-c", NEON], env={**os.environ, "MINIDCNN_LANES": "4"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == 4
    for vectors, multiplied, called, spilled in counts:
        assert multiplied and multiplied % vectors == 0 and not called and not spilled  # the step along k may have been unrolled
