"""Work that is launched again and again as one CUDA graph.

A training step is some hundred launches, each of which costs the host 10 to 25 microseconds: more than a small network's kernels take. A graph
costs one. What is recorded are launches with their arguments, so nothing that changes from step to step may be one: inputs are copied
into memory that stays, seeds of dropout are read from memory, and what Python does in a step (drawing seeds, checking labels) is repeated here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..arrays import Array, in_memory_order
from ..pending import collected, defer
from ..random import DeviceSeed, next_seed, seeds_placed
from ..usable import BackendError

WARM_UP = 2  # runs before a recording: they compile kernels, fill caches and copy constants, none of which can be recorded
SEEDS = 256  # places for seeds of dropout

Work: TypeAlias = Callable[..., tuple[Any, ...]]


class Graphs:
    """`work(*arrays) -> arrays`, recorded for each combination of shapes when that has come WARM_UP times, and only launched after that.

    Within `with graphs:` everything runs on a stream of its own, since the default one cannot be recorded. `work` may copy nothing to the host or
    from it and wait for nothing. The arrays that it returns keep their place: the next call with the same shapes overwrites them.
    BackendError if `work` does what cannot be recorded.
    """

    def __init__(self, xp: Any, work: Work) -> None:
        self.xp, self.work = xp, work
        self.stream = xp.cuda.Stream(non_blocking=True)
        self._seen: dict[Any, int] = {}
        self._recorded: dict[Any, _Recording] = {}

    def __enter__(self) -> Graphs:
        self.xp.cuda.get_current_stream().synchronize()  # weights may still be on their way
        self.stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stream.synchronize()
        self.stream.__exit__(*error)

    def __call__(self, *arrays: Array | None) -> tuple[Any, ...]:
        kind = tuple(None if a is None else (a.shape, a.strides, a.dtype.str) for a in arrays)
        if kind not in self._recorded:
            self._seen[kind] = self._seen.get(kind, 0) + 1
            if self._seen[kind] <= WARM_UP:
                return self.work(*arrays)
            self._recorded[kind] = _Recording(self.xp, self.stream, self.work, arrays)
        return self._recorded[kind](*arrays)


class _Recording:
    """One graph, with everything that it works on: inputs, seeds, and a pool of memory that nobody else gets anything from.

    Temporary arrays of a recording go back to its pool and are used again within it, in the order of the stream; in the common pool others would
    get them while the graph still writes there. What the runs before left in the common pool is given back first: a recording takes as much again.
    """

    def __init__(self, xp: Any, stream: Any, work: Work, arrays: tuple[Array | None, ...]) -> None:
        self.xp, self.stream = xp, stream
        self.inputs = [None if a is None else in_memory_order(a, xp.array) for a in arrays]
        self.places: Array = xp.zeros(SEEDS, "uint64")
        self.seeds: dict[int, DeviceSeed] = {}  # by value: what draws the same seed again, to repeat itself, means the same place
        self.first: list[int] | None = None
        xp.get_default_memory_pool().free_all_blocks()
        self.pool = xp.cuda.MemoryPool(_from_device(xp))
        self.pool.set_limit(size=0)  # short of one, it would give back what is free now; `_from_device` sees to it
        with xp.cuda.using_allocator(self.pool.malloc), collected() as self.checks, seeds_placed(self._place):
            stream.begin_capture()
            try:
                self.outputs = work(*self.inputs)
                self.graph = stream.end_capture()  # fails too if something made the recording invalid without saying so
            except BaseException as error:
                with contextlib.suppress(Exception):  # what the device says about it is of no interest beside the error that ended it
                    stream.end_capture()
                if not isinstance(error, Exception) or isinstance(error, MemoryError):
                    raise
                raise BackendError(f"this step cannot be recorded as a CUDA graph ({error}): leave out --graph") from error
        self.first = list(self.seeds)

    def __call__(self, *arrays: Array | None) -> tuple[Any, ...]:
        for own, array in zip(self.inputs, arrays, strict=True):
            if own is not None:
                own[...] = array
        if self.seeds:
            values = self.first or [next_seed() for _ in self.seeds]  # those drawn while recording are the first run's
            self.places[: len(values)] = self.xp.asarray(np.array(values, np.uint64))
        self.first = None
        self.graph.launch(self.stream)
        for wrong, error in self.checks:
            defer(wrong, error)
        return self.outputs

    def _place(self, seed: int) -> DeviceSeed:
        if seed not in self.seeds:
            at = len(self.seeds)
            if at == SEEDS:
                raise ValueError(f"it draws more than {SEEDS} seeds of dropout")
            self.seeds[seed] = DeviceSeed(seed, self.places[at : at + 1])
        return self.seeds[seed]


def _from_device(xp: Any) -> Callable[[int], Any]:
    """Where the pool of a recording gets its memory. MemoryError when there is none, or more would be taken than the common pool's limit allows
    (CUPY_GPU_MEMORY_LIMIT): of CUDA's own error, or of a limit of its own, a pool would only learn that it should give back what is free now, and that
    is what the recording works on.
    """
    common, taken = xp.get_default_memory_pool(), 0

    def allocate(size: int) -> Any:
        nonlocal taken
        total, limit = common.total_bytes() + taken, common.get_limit()
        if 0 < limit < total + size:
            raise xp.cuda.memory.OutOfMemoryError(size, total, limit)
        try:
            memory = xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)
        except xp.cuda.runtime.CUDARuntimeError as error:
            if "MemoryAllocation" not in str(error):
                raise
            raise xp.cuda.memory.OutOfMemoryError(size, total) from error
        taken += size
        return memory

    return allocate
