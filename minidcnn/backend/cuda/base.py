"""What the families of CUDA kernels share: the launcher, and channels-last images as the kernels take them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...window import Pair, Window
from ..arrays import Array, nhwc
from ..half import HALF
from ..reference import Kernels
from ..usable import TENSOR_CORES
from .launcher import BLOCK, WGMMA, Launcher

CHANNELS = 4  # of a thread, at most; or runs of them (runs.py)
TENSOR = {"float32": 0, "tf32x3": 4, "tf32": 1, "bf16": 2, "float16": 0}  # of float32 factors, by precision
ASYNC = (8, 0)  # the first compute capability that copies into shared memory by itself
MULTIPROCESSORS = 132  # an H200's, among which work is shared out on any GPU: the bits of sums in parts depend on it
SHORTEST = 256  # of the parts that a long sum is split into
MOST_ROUNDS = 6  # of blocks, that a product is split into parts for
PART = 0.03  # of the time of a round: writing its blocks' sums and reading them again
MOST = (1 << 16) - 1  # blocks along the second and the third axis of a grid; threads go round for the rest


class CudaBase(Kernels):
    """The reference on `xp`, with a launcher beside it. Overrides fall back to the reference for what their kernels do not take."""

    def __init__(self, xp: Any, module: Callable[..., Any], precision: str = "float32") -> None:
        super().__init__(xp)
        self.precision = precision
        self.launcher = Launcher(xp, module)

    def images(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, H, W, C) without gaps: a view of channels-last images, else a copy."""
        return self.plain(nhwc(x))

    def plain(self, array: Array, dtype: Any = None) -> Array:
        """`array` in C order without gaps and in `dtype` (default: its own), copied only if it is not so already."""
        return self.xp.ascontiguousarray(array, dtype)  # type: ignore[no-any-return]

    def tensor(self, like: Array) -> int:
        """TENSOR of kernels/tile.cuh: float16 is multiplied on tensor cores where there are any, float32 as `precision` says, float64 never."""
        if like.dtype == HALF:
            return 3 if self.launcher.capability >= TENSOR_CORES else 0
        return TENSOR[self.precision] if like.dtype.itemsize == 4 else 0

    def tile(self, rows: int, columns: int, like: Array, batches: int = 1) -> tuple[Pair, tuple[str, ...]]:
        """Rows and columns of a block's tile of so large products, and the definitions that choose it in kernels/tile.cuh.

        It is as large as still gives every multiprocessor one, and not half empty. batches: how many such products there are, or parts that their sums
        may be split into.
        """
        tensor = f"TENSOR={self.tensor(like)}"
        for across, shape in ((128, ("SMALL=0",)), (64, ("SMALL=1", "TALL=1"))):
            many = batches * -(-rows // 128) * -(-columns // across) >= MULTIPROCESSORS
            if many and rows > 64 and columns > across - 64 and like.dtype.itemsize <= 4:
                return (128, across), (*shape, tensor)
        return (64, 64), ("SMALL=1", tensor)

    def fastest(self, defines: tuple[str, ...], along_k: bool) -> tuple[str, ...]:
        """The definitions of a tile, with wgmma where it multiplies: tiles of 128 rows, float16, or tf32 that runs `along_k` in both factors, copied whole."""
        small = "SMALL=1" in defines and "TALL=1" not in defines
        factors = "TENSOR=3" in defines or ("TENSOR=1" in defines and along_k)
        return (*defines, WGMMA) if factors and not small and "ASYNC=1" in defines and self.launcher.warpgroups else defines

    def new_images(self, n: int, c: int, size: Pair, dtype: Any) -> Array:
        """Uninitialised (N, H, W, C)."""
        return self.xp.empty((n, *size, c), dtype)  # type: ignore[no-any-return]

    def over_rows(
        self, shape: tuple[int, int, int], file: str, kernel: str, dtype: Any, *arguments: Any, defines: tuple[str, ...] = ()
    ) -> None:
        """Launch a kernel on a result of (rows, columns, channels or runs of them): a block for each row, or part of one, threads on channels and columns."""
        rows, columns, channels = shape
        across = min(32, 1 << (channels - 1).bit_length())
        down = BLOCK // across
        grid = rows, min(-(-columns // down), MOST), min(-(-channels // (across * CHANNELS)), MOST)
        self.launcher.launch(grid, (across, down), file, kernel, dtype, *arguments, defines=defines)


@functools.lru_cache(1 << 12)
def parts(blocks: int, most: int, together: int = 2) -> int:
    """How many parts, at most `most`, to split the sums of so many blocks into, with `together` blocks on a multiprocessor at a time.

    Parts fill whole rounds of the GPU, as far as they can: of the last round, what has no blocks stands idle. So for each number of rounds there is
    one number of parts to consider, the largest that fits; of these the one that wastes least, where more sums cost something too.
    """
    room = together * MULTIPROCESSORS
    fitting = {max(1, min(most, rounds * room // blocks)) for rounds in range(1, MOST_ROUNDS + 1)}
    return min(sorted(fitting), key=lambda p: -(-p * blocks // room) * room / (p * blocks) + PART * p * blocks / room)


def geometry(n: int, c: int, window: Window, size: Pair, out: Pair) -> tuple[int, ...]:
    """The arguments that GEOMETRY_PARAMETERS of kernels/common.cuh expects."""
    return n, c, *size, *out, *window.kernel, *window.stride, *window.padding, *window.dilation
