"""Optimizer: groups of parameters with their settings, and the state that each parameter gathers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..backend import Array, Kernels, is_cupy, kernels_of, to_backend
from ..recording import enable_grad, no_grad
from ..tensor import Tensor
from .checks import iterated, plain


class Optimizer:
    """Base class: subclasses name their settings in `defaults`, check them in `check` and update parameters in `update`.

    `params`: tensors, or dicts {"params": tensors, "lr": ..., ...} whose settings override the defaults, as torch.optim.
    ValueError for no parameters, settings that are unknown or out of range, a tensor that is no floating-point leaf, or one given twice;
    TypeError for what is no tensor, for parameters without an order, and for settings that are no numbers.
    """

    newer: ClassVar[tuple[str, ...]] = ()  # settings that states of older versions lack

    def __init__(self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        if isinstance(params, Tensor | Mapping):
            kind = "tensor" if isinstance(params, Tensor) else "dict"
            raise TypeError(f"{self._name}: params must be an iterable of tensors or dicts, got one {kind}; wrap it in a list")
        groups = iterated(f"{self._name}: params", params)
        if not groups:
            raise ValueError(f"{self._name}: got no parameters; note that an iterator such as model.parameters() can be used up only once")
        for group in groups if isinstance(groups[0], Mapping) else [{"params": groups}]:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def check(self, group: Mapping[str, Any]) -> None:
        """ValueError for settings out of range, TypeError for settings that are no numbers."""

    def update(self, kernels: Kernels, todo: Sequence[tuple[Tensor, Array, dict[str, Any], Mapping[str, Any]]]) -> None:
        """For each (parameter, gradient, state, group) change parameter._array in place, and `state`, which starts as an empty dict.

        All of them live where `kernels` work. NotImplementedError where a subclass lacks it.
        """
        raise NotImplementedError(f"{self._name} does not define update")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own; settings left out are the defaults. Errors as of the optimizer itself."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'{self._name}: a parameter group must be a dict with the key "params", got {type(group).__name__}')
        params = [group["params"]] if isinstance(group["params"], Tensor) else iterated(f"{self._name}: params", group["params"])
        unknown = [key for key in group if key not in self.defaults and key not in ("params", "initial_lr")]
        if unknown:
            raise ValueError(f"{self._name}: {unknown[0]!r} is no setting of this optimizer; known are {', '.join(self.defaults)}")
        taken = {id(p) for g in self.param_groups for p in g["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(f"{self._name}: parameter {i} must be a Tensor, got {type(p).__name__}")
            if not p.is_leaf or p.dtype.kind != "f":
                raise ValueError(
                    f"{self._name}: parameter {i} (shape {p.shape}, {p.dtype}) must be a floating-point tensor that no function made"
                )
            if id(p) in taken:
                raise ValueError(f"{self._name}: parameter {i} of this group (shape {p.shape}) is given twice; list each parameter once")
            taken.add(id(p))
        settings = {key: plain(value) for key, value in (self.defaults | dict(group)).items() if key != "params"}
        complete = {**settings, "params": params}
        self.check(complete)
        self.param_groups.append(complete)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or with set_to_none=False fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad = Tensor.wrap(kernels_of(p.grad._array).xp.zeros_like(p.grad._array))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. `closure`, if given, computes the loss and the gradients first; it is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        todo: dict[Kernels, list[tuple[Tensor, Array, dict[str, Any], Mapping[str, Any]]]] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state.setdefault(p, {})
                for key, value in state.items():  # the model may have moved since the last step
                    if hasattr(value, "dtype") and is_cupy(value) != is_cupy(p._array):
                        state[key] = to_backend(value, p.backend)
                gradient = p.grad._array
                if gradient.dtype != p.dtype:  # given by hand; squares of float16 may be 0
                    gradient = gradient.astype(p.dtype)
                todo.setdefault(kernels_of(p._array), []).append((p, gradient, state, group))
        with no_grad():
            for kernels, some in todo.items():
                self.update(kernels, some)
                for p, *_ in some:
                    p.changed()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """{"state": {i: {name: array or number}}, "param_groups": [{..., "params": [i, ...]}]}, as torch.

        Parameters are counted through all groups. Arrays are C-ordered NumPy copies; everything else is numbers, booleans, None, strings
        and lists of them, fit for JSON.
        """
        index = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = []
        for group in self.param_groups:
            settings = {key: plain(list(value) if isinstance(value, tuple) else value) for key, value in group.items() if key != "params"}
            groups.append({**settings, "params": [index[id(p)] for p in group["params"]]})
        state = {index[id(p)]: {key: _copy(value) for key, value in values.items()} for p, values in self.state.items() if values}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put back what state_dict() returned; keys of "state" may be strings, as JSON makes them, and "step" an array, as torch makes it.

        ValueError if groups, parameters or shapes differ from this optimizer's, if a setting is missing, as in the state of another kind
        of optimizer, or if torch maximized; nothing has been changed then.
        """
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            got = f"keys {', '.join(map(str, state_dict)) or 'none'}" if isinstance(state_dict, Mapping) else type(state_dict).__name__
            raise ValueError(
                f'load_state_dict: {self._name} needs a dict of "state" and "param_groups", as state_dict() returns, got {got}'
            )
        groups, states = state_dict["param_groups"], {int(i): dict(values) for i, values in state_dict["state"].items()}
        ours, theirs = ([len(g["params"]) for g in some] for some in (self.param_groups, groups))
        if ours != theirs:
            raise ValueError(
                f"load_state_dict: the state is for groups of {', '.join(map(str, theirs))} parameters, this {self._name} has groups of "
                f"{', '.join(map(str, ours))}"
            )
        for loaded in groups:
            missing = [key for key in self.defaults if key not in loaded and key not in self.newer]
            if missing:
                raise ValueError(
                    f"load_state_dict: the state lacks {', '.join(missing)}, which {self._name} has; it is another optimizer's"
                )
            if loaded.get("maximize"):
                raise ValueError(
                    f"load_state_dict: the state has maximize=True, but {self._name} minimizes; set it to False, and negate the loss"
                )
        params = [p for g in self.param_groups for p in g["params"]]
        places = [i for g in groups for i in g["params"]]
        state: dict[Tensor, dict[str, Any]] = {}
        for place, p in zip(places, params, strict=True):
            values = states.get(place)
            if values is None:
                continue
            values = {key: int(plain(value)) if key == "step" else value for key, value in values.items() if value is not None}
            for key, value in values.items():
                if hasattr(value, "shape") and value.shape != p.shape:
                    raise ValueError(f"load_state_dict: {key} of parameter {place} has shape {value.shape}, the parameter has {p.shape}")
            state[p] = {key: _like(value, p) if hasattr(value, "shape") else value for key, value in values.items()}
        merged = []
        for own, loaded in zip(self.param_groups, groups, strict=True):
            known = {key: _as(own.get(key), plain(value)) for key, value in loaded.items() if key != "params"}
            merged.append({**own, **known})
        for group in merged:
            self.check(group)
        for own, group in zip(self.param_groups, merged, strict=True):
            own.update(group)
        self.state = state

    def __repr__(self) -> str:
        lines = [f"{self._name} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _copy(value: Any) -> Any:
    return np.array(to_backend(value, "numpy"), order="C", copy=True) if hasattr(value, "dtype") else value


def _like(value: Any, parameter: Tensor) -> Array:
    """An array with the dtype, memory layout and backend of `parameter`."""
    kernels = kernels_of(parameter._array)
    array: Array = kernels.map(kernels.xp.empty_like, parameter._array)
    array[...] = to_backend(value if is_cupy(value) else np.asarray(value), parameter.backend)
    return array


def _as(example: Any, value: Any) -> Any:
    """`value` as a tuple where ours is one: JSON has lists only."""
    return tuple(value) if isinstance(example, tuple) else value
