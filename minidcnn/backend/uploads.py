"""Batches on their way to where they are used.

A loader's thread puts arrays on the way as soon as it has them; the computing thread takes them when their turn has come. On NumPy there
is no way to go. To a GPU they travel from pinned memory on a stream of their own, while the batch before is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, inverse, memory_order


class Uploads:
    """On NumPy: what was put is what is taken."""

    def put(self, arrays: Sequence[Array | None]) -> Any:
        """Send NumPy arrays on their way (None stays None). Any thread may, one at a time. Returns what `take` wants."""
        return tuple(arrays)

    def take(self, placed: Any) -> tuple[Any, ...]:
        """The arrays of a `put`, once; for work that is launched from now on in this thread."""
        return tuple(placed)

    def clear(self) -> None:
        """Give up all that was put and not taken."""


class PinnedUploads(Uploads):
    """To the GPU of `xp`, which is CuPy. Three orders are kept, by events; nobody waits unless it must:

    - the copy to the device comes after the last reading of what it overwrites (`released`, on the computing stream);
    - the computing stream reads after the copy (`copied`, on ours);
    - pinned memory is filled again after the copy out of it (`copied`, and here the host waits, long after the fact).

    What `take` returns are arrays of the computing stream, copied on the device, so that a slot is free again at once and nothing that the
    caller keeps is ever overwritten: a batch is small beside the activations, and this copy runs at the speed of the device's memory.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.stream = xp.cuda.Stream(non_blocking=True)  # one that blocks would wait for the default stream
        self._free: deque[_Slot] = deque()
        self._placed: set[_Slot] = set()

    def put(self, arrays: Sequence[Array | None]) -> _Slot:
        try:
            slot = self._free.popleft()  # the one that has been free for longest
        except IndexError:
            slot = _Slot(self.xp)
        orders = [None if a is None else memory_order(a) or tuple(range(a.ndim)) for a in arrays]
        plain = [None if a is None or o is None else a.transpose(o) for a, o in zip(arrays, orders, strict=True)]
        slot.copied.synchronize()
        with self.stream:
            slot.fit(plain)
            self.stream.wait_event(slot.released)
            for array, pinned, device in zip(plain, slot.pinned, slot.device, strict=True):
                if array is not None:
                    pinned[...] = array
                    device.set(pinned, stream=self.stream)
            slot.copied.record(self.stream)
        slot.orders = orders
        self._placed.add(slot)
        return slot

    def take(self, placed: _Slot) -> tuple[Any, ...]:
        stream = self.xp.cuda.get_current_stream()
        stream.wait_event(placed.copied)
        pairs = zip(placed.device, placed.orders, strict=True)
        taken = tuple(None if order is None else device.copy().transpose(inverse(order)) for device, order in pairs)
        placed.released.record(stream)
        self._placed.discard(placed)
        self._free.append(placed)
        return taken

    def clear(self) -> None:
        self.stream.synchronize()
        while self._placed:
            self._free.append(self._placed.pop())


class _Slot:
    """Memory for one put, on both sides, and the events that guard it. Events that were never recorded count as past."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.copied, self.released = (xp.cuda.Event(disable_timing=True) for _ in range(2))
        self.pinned: list[Any] = []
        self.device: list[Any] = []
        self.orders: list[tuple[int, ...] | None] = []
        self._kinds: list[Any] = []

    def fit(self, arrays: Sequence[Array | None]) -> None:
        """Memory for `arrays`; new, if they differ from those before in number, shape or dtype."""
        kinds = [None if a is None else (a.shape, a.dtype) for a in arrays]
        if kinds == self._kinds:
            return
        self.released.synchronize()  # what is given back here may be given to anyone
        self._kinds = kinds
        self.pinned = [None if a is None else self._pinned(a) for a in arrays]
        self.device = [None if a is None else self.xp.empty(a.shape, a.dtype) for a in arrays]

    def _pinned(self, like: Array) -> Array:
        memory = self.xp.cuda.alloc_pinned_memory(max(like.nbytes, 1))
        return np.frombuffer(memory, like.dtype, like.size).reshape(like.shape)
