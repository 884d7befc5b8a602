"""The library's one source of randomness: initial weights, dropout seeds. Loaders derive their own from (seed, epoch, index)."""

from __future__ import annotations

from typing import Any

import numpy as np

_generator = np.random.Generator(np.random.PCG64(0))


def manual_seed(seed: int) -> None:
    """Restart the library's random numbers from `seed` (any int >= 0). The same seed gives the same weights and dropout masks."""
    global _generator
    _generator = np.random.Generator(np.random.PCG64(seed))


def generator() -> np.random.Generator:
    """The generator that initial weights are drawn from."""
    return _generator


def next_seed() -> int:
    """A fresh 63-bit seed, one for each dropout mask."""
    return int(_generator.integers(0, 2**63 - 1))


def random_state() -> dict[str, Any]:
    """The generator's state as plain ints and strings, fit for a JSON checkpoint."""
    return dict(_generator.bit_generator.state)


def set_random_state(state: dict[str, Any]) -> None:
    """Put back a state that `random_state` returned."""
    _generator.bit_generator.state = state
