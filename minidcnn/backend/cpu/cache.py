"""numba's cache on disk, made safe for processes that compile at the same time and for kernels that use other files.

Importing this module imports numba.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..compiling import tell
from .jit import AMX, LANES

importlib.import_module("numba")  # first: threads that begin with different parts of it at once would find each other's half made
caching: Any = importlib.import_module("numba.core.caching")  # as Any: how much of numba is typed depends on its version
event: Any = importlib.import_module("numba.core.event")
code_of = attrgetter("library")  # of what numba compiled: LLVM's module and the machine code
SETTINGS = (LANES, AMX)  # environment variables that change the code
_depends: dict[str, object] = {}


def depends(module: str, on: object) -> None:
    """The code of this module's kernels is another one where `on` is another."""
    _depends[module] = on


def newest_source() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every source file of this folder: kernels are made of functions and constants of several files."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((f.name, (status := f.stat()).st_mtime_ns, status.st_size) for f in files)


class Compilations(event.Listener):  # type: ignore[misc]
    """Hears of everything that numba compiles and tells of what is ours."""

    def on_start(self, made: Any) -> None:
        if made.data["dispatcher"].py_func.__module__.startswith("minidcnn."):
            tell()

    def on_end(self, made: Any) -> None: ...


event.register("numba:compile", Compilations())


class Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """Files named after what they hold.

    numba numbers them, so that of two processes that compile for different types at once, one may find the other's code under its number.
    """

    def _load_index(self) -> Any:
        """What is there; nothing if it cannot be read: an index by another version of ours may name classes that are gone."""
        try:
            return super()._load_index()
        except Exception:  # whatever unpickling raises
            return {}

    def save(self, key: Any, data: Any) -> None:
        overloads = self._load_index()
        overloads[key] = name = self._data_name(int(hashlib.sha256(repr(key).encode()).hexdigest()[:15], 16))
        self._save_data(name, data)
        self._save_index(overloads)


class Results(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """What is kept of a compiled kernel, with the names of the routines that it calls: they must be there before it is loaded."""

    def reduce(self, data: Any) -> Any:
        from .routine import routines

        return [f.name for f in code_of(data)._final_module.functions if f.is_declaration and f.name in routines], super().reduce(data)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        from .routine import routines

        names, made = payload
        if any(name not in routines for name in names):
            return None  # as if it were not in the cache
        for name in names:
            routines[name].load()
        return super().rebuild(target_context, made)


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """The cache of one kernel. RuntimeError if no folder can be written."""

    _impl_class = Results

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self.module = function.__module__
        stamp = newest_source(), self._impl.locator.get_source_stamp()  # the second: a kernel may stand elsewhere
        self._cache_file = Files(self._cache_path, self._impl.filename_base, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), *(os.environ.get(name, "") for name in SETTINGS), _depends.get(self.module))

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # the folder could be written a moment ago, but the disk is full or the quota used up
            super().save_overload(sig, data)
