"""The library's one source of randomness: initial weights, dropout seeds. Loaders derive their own from (seed, epoch, index)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_placing: list[Callable[[int], int]] = []
_generator = np.random.Generator(np.random.PCG64(0))


def manual_seed(seed: int) -> None:
    """Restart the library's random numbers from `seed` (any int >= 0). The same seed gives the same weights and dropout masks."""
    global _generator
    _generator = np.random.Generator(np.random.PCG64(seed))


def generator() -> np.random.Generator:
    """The generator that initial weights are drawn from."""
    return _generator


class DeviceSeed(int):
    """A seed, and the place on the device where kernels find it: `place` (1,) uint64. What is recorded then draws anew when it runs again."""

    place: Any

    def __new__(cls, seed: int, place: Any) -> DeviceSeed:
        made = super().__new__(cls, seed)
        made.place = place
        return made


def next_seed() -> int:
    """A fresh 63-bit seed, one for each dropout mask."""
    seed = int(_generator.integers(0, 2**63 - 1))
    return _placing[-1](seed) if _placing else seed


@contextlib.contextmanager
def seeds_placed(place: Callable[[int], int]) -> Iterator[None]:
    """Within a `with` block, next_seed() gives what `place` makes of each seed."""
    _placing.append(place)
    try:
        yield
    finally:
        _placing.pop()


def random_state() -> dict[str, Any]:
    """The generator's state as plain ints and strings, fit for a JSON checkpoint."""
    return dict(_generator.bit_generator.state)


def set_random_state(state: dict[str, Any]) -> None:
    """Put back a state that `random_state` returned."""
    _generator.bit_generator.state = state
