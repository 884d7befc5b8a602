"""What the memory of a GPU has to do for the tiles of convolutions and products, counted on what NVRTC makes of them: a number, not a timing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simulated
from test_cuda_ptx import HALF, SINGLE, pytestmark, tiled

from minidcnn.window import Window

__all__ = ["pytestmark"]  # as in that file

Array = np.ndarray[Any, Any]
Counts = dict[tuple[str, str, str, int], tuple[int, int, int]]
WINDOW, SIZE, OUT = Window((3, 2), padding=(1, 1)), (9, 8), (9, 9)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All modules that a test compiles."""
    made: list[Any] = []
    compile_module = simulated._module.__wrapped__

    def keep(*how: Any) -> Any:
        made.append(compile_module(*how))
        return made[-1]

    monkeypatch.setattr(simulated, "_module", keep)
    return made


def channels_last(a: Array) -> Array:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def count(modules: list[Any], precision: str, dtype: Any, shape: str, channels: int, capability: tuple[int, int] | None) -> Counts:
    """(kernel, read or write, memory, bytes of a thread) -> requests, what memory did for them, and the least that it could have done."""
    kernels = tiled(simulated.simulated(precision=precision, ptx="compute_80", mode="traffic", capability=capability), shape)
    x, y = (channels_last(np.ones((1, c, *s), dtype)) for c, s in ((channels, SIZE), (2 * channels, OUT)))
    w = np.ones((2 * channels, channels, *WINDOW.kernel), dtype)
    kernels.conv2d(x, w, None, WINDOW, OUT, 1)
    kernels.conv_transpose2d(y, w, None, WINDOW, SIZE, 1)
    kernels.conv2d_weight(x, y, WINDOW, 1)
    counts: Counts = {}
    for module in modules:
        for (kernel, _, *rest), numbers in module.traffic.items():
            a, b, c = counts.get((kernel, *rest), (0, 0, 0))
            counts[kernel, *rest] = a + numbers[0], b + numbers[1], c + numbers[2]
    return counts


@pytest.mark.parametrize("channels", [40, 37])
@pytest.mark.parametrize(
    ("precision", "dtype", "shape", "capability"),
    [
        ("float32", SINGLE, "128x128", None),
        ("tf32", SINGLE, "64x64", None),
        ("bf16", SINGLE, "128x64", None),
        ("tf32x3", SINGLE, "64x64", None),
        ("tf32x3", SINGLE, "128x64", None),
        ("float32", HALF, "64x64", None),
        ("float32", HALF, "128x64", (9, 0)),
    ],
)
def test_no_thread_waits_for_a_bank_of_shared_memory(
    modules: list[Any], precision: str, dtype: Any, shape: str, capability: tuple[int, int] | None, channels: int
) -> None:
    """Tiles lie in shared memory so that what threads do together goes through all banks at once: as few rounds as there can be."""
    counts = count(modules, precision, dtype, shape, channels, capability)
    for kernel in ("conv_forward", "conv_transposed", "conv_weight"):
        shared = [numbers for key, numbers in counts.items() if (key[0], key[2]) == (kernel, "shared")]
        rounds, least = (sum(numbers[i] for numbers in shared) for i in (1, 2))
        # NVRTC does not always make the same of a source: of a hundred times, once it reads in two halves what it else reads at once
        assert 0 < least <= rounds <= 1.1 * least, (kernel, counts)
    if channels == 40:  # images come in whole sectors but for where they begin within one, and results leave in them
        for kernel in ("conv_forward", "conv_transposed", "conv_weight"):
            requests, sectors, least = counts[kernel, "read", "global", 16]
            assert requests < least <= sectors <= 1.35 * least
            written = [numbers for key, numbers in counts.items() if key[:3] == (kernel, "write", "global")]
            sectors, least = (sum(numbers[i] for numbers in written) for i in (1, 2))
            halves = 2 if dtype == HALF and kernel != "conv_weight" else 1  # of sectors: two neighbours of each of four threads
            assert 0 < least <= sectors <= 1.1 * halves * least


def test_waiting_is_counted(modules: list[Any]) -> None:
    """Lines that keep their places: every other row waits."""
    made = simulated._module

    def plain(code: str, *how: Any) -> Any:
        assert "(k / PIECE ^ turn)" in code
        return made(code.replace("(k / PIECE ^ turn)", "(k / PIECE)"), *how)

    simulated._module = plain  # the fixture puts back what was there before it
    counts = count(modules, "float32", HALF, "64x64", 40, None)
    requests, rounds, least = counts["conv_forward", "read", "shared", 8]
    assert rounds == 2 * least > 2 * requests
