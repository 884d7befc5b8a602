"""Dropout as a function of a seed: an element's fate depends on the seed and on its place in the array, and on nothing else.

So nothing is kept for the backward pass, any layout and any backend drops the same elements, and a kernel that works through the array
in pieces can draw each piece by itself.
"""

from __future__ import annotations

import math

from ..arrays import Array, nchw
from ..half import in_float32
from ..random import DeviceSeed
from .base import BaseKernels


class DropoutKernels(BaseKernels):
    """Masks from counters, and dropout by them."""

    @in_float32
    def dropout(self, x: Array, p: float, seed: int, shape: tuple[int, ...]) -> Array:
        """x times a mask of `shape`, which broadcasts to x's: 0 with probability p, else 1 / (1 - p). Linear, and its own adjoint."""
        mask = self.dropout_mask(p, seed, shape, x.dtype)
        return self.map(lambda x, mask: x * mask, x, mask)

    def dropout_mask(self, p: float, seed: int, shape: tuple[int, ...], dtype: object) -> Array:
        """The mask, `shape`: element i is kept where the i-th number of `seed` is at least p; i counts 4-D shapes channels last."""
        xp, images = self.xp, len(shape) == 4
        kept = self.uniform_bits(seed, math.prod(shape)) >= xp.uint64(round(p * (1 << 53)))
        mask = kept.astype(dtype) * xp.dtype(dtype).type(1 / (1 - p) if p < 1 else 0)
        if not images:
            return mask.reshape(shape)  # type: ignore[no-any-return]
        n, c, h, w = shape
        return nchw(mask.reshape(n, h, w, c))

    def uniform_bits(self, seed: int, count: int) -> Array:
        """(count,) uint64 below 2^53, uniform: the numbers 1 ... count of the generator SplitMix64 started at `seed`.

        Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014, figure 16 with the constants of MurmurHash3's variant 13.
        """
        u = self.xp.uint64
        start = seed.place if isinstance(seed, DeviceSeed) else u(seed % (1 << 64))
        z = (self.xp.arange(count, dtype="uint64") + u(1)) * u(0x9E3779B97F4A7C15) + start  # modulo 2^64, as all that follows
        z = (z ^ (z >> u(30))) * u(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> u(27))) * u(0x94D049BB133111EB)
        return (z ^ (z >> u(31))) >> u(11)  # type: ignore[no-any-return]
