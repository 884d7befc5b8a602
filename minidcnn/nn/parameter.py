"""Parameter: a tensor that a module registers and an optimizer updates."""

from __future__ import annotations

from typing import Any, Self

from ..backend import Array, empty_images, kernels
from ..tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that collects gradients. Assigned to an attribute of a Module it becomes one of its parameters.

    `data` is copied, to the current backend, as Tensor does. TypeError for integers when gradients are required.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: Any = "float32") -> Self:
        """A parameter of uninitialised memory on the current backend; four axes lie in channels-last memory, as the kernels like weights."""
        xp = kernels().xp
        array: Array = empty_images(xp, shape, dtype) if len(shape) == 4 else xp.empty(shape, dtype)
        return cls.wrap(array).requires_grad_()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = self.wrap(self._array.copy(order="K")).requires_grad_(self.requires_grad)
        copy.grad = None if self.grad is None else Tensor.wrap(self.grad._array.copy(order="K"))
        return copy

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("Tensor")
