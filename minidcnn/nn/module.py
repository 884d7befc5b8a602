"""Module: a tree of layers that knows its parameters, its buffers and how to save and load them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from ..backend import Array, kernels_of, to_backend
from ..tensor import Tensor
from .hooks import Handle
from .parameter import Parameter
from .state import Incompatible, load_state

Hook = Callable[["Module", tuple[Any, ...], Any], Any]
PreHook = Callable[["Module", tuple[Any, ...]], Any]


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Inside, the module is in eval(); afterwards it and all below are in the modes that they were in."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for m, training in modes:
            m.training = training


class Module:
    """Base class of layers and networks, as torch.nn.Module: subclass it, make layers in __init__, compute in forward.

    Parameters, buffers (tensors that are saved but not trained) and child modules are found by assigning them to attributes; call
    `super().__init__()` first, else AttributeError; TypeError for what replaces one and is of another kind. `training`: see train(), eval().
    """

    training: bool
    _modules: dict[str, Any]
    optional_state: ClassVar[tuple[str, ...]] = ()  # names of own state that a state dict may lack, since older files do

    def __init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "_parameters", {})
        set_(self, "_buffers", {})
        set_(self, "_temporary", set())  # names of buffers that are not saved
        set_(self, "_modules", {})
        set_(self, "_hooks", {})
        set_(self, "_pre_hooks", {})
        set_(self, "training", True)

    # -- calling -----------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it, else NotImplementedError."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(self, ...)")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        if not self._hooks and not self._pre_hooks:
            return self.forward(*inputs, **kwargs)
        for pre in tuple(self._pre_hooks.values()):
            changed = pre(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*inputs, **kwargs)
        for hook in tuple(self._hooks.values()):
            changed = hook(self, inputs, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call hook(module, inputs, output) after each forward; what it returns, unless None, replaces the output."""
        return Handle(self._hooks, hook)

    def register_forward_pre_hook(self, hook: PreHook) -> Handle:
        """Call hook(module, inputs) before each forward; what it returns, unless None, replaces the inputs."""
        return Handle(self._pre_hooks, hook)

    # -- attributes ------------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter | Module):
            if "_parameters" not in own:
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            self._put("_parameters" if isinstance(value, Parameter) else "_modules", name, value)
            return
        for table, kind, wanted in (
            ("_parameters", Parameter, "a Parameter"),
            ("_modules", Module, "a Module"),
            ("_buffers", Tensor, "a Tensor"),
        ):
            if name in own.get(table, ()):
                if value is not None and not isinstance(value, kind):
                    raise TypeError(
                        f"{type(self).__name__}.{name} must be {wanted} or None, got {type(value).__name__}; del it first to change its kind"
                    )
                own[table][name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in ("_parameters", "_modules", "_buffers"):
            if name in own.get(table, ()):
                return own[table][name]
        missing = "" if "_parameters" in own else "; was super().__init__() called?"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{missing}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str, but: str = "") -> bool:
        """Take an attribute out of all tables but one; whether it was in any."""
        found = False
        for table in ("_parameters", "_modules", "_buffers", "__dict__"):
            if table != but and name in getattr(self, table):
                del getattr(self, table)[name]
                found = True
        self._temporary.discard(name)
        return found

    def _put(self, table: str, name: str, value: Any) -> None:
        """Set an attribute in its table, at its old place there if it had one."""
        self._forget(name, but=table)
        getattr(self, table)[name] = value

    def _claim(self, kind: str, name: str) -> None:
        """Check a name for register_parameter, register_buffer or add_module."""
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before registering {kind} {name!r}")
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: the name of a {kind} must be a string, got {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"{type(self).__name__}: {kind} name {name!r} must not be empty or contain a dot")
        if hasattr(self, name) and not any(name in t for t in (self._parameters, self._buffers, self._modules)):
            raise KeyError(f"{type(self).__name__}: attribute {name!r} exists already")

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter by name; None reserves the name. KeyError for a name that is empty, dotted or taken, TypeError for another kind."""
        self._claim("parameter", name)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(
                f"{type(self).__name__}.{name} must be a Parameter or None, got {type(parameter).__name__}; wrap it in nn.Parameter"
            )
        self._put("_parameters", name, parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the state but is not trained; it is saved unless persistent=False. Errors as
        in register_parameter."""
        self._claim("buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{type(self).__name__}.{name} must be a Tensor or None, got {type(tensor).__name__}")
        self._put("_buffers", name, tensor)
        if not persistent:
            self._temporary.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child by name. Errors as in register_parameter."""
        self._claim("module", name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}.{name} must be a Module or None, got {type(module).__name__}")
        self._put("_modules", name, module)

    # -- walking the tree ----------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module (named `prefix`) and all below it, parents first, each once; or under every name it has, RecursionError if there is
        no end to them.
        """
        seen: set[int] = set()
        stack: list[tuple[str, Module, tuple[int, ...]]] = [(prefix, self, ())]
        while stack:
            name, module, above = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            if id(module) in above:
                raise RecursionError(f"{type(self).__name__}: {name} is a module that holds it; keep such a one in a list: [module]")
            seen.add(id(module))
            yield name, module
            dot, path = f"{name}." if name else "", (*above, id(module))
            stack.extend((dot + key, child, path) for key, child in reversed(module._modules.items()) if child is not None)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each once."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        return (child for _, child in self.named_children())

    def _named(
        self, tables: Sequence[str], prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module, str, Any]]:
        """(full name, owner, own name, tensor) of all that is in these tables; shared tensors under their first name only, or under each."""
        seen: set[int] = set()
        modules = self.named_modules(prefix, remove_duplicate) if recurse else iter([(prefix, self)])
        for path, module in modules:
            for name, tensor in (item for table in tables for item in getattr(module, table).items()):
                if tensor is None or (remove_duplicate and id(tensor) in seen):
                    continue
                seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), module, name, tensor

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their names ("encoder.0.weight"); a shared one comes once, under its first name."""
        return ((full, tensor) for full, _, _, tensor in self._named(["_parameters"], prefix, recurse, remove_duplicate))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their names."""
        return ((full, tensor) for full, _, _, tensor in self._named(["_buffers"], prefix, recurse, remove_duplicate))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; "" is this one. AttributeError names the part that is missing."""
        module: Module = self
        for part in target.split(".") if target else ():
            child = module._modules.get(part)
            if child is None:
                raise AttributeError(f"{type(self).__name__} has no module {target!r}: {type(module).__name__} has no child {part!r}")
            module = child
        return module

    # -- state -----------------------------------------------------------------------------------------------------------

    def named_state(self) -> Iterator[tuple[str, Module, str, Tensor]]:
        """(full name, owner, own name, tensor) of all that a state dict holds, in its order; shared tensors under every name."""
        found = self._named(["_parameters", "_buffers"], remove_duplicate=False)
        return ((full, owner, name, tensor) for full, owner, name, tensor in found if name not in owner._temporary)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and persistent buffers as C-ordered NumPy arrays, by torch's names.

        They are copies: training on does not change a state dict that was kept as the best so far.
        """
        return {name: np.array(to_backend(tensor._array, "numpy"), order="C", copy=True) for name, _, _, tensor in self.named_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Incompatible:
        """Copy arrays (NumPy, CuPy, tensors) into the parameters and buffers of the same names; dtypes are converted to the module's.

        Returns (missing_keys, unexpected_keys). With `strict` both must be empty. ValueError says which keys are missing, unexpected or
        of another shape; nothing has been changed then.
        """
        return load_state(self, state_dict, strict)

    # -- switching ---------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training behaviour of dropout and batch norm, here and below. Returns this module. TypeError unless mode is a bool."""
        if not isinstance(mode, bool):
            raise TypeError(f"train: mode must be True or False, got {type(mode).__name__}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Inference behaviour: dropout off, batch norm by its running statistics. Returns this module."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call function(module) on all modules below and then on this one. Returns this module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or with set_to_none=False fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = Tensor.wrap(kernels_of(parameter.grad._array).xp.zeros_like(parameter.grad._array))

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch training of all parameters on, or off (freeze them). Returns this module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(self, target: Any) -> Self:
        """Move all parameters and buffers to backend "numpy" or "cupy", or convert the floating ones to a dtype. Returns this module.

        Parameters stay the same objects, so an optimizer made before goes on. ValueError for anything else.
        """
        if target in ("numpy", "cupy"):
            return self._convert(lambda array: to_backend(array, target))
        try:
            dtype = np.dtype("V1" if target is None else target)  # None would be float64
        except TypeError:
            dtype = np.dtype("V1")
        if dtype.kind != "f":
            raise ValueError(f'to: {target!r} is neither a backend ("numpy", "cupy") nor a floating dtype ("float32", "float64")')
        return self._convert(lambda array: array.astype(dtype, order="K", copy=False) if array.dtype.kind == "f" else array)

    def double(self) -> Self:
        """All floating parameters and buffers as float64. Returns this module."""
        return self.to("float64")

    def _convert(self, change: Callable[[Array], Array]) -> Self:
        for _, _, _, tensor in self._named(["_parameters", "_buffers"]):
            array = change(tensor._array)
            if array is not tensor._array:
                tensor._array = array
                tensor.changed()
            if tensor.grad is not None:
                tensor.grad = Tensor.wrap(change(tensor.grad._array))
        return self

    # -- printing ----------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands in the brackets of this module's repr."""
        return ""

    def _child_lines(self) -> list[str]:
        """One entry "(name): repr" per child; entries may have several lines."""
        return [f"({name}): {child!r}" for name, child in self._modules.items()]

    def __repr__(self) -> str:
        extra = [line for line in self.extra_repr().split("\n") if line]
        children = self._child_lines()
        if not children and len(extra) < 2:
            return f"{type(self).__name__}({''.join(extra)})"
        body = "\n".join(extra + children).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"
