"""Streams, events and graphs of the stand-in for CuPy, which know what a GPU promises about the order of work, and nothing more.

Work on one stream runs in order. Between streams there is no order but what events make: every stream keeps a vector clock, an event is a copy of
it, and waiting for an event takes it over. Every access to a piece of memory is compared with the accesses before: two of different streams, one
of them a write, of which neither is known to come first, are a race, and an AssertionError says so. Copies on a stream other than the default one are
also carried out as late as they may be: when somebody waits for them. So a missing wait is found twice, by its clock and by its numbers.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

import numpy as np

Clock = dict[int, int]


class Access:
    """Who touched a piece of memory last: the stream and tick of the last write, the tick of the last read by each stream."""

    def __init__(self, root: np.ndarray) -> None:
        self.root = weakref.ref(root)
        self.write: tuple[int, int] | None = None
        self.reads: Clock = {}


class Device:
    """Streams of one stand-in module, and all that they have to agree on."""

    def __init__(self) -> None:
        self.memory: dict[int, Access] = {}
        self.pinned: dict[int, tuple[int, int]] = {}  # address of host memory -> stream and tick of the last copy out of it
        self.roots: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()  # arrays of the device
        self.host: Clock = {}  # what the host has waited for: all that it launches comes later
        self.count = 0
        self.here = threading.local()
        self.lock = threading.RLock()
        self.default = Stream(self)
        self.log: list[str] = []  # what happened between streams, in words

    @property
    def current(self) -> Stream:
        return getattr(self.here, "stream", self.default)

    def known(self, array: np.ndarray) -> bool:
        """Whether `array` is, or is a view of, memory of this device."""
        found = root_of(array)
        return self.roots.get(id(found)) is found

    def own(self, array: np.ndarray) -> None:
        found = root_of(array)
        self.roots[id(found)] = found

    def touch(self, array: np.ndarray, write: bool, stream: Stream | None = None) -> None:
        """`array` is read or written by `stream` now, by default the current one."""
        stream = stream or self.current
        root = root_of(array)
        with self.lock:
            access = self.memory.get(id(root))
            if access is None or access.root() is not root:
                access = self.memory[id(root)] = Access(root)
            now = stream.tick()
            before = [] if access.write is None else [access.write]
            if write:
                before += access.reads.items()
            for other, at in before:
                if other != stream.number and stream.clock.get(other, 0) < at:
                    raise AssertionError(
                        f"race: stream {stream.number} {'writes' if write else 'reads'} an array of shape {array.shape} that stream {other} "
                        f"{'wrote' if (other, at) == access.write else 'reads'}, and no event orders the two"
                    )
            if write:
                access.write, access.reads = (stream.number, now), {}
            else:
                access.reads[stream.number] = now

    def copied_from(self, host: np.ndarray, stream: Stream) -> None:
        """A copy out of pinned memory is issued, which the host has just filled: the copy before must have been waited for."""
        other, at = self.pinned.get(host.ctypes.data, (0, 0))
        if self.host.get(other, 0) < at:
            raise AssertionError(
                f"race: the host filled pinned memory of shape {host.shape} before it had waited for stream {other} to copy it"
            )
        self.pinned[host.ctypes.data] = stream.number, stream.clock[stream.number]


def root_of(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of `array`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def merge(into: Clock, other: Clock) -> None:
    for key, value in other.items():
        into[key] = max(into.get(key, 0), value)


class Stream:
    def __init__(self, device: Device, non_blocking: bool = False) -> None:
        self.device, self.non_blocking = device, non_blocking
        with device.lock:
            self.number, device.count = device.count, device.count + 1
        self.clock: Clock = {self.number: 0}
        self.todo: list[Callable[[], None]] = []  # copies that nobody has waited for yet
        self.done = 0  # copies carried out
        self.before: list[Stream] = []
        self.recording: Graph | None = None

    def tick(self) -> int:
        merge(self.clock, self.device.host)
        self.clock[self.number] += 1
        return self.clock[self.number]

    def flush(self, upto: int | None = None) -> None:
        """Carry out the copies that were issued first, `upto` of them in all."""
        while self.todo and (upto is None or self.done < upto):
            self.todo.pop(0)()
            self.done += 1

    def record(self, event: Event | None = None) -> Event:
        event = event or Event(self.device)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.device.log.append(f"{self.number} waits for {event.stream.number if event.stream else None}")
        event.flush()
        merge(self.clock, event.clock)

    def synchronize(self) -> None:
        self.refuse("synchronize")
        self.flush()
        merge(self.device.host, self.clock)

    def refuse(self, what: str) -> None:
        """An error as CUDA's if this stream is being recorded."""
        if self.recording is not None:
            raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} is not permitted when stream is capturing")

    def begin_capture(self) -> None:
        if self is self.device.default:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the default stream cannot be captured")
        self.recording = Graph(self.device)

    def end_capture(self) -> Graph:
        assert self.recording is not None, "no capture was begun"
        graph, self.recording = self.recording, None
        graph.forget()
        return graph

    def __enter__(self) -> Stream:
        self.before.append(self.device.current)
        self.device.here.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        self.device.here.stream = self.before.pop()


class Graph:
    """Work that was recorded: nothing of it happened; launch() does it, on the memory that it was recorded with.

    While it is recorded the stand-in does compute, so that shapes are known and indices make sense; at the end all of that is undone.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.work: list[Callable[[], None]] = []
        self.results: dict[int, np.ndarray] = {}  # memory taken while recording, by id
        self.before: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # other memory that was changed, and what it held
        self.pools: set[weakref.ref[Pool]] = set()
        self.launches = 0

    def allocated(self, array: np.ndarray, pool: Pool | None) -> None:
        assert pool is not None, "a recording must not take memory from the common pool, which others get it from"
        assert pool.allocate is not None, "CuPy's allocator, short of memory, gives back what a recording has used and will use"
        assert not pool.limit, "CuPy's pool, short of its limit, gives back what a recording has used and will use"
        self.pools.add(weakref.ref(pool))
        root = root_of(array)
        self.results[id(root)] = root

    def keep(self, array: np.ndarray) -> None:
        """`array` is about to be changed."""
        root = root_of(array)
        if id(root) not in self.results and id(root) not in self.before:
            self.before[id(root)] = root, root.copy(order="K")

    def forget(self) -> None:
        for array in self.results.values():
            if array.dtype.kind == "f" and array.flags.writeable:
                array.fill(np.nan)
        for array, held in self.before.values():
            np.copyto(array, held)

    def launch(self, stream: Stream | None = None) -> None:
        assert all(pool() is not None for pool in self.pools), "the memory of this graph was given back"
        assert (stream or self.device.current).recording is None
        self.launches += 1
        for one in self.work:
            one()


class Pool:
    """cupy.cuda.MemoryPool: who allocates from it is counted. Its memory comes from `allocate`, and a new one's limit from the environment."""

    most = 0  # bytes, CUPY_GPU_MEMORY_LIMIT; 0: no limit

    def __init__(self, allocate: Callable[[int], object] | None = None) -> None:
        self.allocate, self.limit = allocate, Pool.most

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> None:
        raise AssertionError("the stand-in takes memory from NumPy")


class Event:
    def __init__(self, device: Device, disable_timing: bool = False) -> None:
        self.device, self.clock, self.stream, self.issued = device, {}, None, 0

    stream: Stream | None
    clock: Clock
    time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.stream, self.time = stream or self.device.current, time.perf_counter()
        self.stream.tick()
        self.clock, self.issued = dict(self.stream.clock), self.stream.done + len(self.stream.todo)

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush(self.issued)

    def synchronize(self) -> None:
        self.flush()
        merge(self.device.host, self.clock)
