"""Loading a state dict: everything is checked first, so that an error leaves the module as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backend import Array, is_cupy, to_backend
from ..tensor import Tensor
from ..words import counted, some

if TYPE_CHECKING:
    from .module import Module


class Incompatible(NamedTuple):
    """What load_state_dict found on one side only."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_state(module: Module, state: Mapping[str, Any], strict: bool) -> Incompatible:
    """See Module.load_state_dict."""
    name = type(module).__name__
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict: {name} needs a mapping from names to arrays, got {type(state).__name__}")
    missing: list[str] = []
    wrong: list[str] = []
    known: set[str] = set()
    plan: list[tuple[Tensor, Array]] = []
    for key, owner, own, tensor in module.named_state():
        known.add(key)
        if key not in state:
            if own not in owner.optional_state:
                missing.append(key)
            continue
        array = _array(key, state[key])
        if array.shape != tensor.shape:
            wrong.append(f"{key} is {array.shape}, the model's is {tensor.shape}")
        else:
            plan.append((tensor, array))
    unexpected = [key for key in state if key not in known]
    complaints = []
    if strict and missing:
        complaints.append(f"{counted(len(missing), 'key')} missing: {some(missing)}")
    if strict and unexpected:
        complaints.append(f"{counted(len(unexpected), 'key')} unexpected: {some(unexpected)}")
    if wrong:
        complaints.append(f"{counted(len(wrong), 'shape')} differ{'s' if len(wrong) == 1 else ''}: {some(wrong)}")
    if complaints:
        hint = "; pass strict=False to load what fits by name" if strict and not wrong else ""
        raise ValueError(f"load_state_dict: the state does not fit {name}: {'; '.join(complaints)}{hint}")
    for tensor, array in plan:
        tensor._array[...] = to_backend(array, tensor.backend)
        tensor.changed()
    return Incompatible(missing, unexpected)


def _array(key: str, value: Any) -> Array:
    """The value of a state dict as an array of numbers."""
    if isinstance(value, Tensor):
        return value._array
    try:
        array: Array = value if is_cupy(value) else np.asarray(value)
    except (TypeError, RuntimeError) as error:  # what torch says of bfloat16, of another device and of what requires gradients
        raise TypeError(f"load_state_dict: {key} is no array that NumPy can take ({error}); convert it first") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"load_state_dict: {key} holds {array.dtype} values instead of numbers")
    return array
