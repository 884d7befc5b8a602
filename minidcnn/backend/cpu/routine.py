"""`routine`: functions that are compiled once and that kernels call, where numba would compile them anew in each kernel that uses them.

numba's functions take in what they call, and the products of matrices, made for each number of vectors, are as long as the kernels around
them: a third of what the first step on a machine waits for. A routine is known to LLVM by a name of its own, and a kernel holds the name.

Importing this module imports numba.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

from llvmlite import binding
from numba import types  # first, as in cache.py
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import templates

from ..arrays import Array
from .cache import code_of
from .jit import _dispatcher

P = ParamSpec("P")
R = TypeVar("R")
_make_template: Any = templates.make_concrete_template
_tuple_of: Any = types.BaseTuple.from_types
KINDS = {int: types.int64, Array: types.Array(types.float32, 1, "C"), type(None): types.none}

routines: dict[str, Routine] = {}  # by name


class Routine:
    """A function compiled for the types of its annotations: int is int64, Array (N,) float32 in C order. None is what it returns.

    python: it may be called from Python as well.
    """

    def __init__(self, function: Callable[..., None], python: bool = False) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.arguments = tuple(_kind(hint) for name, hint in get_type_hints(function).items() if name != "return")
        self.dispatcher: Any = _dispatcher(function, no_cpython_wrapper=not python)
        self.type: Any = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        routines[self.name] = self

    def load(self) -> None:
        """Compile the routine, or read it from the cache, and tell LLVM where it lies, if that was not done before."""
        if self.type is not None:
            return
        with global_compiler_lock:
            if self.type is not None:
                return
            self.dispatcher.compile(self.arguments)
            self.dispatcher.disable_compile()  # for other types, which would be a mistake of ours
            made = self.dispatcher.overloads[self.arguments]
            binding.add_symbol(self.name, code_of(made).get_pointer_to_function(made.fndesc.llvm_func_name))
            called = copy.copy(made.fndesc)
            called.mangled_name = self.name
            self.dispatcher.targetctx.insert_user_function(self, called)
            self.type = types.Function(_make_template(self.name, self, [types.void(*self.arguments)]))

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a global name for, when it compiles a kernel that uses it."""
        self.load()
        return self.type

    def __call__(self, *args: Any) -> None:
        self.load()
        self.dispatcher(*args)


def routine(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled once, for kernels to call."""
    return Routine(function)  # type: ignore[return-value,arg-type]


def python_routine(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled once, for kernels and for Python to call."""
    return Routine(function, python=True)  # type: ignore[return-value,arg-type]


def _kind(hint: Any) -> Any:
    """numba's type for what an argument is annotated with; named tuples by their fields."""
    if hint in KINDS:
        return KINDS[hint]
    return _tuple_of([_kind(field) for field in get_type_hints(hint).values()], hint)
