"""Measuring on a GPU: by events of its own clock, kernel by kernel, against what the same GPU was just seen to do at most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, kernels

Run = Callable[[], object]

PIXELS = 14  # numbers that the geometry of a convolution takes as arguments, the last of a launch
PRODUCT = 8192  # rows and columns of the matrices of which the ceiling is a product
COPY = 1 << 29  # bytes of a copy


class Gpu:
    """The GPU of the cupy backend, which must be in use. `xp` is CuPy."""

    def __init__(self) -> None:
        self.xp: Any = kernels().xp

    def timed(self, run: Run) -> float:
        """Seconds on the device from the first launch of `run` to the end of the last; waiting for the host in between counts."""
        start, stop = self.xp.cuda.Event(), self.xp.cuda.Event()
        stream = self.xp.cuda.get_current_stream()
        stream.synchronize()
        start.record(stream)
        run()
        stop.record(stream)
        stop.synchronize()
        return float(self.xp.cuda.get_elapsed_time(start, stop)) / 1e3

    def peak(self) -> int:
        """Bytes that CuPy's pool has taken from the device: it gives nothing back, so it is the most that was needed at once."""
        return int(self.xp.get_default_memory_pool().total_bytes())

    def machine(self, precision: str) -> dict[str, Any]:
        """The ceilings: GB/s of a copy (read and written), GFLOP/s of cuBLAS on float32, in TF32 where CUPY_TF32=1, or on bfloat16's stand-in float16.

        Factors are random: of equal numbers a GPU multiplies more, since it takes less power.
        """
        xp = self.xp
        source = xp.ones(COPY // 4, "float32")
        target = xp.empty_like(source)
        kind = "float16" if precision in ("bf16", "float16") else "float32"
        a = xp.asarray(normal(np.random.default_rng(0), (PRODUCT, PRODUCT)).astype(kind))
        b, c = a[::-1].copy(), xp.empty_like(a)
        properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())

        def copy() -> None:
            target[...] = source

        return {
            "name": properties["name"].decode(),
            "gflops": 2 * PRODUCT**3 / self.fastest(lambda: xp.matmul(a, b, out=c)) / 1e9,
            "gigabytes": 2 * source.nbytes / self.fastest(copy) / 1e9,
        }

    def fastest(self, run: Run) -> float:
        """Seconds of the fastest of ten runs, after one that does not count."""
        self.timed(run)
        return min(self.timed(run) for _ in range(10))

    def profile(self, run: Run) -> list[dict[str, Any]]:
        """For each kernel of ours that `run` launches: launches, seconds, bytes and operations, the slowest first.

        Bytes are those of the arrays that a launch is given, each counted once: the least that it must move. `run` goes once to warm up.
        """
        launcher: Any = kernels().launcher  # type: ignore[attr-defined]
        launch, seen = launcher.launch, []

        def watched(grid: Any, block: Any, file: str, kernel: str, dtype: Any, *arguments: Any, **named: Any) -> None:
            start, stop = self.xp.cuda.Event(), self.xp.cuda.Event()
            start.record()
            launch(grid, block, file, kernel, dtype, *arguments, **named)
            stop.record()
            arrays = {id(a): a for a in (*arguments, *named.get("behind", ())) if getattr(a, "ndim", 0)}
            seen.append((kernel, start, stop, sum(int(a.nbytes) for a in arrays.values()), operations(kernel, arguments)))

        run()
        launcher.launch = watched
        started = time.perf_counter()
        try:
            run()
        finally:
            launcher.launch = launch
        self.xp.cuda.get_current_stream().synchronize()
        whole = time.perf_counter() - started
        table: dict[str, dict[str, Any]] = {}
        for kernel, start, stop, moved, counted in seen:
            row = table.setdefault(kernel, {"kernel": kernel, "launches": 0, "seconds": 0.0, "bytes": 0, "operations": 0, "of": whole})
            row["launches"] += 1
            row["seconds"] += float(self.xp.cuda.get_elapsed_time(start, stop)) / 1e3
            row["bytes"] += moved
            row["operations"] += counted
        return sorted(table.values(), key=lambda row: -float(row["seconds"]))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal random numbers, float32: at most a million, again and again, since to draw all that images hold takes longer than what is measured."""
    return np.resize(rng.standard_normal(min(math.prod(shape), 1 << 20), np.float32), shape)


def operations(kernel: str, arguments: tuple[Any, ...]) -> int:
    """Multiplications and additions of a convolution's or a product's launch by the definition; 0 for what memory limits."""
    if kernel == "gemm":
        product, depth = arguments[2], arguments[6]
        return int(2 * product.size * depth)
    if kernel not in (f"{way}_{what}" for way in ("conv", "direct") for what in ("forward", "transposed", "weight")):
        return 0
    inputs, _, n, _, _, _, oh, ow, kh, kw = arguments[-PIXELS - 2 :][:10]  # inputs: of a group
    outputs = next(a for a in arguments if isinstance(a, int))
    return int(2 * n * oh * ow * outputs * inputs * kh * kw)
