"""A stand-in for CuPy on machines without a GPU: arrays that behave as CuPy's do where code written for NumPy goes wrong.

It refuses to mix with NumPy arrays, to be converted implicitly and to be passed to NumPy's functions, and its elementwise functions
return C order whatever the layout of their arguments. What runs on it says nothing about speed, but runs on CuPy's rules.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from cupy_streams import Device, Event, Graph, Pool, Stream

device = Device()  # of the module made last
tracking = False  # whether it compares all accesses to memory
allocator = threading.local()  # its `pool` is that of cupy.cuda.using_allocator


def touch(array: Any, write: bool = False) -> None:
    if tracking:
        device.touch(array, write)


def recording() -> Graph | None:
    return device.current.recording


def change(work: Callable[[], Any], *targets: Any) -> None:
    """Something that changes arrays: done now, or if the stream is recorded, when the graph is launched."""
    graph = recording()
    if graph is not None:
        graph.work.append(work)
        for target in targets:
            if isinstance(target, np.ndarray):
                graph.keep(target)
    work()


def compute(function: Callable[[], Any]) -> Any:
    """What `function` returns, arrays or numbers of NumPy; if the stream is recorded, it is computed again at each launch, into the same memory.

    Views are views of memory that a launch changes: there is nothing to compute again.
    """
    graph = recording()
    if graph is None:
        return function()
    result = function()
    own = tuple(np.asarray(r) for r in result) if isinstance(result, tuple) else np.asarray(result)
    parts = own if isinstance(own, tuple) else (own,)
    if not isinstance(result, tuple | np.ndarray | np.generic):
        return result
    if any(graph.device.known(part) for part in parts):
        return result

    def again() -> None:
        new = function()
        for part, value in zip(parts, new if isinstance(new, tuple) else (new,), strict=True):
            np.copyto(part, value)

    graph.work.append(again)
    return own


@contextlib.contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    before = getattr(allocator, "pool", None)
    allocator.pool = malloc.__self__
    try:
        yield
    finally:
        allocator.pool = before


SCALARS = (bool, int, float, np.generic)


class Flags:
    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata


class ndarray:
    """An array "on the device"; `.get()` is the only way to the host."""

    __module__ = "cupy"
    __array_ufunc__ = None
    __array_priority__ = 100
    reads = 0  # how often the host waited for a value
    bytes_read = 0
    made: ClassVar[weakref.WeakValueDictionary[int, ndarray]] = weakref.WeakValueDictionary()  # by the id of what they are made of

    def __init__(self, host: np.ndarray) -> None:
        assert isinstance(host, np.ndarray)
        if not device.known(host):
            device.own(host)
            pool = getattr(allocator, "pool", None)
            allocate(host.nbytes) if pool is None or pool.allocate is None else pool.allocate(host.nbytes)
            touch(host, write=True)
            graph = recording()
            if graph is not None:
                graph.allocated(host, pool)
        self._host = host
        ndarray.made.setdefault(id(host), self)
        self.base = self._owner()  # kept, as CuPy does: who compares objects would else meet another one each time

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")

    def get(self) -> np.ndarray:
        device.current.refuse("reading a value")
        ndarray.reads += 1
        ndarray.bytes_read += self._host.nbytes
        touch(self._host)
        device.current.synchronize()
        return self._host.copy(order="K")

    def set(self, array: np.ndarray, stream: Stream | None = None) -> None:
        """A copy from the host: at once, or given a stream when somebody waits for it; until then the array holds nonsense."""
        assert isinstance(array, np.ndarray) and (array.shape, array.dtype) == (self.shape, self.dtype)
        host = self._host
        touch_on = stream or device.current
        if tracking:
            device.touch(host, True, touch_on)
            device.copied_from(array, touch_on)
        if stream is None or stream is device.default:
            np.copyto(host, array)
            return
        host.fill(np.nan if host.dtype.kind == "f" else -77)
        stream.todo.append(lambda: np.copyto(host, array))

    def _owner(self) -> ndarray | None:
        if not isinstance(self._host.base, np.ndarray):
            return None
        owner = ndarray.made.get(id(self._host.base))
        return ndarray(self._host.base) if owner is None or owner._host is not self._host.base else owner

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    @property
    def flags(self) -> Flags:
        return Flags(self._host.flags)

    @property
    def T(self) -> ndarray:
        return ndarray(self._host.T)

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "ndim", "size", "strides", "itemsize", "nbytes"):
            return getattr(self._host, name)
        if name == "item":
            return self.get().item
        if name in METHODS:
            touch(self._host, write=name == "fill")
            return self._method(name)
        raise AttributeError(f"the stand-in for CuPy has no ndarray.{name}; add it if CuPy has it")

    def _method(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host, arguments, named = self._host, unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
            if name == "fill":
                return change(lambda: host.fill(*arguments), host)
            if name in ("sum", "mean"):  # a GPU adds up in an order of its own
                host = np.flip(host, named.get("axis", arguments[0] if arguments else None))
            return wrap(compute(lambda: getattr(host, name)(*arguments, **named)))

        return call

    def __getitem__(self, index: Any) -> ndarray:
        host, at = self._host, unwrap(index)
        if any(isinstance(i, np.ndarray) and i.dtype == bool for i in (at if isinstance(at, tuple) else (at,))):
            device.current.refuse("counting what a mask selects")
        if isinstance(host[at], np.generic):  # also of one number CuPy makes a view
            at = (*at, ...) if isinstance(at, tuple) else (at, ...)
        return wrap(compute(lambda: host[at]))

    def __setitem__(self, index: Any, value: Any) -> None:
        touch(self._host, write=True)
        host, at, new = self._host, unwrap(index), unwrap(value)
        change(lambda: host.__setitem__(at, new), host)

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    __hash__ = None  # type: ignore[assignment]


class OutOfMemoryError(MemoryError):
    """As CuPy's own."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        most = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{most}).")


OutOfMemoryError.__module__ = "cupy.cuda.memory"


class CUDARuntimeError(RuntimeError):
    """As CuPy's own."""


class Memory:
    """How many allocations still succeed; None: all of them."""

    left: int | None = None
    own, free, total = 6 * 10**9, 5 * 10**8, 8 * 10**9  # bytes, as told
    given_back = 0  # how often free memory of the common pool was

    @staticmethod
    def give_back() -> None:
        device.current.refuse("giving back memory that a recording may use")
        Memory.given_back += 1


def allocate(size: int) -> None:
    if Memory.left is not None:
        Memory.left -= 1
        if Memory.left < 0:
            raise OutOfMemoryError(size, Memory.own)


def from_device(size: int) -> None:
    """cupy.cuda.Memory: past all pools."""
    try:
        allocate(size)
    except OutOfMemoryError as error:
        raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory") from error


METHODS = {"sum", "max", "min", "mean", "argmax", "reshape", "transpose", "swapaxes", "astype", "copy", "view", "ravel", "any", "all", "clip", "fill",
           "take", "squeeze", "dot", "prod", "var", "std", "cumsum", "argsort", "round", "repeat", "nonzero", "flatten"}  # fmt: skip


def unwrap(value: Any) -> Any:
    """The host side of an argument; TypeError where CuPy would refuse it."""
    if isinstance(value, ndarray):
        touch(value._host)
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple):
        return tuple(unwrap(v) for v in value)
    if isinstance(value, list):
        return [unwrap(v) for v in value]
    return value


def wrap(result: Any) -> Any:
    """Results of NumPy as arrays of the device: also 0-d ones, which NumPy turns into scalars."""
    if isinstance(result, np.ndarray):
        return ndarray(result)
    if isinstance(result, np.generic):
        return ndarray(np.asarray(result))
    if isinstance(result, tuple):
        return tuple(wrap(r) for r in result)
    return result


def _operator(name: str, in_place: bool) -> Any:
    def apply(self: ndarray, other: Any = None) -> Any:
        if other is not None and not isinstance(other, (ndarray, *SCALARS)):
            if isinstance(other, np.ndarray):
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
            return NotImplemented
        arguments = () if other is None else (unwrap(other),)
        touch(self._host, write=in_place)
        if "matmul" in name:
            device.current.refuse("cuBLAS")
        host = self._host
        if in_place:
            change(lambda: getattr(host, name)(*arguments), host)
            return self

        def result() -> Any:
            found = getattr(host, name)(*arguments)
            return found if found is NotImplemented else c_order(found)

        found = compute(result)
        return NotImplemented if found is NotImplemented else ndarray(found)

    return apply


def c_order(result: Any) -> np.ndarray:
    """CuPy's elementwise functions allocate C order, whatever the layout of their arguments."""
    return np.ascontiguousarray(result).reshape(np.shape(result))


for _name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__", False))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__", False))
    setattr(ndarray, f"__i{_name}__", _operator(f"__i{_name}__", True))
for _name in "lt le gt ge eq ne neg abs invert pos matmul rmatmul".split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__", False))


class Ufunc:
    def __init__(self, function: np.ufunc) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments, named = unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
        if "out" in kwargs:
            change(lambda: self.function(*arguments, **named), named["out"])
            return kwargs["out"]

        def result() -> Any:
            found = self.function(*arguments, **named)
            return tuple(map(c_order, found)) if isinstance(found, tuple) else c_order(found)

        return wrap(compute(result))

    def at(self, *args: Any) -> None:
        arguments = unwrap(args)
        change(lambda: self.function.at(*arguments), arguments[0])


class Module(types.ModuleType):
    """The module `cupy`: NumPy's functions on the stand-in's arrays."""

    ndarray = ndarray
    RawModule: Any
    cuda: Any
    __version__: str

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(total_bytes=lambda: Memory.own, free_all_blocks=Memory.give_back, get_limit=lambda: Pool.most)

    def asarray(self, value: Any, dtype: Any = None, **kwargs: Any) -> ndarray:
        if isinstance(value, ndarray) and dtype in (None, value.dtype):
            return value
        if isinstance(value, ndarray):
            return value.astype(dtype)
        device.current.refuse("a copy from the host")
        return ndarray(np.asarray(value._host if isinstance(value, ndarray) else value, dtype, **kwargs))

    def array(self, value: Any, dtype: Any = None, **kwargs: Any) -> ndarray:
        if not isinstance(value, ndarray):
            device.current.refuse("a copy from the host")
        return ndarray(np.array(value._host if isinstance(value, ndarray) else value, dtype, **kwargs))

    def __getattr__(self, name: str) -> Any:
        real = getattr(np, name)
        if isinstance(real, np.ufunc):
            return Ufunc(real)
        if isinstance(real, type) or not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            arguments, named = unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
            if name == "clip" and "out" in named:
                change(lambda: real(*arguments, **named), named["out"])
                return kwargs["out"]
            if name == "bincount" and not arguments[0].size:
                raise ValueError("zero-size array to reduction operation cupy_max which has no identity")
            if name == "matmul":
                device.current.refuse("cuBLAS")
            if name in ("stack", "concatenate") and len(args[0]) > 8:
                device.current.refuse("the addresses of more than 8 arrays, a copy from the host")
            return wrap(real(*arguments, **named) if name.startswith("empty") else compute(lambda: real(*arguments, **named)))

        return call


class RawModule:
    """Kernels compiled for the CPU by the simulator; like CuPy's they take arrays of the device, NumPy scalars, structs by value and nothing else.

    A struct is an array of NumPy's with one element; what it holds when the kernel is launched is what the kernel gets, recorded or not.
    """

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        from cudasim import SimModule

        self.module = SimModule(code, options=options)

    def get_function(self, name: str) -> Any:
        function = self.module.get_function(name)

        def launch(grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
            structs = {i: a.copy() for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.size == 1}
            arrays = [None if i in structs else unwrap(a) for i, a in enumerate(args)]
            arguments = tuple(structs.get(i, a) for i, a in enumerate(arrays))
            unwrap(list(launch.behind))  # they are read too
            launch.behind = ()
            change(lambda: function(grid, block, arguments, shared_mem=shared_mem), *arrays)

        launch.behind = ()  # type: ignore[attr-defined]
        return launch


class Nvrtc:
    """cupy.cuda.nvrtc as far as it is asked: its machine code says what it was made from."""

    class NVRTCError(RuntimeError):
        """What does not compile."""

    programs: list[str]
    refuses = ""  # what the compiler says instead

    def __init__(self) -> None:
        self.programs = []

    def getVersion(self) -> tuple[int, int]:
        return 13, 0

    def createProgram(self, code: str, name: str, headers: tuple[str, ...], names: tuple[str, ...]) -> int:
        self.programs.append(code)
        return len(self.programs) - 1

    def compileProgram(self, program: int, options: tuple[str, ...]) -> None:
        if self.refuses:
            raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)")
        self.programs[program] = repr((self.programs[program], options))

    def getCUBIN(self, program: int) -> bytes:
        return self.programs[program].encode()

    def getProgramLog(self, program: int) -> str:
        return self.refuses

    def destroyProgram(self, program: int) -> None:
        self.programs[program] = ""


class LoadedModule:
    """cupy.cuda.Module: kernels from the machine code of Nvrtc."""

    def load(self, binary: bytes) -> None:
        code, options = ast.literal_eval(binary.decode())
        self.get_function = RawModule(code=code, options=options).get_function


class Runtime:
    """cupy.cuda.runtime as far as it is asked: a new GPU with a fitting driver."""

    driverGetVersion = runtimeGetVersion = staticmethod(lambda: 13000)
    CUDARuntimeError = CUDARuntimeError
    getDevice = staticmethod(lambda: 0)
    memGetInfo = staticmethod(lambda: (Memory.free, Memory.total))
    getDeviceProperties = staticmethod(lambda device: {"name": b"stand-in", "major": 9, "minor": 0})


def make_module(streams: bool = False) -> Module:
    """A new `cupy`. streams: whether every access to memory is checked against the order that events make (slow)."""
    global device, tracking
    device, tracking = Device(), streams
    here = device
    module = Module("cupy")
    module.cuda = types.SimpleNamespace(
        is_available=lambda: True,
        runtime=Runtime,
        nvrtc=Nvrtc(),
        Module=LoadedModule,
        Stream=lambda **options: Stream(here, **options),
        Event=lambda **options: Event(here, **options),
        get_current_stream=lambda: here.current,
        alloc_pinned_memory=bytearray,
        Memory=from_device,
        MemoryPointer=lambda memory, offset: memory,
        MemoryPool=Pool,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        get_elapsed_time=lambda start, stop: 1e3 * (stop.time - start.time),
        using_allocator=using_allocator,
    )
    module.RawModule = RawModule
    module.__version__ = "stand-in"
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    return module
