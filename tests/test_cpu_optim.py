"""Steps of optimizers and norms of gradients on the CPU against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, close, laid_out

from minidcnn.backend.cpu import optim
from minidcnn.backend.rules import AdamRule, SgdRule


@pytest.mark.parametrize("layouts", [("C", "C"), ("channels-last", "channels-last"), ("C", "channels-last"), ("sliced", "reversed")])
@pytest.mark.parametrize("dtype", [*FLOATS, "f2"])
@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (40, 30, 3, 3)])
def test_steps_change_parameter_and_state_as_the_reference_does(shape, dtype, layouts, rng: np.random.Generator) -> None:
    def fresh() -> list[np.ndarray]:
        values = [np.random.default_rng(i).standard_normal(shape).astype(dtype) for i in range(4)]
        return [laid_out(v, kind) for v, kind in zip(values, (layouts[0], layouts[1], *layouts), strict=True)]

    for first, momentum, dampening, decay, nesterov in (
        (True, 0.9, 0.3, 0.0, False), (False, 0.9, 0.3, 1e-2, False), (False, 0.9, 0.0, 1e-2, True), (True, 0.9, 0.0, 0.0, True), (True, 0.0, 0.0, 1e-2, False),
    ):  # fmt: skip
        results = []
        for kernels in (CPU, REFERENCE):
            p, g, buffer, _ = fresh()
            if first:
                buffer[...] = np.nan  # holds nothing yet
            kernels.sgd_step(p, g, buffer if momentum else None, first, SgdRule(0.1, momentum, dampening, decay, nesterov))
            np.testing.assert_array_equal(g, fresh()[1])
            results.append((p, buffer) if momentum else (p,))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "sgd_step")
    for decay, decoupled, largest in ((0.0, False, False), (1e-2, False, False), (1e-2, True, False), (1e-2, True, True)):
        results = []
        for kernels in (CPU, REFERENCE):
            p, g, mean, square = fresh()
            np.square(square, out=square)
            state = (p, g, mean, square, square / 2 if largest else None)
            kernels.adam_step(*state, 3, AdamRule(0.1, 0.9, 0.99, 1e-3, decay, decoupled))
            np.testing.assert_array_equal(g, fresh()[1])
            results.append((p, mean, square))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "adam_step")


@pytest.mark.parametrize("layout", [*LAYOUTS, "transposed"])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 0.5, np.inf])
def test_the_norm_of_many_gradients(power: float, layout: str, rng: np.random.Generator) -> None:
    """Lanes, chunks and arrays end where they like; dtypes are mixed; what is beyond float32 when squared, and what is not finite, is as in the reference."""
    name, chunk = "power_sum", optim.CHUNK
    shapes = [(3, 2, 5, 4), (0, 2, 3, 3), (1, 1, 1, 1), (40, 30, 6, 7), (1, 1, 1, 257), (2, chunk // 2, 1, 1), (3, 5, 1, chunk // 5)]
    arrays = [rng.standard_normal(shape).astype(("f4", "f8", "f2")[i % 3]) for i, shape in enumerate(shapes)]
    arrays[3] *= 1e30 if arrays[3].dtype == np.float32 else 1
    placed = [a.transpose(3, 1, 0, 2) if layout == "transposed" else laid_out(a, layout) for a in arrays]
    assert any(a.dtype == np.float32 and a.size > 1000 for a in placed)
    for some in (placed, placed[:3], placed[::-1], placed[3:4], []):
        found, expected = CPU.power_sum(some, power), REFERENCE.power_sum(some, power)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype) == ((), np.float64), name
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for bad in (np.nan, np.inf, -np.inf):
        for i, at in ((3, 5039), (3, 256), (5, 0), (5, chunk - 1)):
            spoilt = [a.copy() for a in arrays]
            spoilt[i].flat[at] = bad
            np.testing.assert_equal(CPU.power_sum(spoilt, power), np.array(np.abs(bad)))


def test_whole_numbers_add_up_to_the_bit() -> None:
    for sizes in ([optim.LARGE], [optim.CHUNK - 1, optim.CHUNK, optim.CHUNK + 1], [255, 256, 257, 5000], [3 * optim.CHUNK + 7]):
        for dtype in FLOATS:
            arrays = [(np.arange(size) % 37 - 11 - i).astype(dtype) for i, size in enumerate(sizes)]
            for power in (1.0, 2.0, np.inf):
                assert CPU.power_sum(arrays, power) == REFERENCE.power_sum(arrays, power)
