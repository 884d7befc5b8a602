"""Modules made of modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar, overload

from .fuse import run
from .module import Module

L = TypeVar("L", bound="_Listed")


class _Listed(Module):
    """Children in order, named "0", "1", ... unless they were given other names; what Sequential and ModuleList share."""

    _counted = False  # whether a part counts from 0 again; else it keeps its names, as in PyTorch

    def _key(self, index: int) -> str:
        n = len(self)
        if not hasattr(index, "__index__"):
            raise TypeError(f"{type(self).__name__}: an index must be an int or a slice, got {type(index).__name__}")
        i = index.__index__()
        if not -n <= i < n:
            raise IndexError(f"{type(self).__name__}: index {i} is out of range for {n} modules")
        return list(self._modules)[i]

    def _replace(self, modules: Iterable[Module | None]) -> None:
        modules = list(modules)
        self._modules.clear()
        for i, module in enumerate(modules):
            self._modules[str(i)] = module

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules.values()))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self: L, index: slice) -> L: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            Module.__init__(part)
            part.training = self.training
            part._modules.update(list(self._modules.items())[index])
            if self._counted:
                part._replace(part)
            return part
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        key = self._key(index)
        self.add_module(key, module)

    def __delitem__(self, index: int | slice) -> None:
        keys = list(self._modules)[index] if isinstance(index, slice) else [self._key(index)]
        for key in keys:
            del self._modules[key]
        if all(key.isdigit() for key in self._modules):
            self._replace(self._modules.values())

    def append(self, module: Module) -> Self:
        """Add a module at the end, under the first free number from its position on. Returns this container. TypeError if it is none."""
        number = len(self)
        while str(number) in self._modules:  # a slice and a dict keep their names
            number += 1
        self.add_module(str(number), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end. Returns this container. TypeError for what is none."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before position `index`; the names of those behind move up. Returns this container. TypeError if it is none."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: insert needs a Module, got {type(module).__name__}")
        modules: list[Module | None] = list(self._modules.values())
        modules.insert(index, module)
        self._replace(modules)
        return self


class Sequential(_Listed):
    """Modules run one after the other: Sequential(conv, relu, ...) or Sequential({"conv": conv, "relu": relu}).

    TypeError for what is no Module, IndexError for an index out of range, KeyError for a name that is empty, dotted or taken.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {name} must be a Module, got {type(module).__name__}; unpack lists with Sequential(*layers)")
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        return run(list(self._modules.values()), input)


class ModuleList(_Listed):
    """A list of modules; the module that holds it calls them in its own forward. Errors as of Sequential."""

    _counted = True

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def _child_lines(self) -> list[str]:
        """Runs of equal entries as one line "(0-2): 3 x Linear(...)"."""
        runs: list[tuple[int, int, str]] = []
        for i, module in enumerate(self._modules.values()):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        return [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in runs]


class ModuleDict(Module):
    """Modules by name; the module that holds it calls them in its own forward.

    TypeError for what is no Module, KeyError for a name that is empty, dotted or taken, and for one that is asked for and not there.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules. Errors as of ModuleDict itself."""
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self[name] = module

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """The names, in the order in which they came."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules, in the same order."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, module) of each, in the same order."""
        return self._modules.items()

    def pop(self, name: str) -> Any:
        """Take a module out and return it. KeyError if there is none of that name."""
        module = self._modules[name]
        del self._modules[name]
        return module
