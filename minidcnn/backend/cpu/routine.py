"""`routine`: functions that are compiled once and that kernels call, where numba would compile them anew in each kernel that uses them.

numba's functions take in what they call, and the products of matrices, made for each number of vectors, are as long as the kernels around
them: a third of what the first step on a machine waits for. A routine is known to LLVM by a name of its own, and a kernel holds the name.

Importing this module imports numba.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from llvmlite import binding
from numba import types  # first, as in cache.py
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import templates

from ..arrays import Array
from .cache import code_of
from .jit import _dispatcher

P = ParamSpec("P")
R = TypeVar("R")
_template: Any = templates.AbstractTemplate
_tuple_of: Any = types.BaseTuple.from_types
KINDS = {int: types.int64, Array: types.Array(types.float32, 1, "C"), type(None): types.none}

routines: dict[str, Variant] = {}  # by the name that LLVM knows


class Variant:
    """A routine for one combination of argument types."""

    def __init__(self, name: str, dispatcher: Any, of: Any, arguments: tuple[Any, ...]) -> None:
        self.name, self.dispatcher, self.of, self.arguments = name, dispatcher, of, arguments
        self.loaded = False
        routines[name] = self

    def load(self) -> None:
        """Compile it, or read it from the cache, and tell LLVM where it lies, if that was not done before."""
        if self.loaded:
            return
        with global_compiler_lock:
            if self.loaded:
                return
            self.dispatcher.disable_compile(False)
            self.dispatcher.compile(self.arguments)
            self.dispatcher.disable_compile()  # for other types, which would be a mistake of ours
            made = self.dispatcher.overloads[self.arguments]
            binding.add_symbol(self.name, code_of(made).get_pointer_to_function(made.fndesc.llvm_func_name))
            called = copy.copy(made.fndesc)
            called.mangled_name = self.name
            self.dispatcher.targetctx.insert_user_function(self.of, called)
            self.loaded = True


class Routine:
    """A function compiled for the types of its annotations: int is int64, Array (N,) float32 in C order. None is what it returns.

    An argument that may be an int or None makes two variants: `if x is None` is decided when each is compiled, which is when it is first used.
    python: it may be called from Python as well.
    """

    def __init__(self, function: Callable[..., None], python: bool = False) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.dispatcher: Any = _dispatcher(function, no_cpython_wrapper=not python)
        hints = [_kinds(hint) for name, hint in get_type_hints(function).items() if name != "return"]
        self.optional = [k for k, kinds in enumerate(hints) if len(kinds) > 1]
        self.variants: dict[tuple[bool, ...], Variant] = {}  # by which of the optional arguments are None
        for some in itertools.product(*hints):
            name = f"{self.name}{f'-{len(self.variants)}' if self.variants else ''}"
            self.variants[self._absent(some)] = Variant(name, self.dispatcher, self, some)
        self.type = types.Function(type(self.name, (_Chosen,), {"key": self, "routine": self}))
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def _absent(self, arguments: Sequence[Any]) -> tuple[bool, ...]:
        return tuple([(value := arguments[k]) is None or isinstance(value, types.NoneType) for k in self.optional])

    def variant(self, arguments: Sequence[Any]) -> Variant:
        """The one for these arguments, or for numba's types of them."""
        return self.variants[self._absent(arguments)]

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a global name for, when it compiles a kernel that uses it."""
        return self.type

    def __call__(self, *args: Any) -> None:
        self.variant(args).load()
        self.dispatcher(*args)


class _Chosen(_template):  # type: ignore[misc]
    """How a kernel finds the variant that it calls."""

    routine: Routine

    def generic(self, arguments: Any, keywords: Any) -> Any:
        if keywords or len(arguments) != len(next(iter(self.routine.variants.values())).arguments):
            return None
        variant = self.routine.variant(arguments)
        variant.load()
        return types.void(*variant.arguments)


def routine(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled once, for kernels to call."""
    return Routine(function)  # type: ignore[return-value,arg-type]


def python_routine(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled once, for kernels and for Python to call."""
    return Routine(function, python=True)  # type: ignore[return-value,arg-type]


def _kinds(hint: Any) -> list[Any]:
    """numba's types for what an argument is annotated with; a named tuple's are those of its fields."""
    if isinstance(hint, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    if hint in KINDS:
        return [KINDS[hint]]
    fields = [kind for field in get_type_hints(hint).values() for kind in _kinds(field)]
    return [_tuple_of(fields, hint)]
