"""Tensor: an array and, if a function made it, its place in the graph that the backward pass walks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from .backend import Array, backend, float_dtype, is_cupy, raise_pending, to_backend
from .operators import in_place, recorded, registered, writable

if TYPE_CHECKING:
    from .autograd import Node

Operand: TypeAlias = "Tensor | float | int | bool | Array"


class _Watch(threading.local):
    changed: list[Tensor] | None = None  # if a list, tensors that are changed in place enter it


watch = _Watch()


class Storage:
    """What tensors that share memory share: how often it was changed, and how many backward passes still need it."""

    version = 0
    needed = 0

    def __reduce__(self) -> tuple[type[Storage], tuple[()]]:
        """Copied or pickled, the memory is another, which no backward pass needs yet."""
        return Storage, ()


class Tensor:
    """An n-dimensional array that remembers how it was made, so that gradients can flow back.

    `data`: an array, a number or nested lists; it is copied, and moved to the current backend (`minidcnn.use`) unless it is a CuPy array
    already. Arrays keep their dtype, also in lists, Python floats become float32, ints int64. `requires_grad`: collect a gradient in `.grad` during
    `backward`; needs a floating dtype. TypeError without one, and for what holds no real numbers; ValueError for a number that `dtype` cannot hold.

    `x += y`, `-=`, `*=`, `/=` and `**=` keep shape and dtype. Where nothing is recorded (within `no_grad`, or if neither requires
    gradients) they write into the array, as `p -= lr * p.grad` is meant; where a graph is recorded, the name gets a new tensor, as of
    `x = x + y`. RuntimeError for a leaf that requires gradients, while they are recorded.
    """

    __slots__ = ("__weakref__", "_array", "_grad", "_index", "_node", "_owned", "_requires_grad", "_storage")
    __array_ufunc__ = None  # ndarray + Tensor asks Tensor, instead of building an object array

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            data = data._array
        dtype = None if dtype is None else real_dtype("Tensor", dtype)
        typed = isinstance(data, np.ndarray | np.generic) or is_cupy(data)
        array = real_array("Tensor: data", data, None if typed else dtype)
        if not typed and dtype is None and array.dtype == np.float64 and not _holds_float64(data):
            array = array.astype(np.float32)
        if not is_cupy(array) and backend() != "numpy":
            array = to_backend(array)
        self._array: Array = array.astype(array.dtype if dtype is None else dtype, order="K", copy=True)
        if requires_grad and not float_dtype(self._array.dtype):
            raise TypeError(f"Tensor: only floating-point tensors can require gradients, got dtype {self._array.dtype}")
        self._requires_grad = bool(requires_grad)
        self._grad: Tensor | None = None
        self._node: Node | None = None
        self._index = 0
        self._storage = Storage()
        self._owned = False  # whether a running backward pass allocated it as a sum and may add to it in place

    @classmethod
    def wrap(cls, array: Array, node: Node | None = None, index: int = 0, storage: Storage | None = None) -> Self:
        """A tensor around `array` itself, without a copy: for the engine and for functions, which own the arrays they pass."""
        tensor = cls.__new__(cls)
        tensor._array = np.asarray(array) if isinstance(array, np.generic) else array  # NumPy turns 0-d results into scalars
        tensor._requires_grad = node is not None
        tensor._grad = None
        tensor._node = node
        tensor._index = index
        tensor._storage = storage or Storage()
        tensor._owned = False
        return tensor

    # -- the array ---------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The array itself, not a copy. Read-only (NumPy) while a backward pass still needs it, since a change would falsify gradients.

        What is assigned is cast to this tensor's dtype: ValueError for another shape, TypeError for what holds no real numbers.
        """
        if self._storage.needed and not is_cupy(self._array):
            view = self._array.view()
            view.flags.writeable = False
            return view
        return self._array

    @data.setter
    def data(self, value: Any) -> None:
        value = value._array if isinstance(value, Tensor) else value
        array = real_array("Tensor.data", value)
        if not isinstance(value, np.ndarray) and not is_cupy(value):
            array = to_backend(array, "cupy" if is_cupy(self._array) else "numpy")
        if array.shape != self._array.shape:
            raise ValueError(
                f"Tensor.data: the new array has shape {array.shape}, the tensor has {self._array.shape}; make a new Tensor instead"
            )
        self._array = array.astype(self._array.dtype, order="K", copy=not writable(array))
        self.changed()

    def numpy(self) -> Array:
        """The values as a NumPy array: a read-only view if the tensor lives there, a copy from the GPU otherwise."""
        if is_cupy(self._array):
            return to_backend(self._array, "numpy")
        view = self._array.view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = to_backend(self._array, "numpy")
        return np.array(array, dtype=dtype, copy=True) if copy or copy is None else array.astype(dtype or array.dtype, copy=False)

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number. ValueError if there are more or fewer."""
        if self._array.size != 1:
            raise ValueError(f"item: only a one-element tensor has one value, this has shape {self.shape}")
        if is_cupy(self._array):
            raise_pending()
        return self._array.item()

    def to(self, backend: str) -> Tensor:
        """This tensor on backend "numpy" or "cupy"; the same tensor if it is there already. Differentiable: gradients move back.

        ValueError for another name, BackendError if cupy cannot be had.
        """
        return registered("move")(self, backend)

    def detach(self) -> Tensor:
        """The same array outside the graph; no gradient flows through it."""
        return Tensor.wrap(self._array, storage=self._storage)

    def astype(self, dtype: Any) -> Tensor:
        """This tensor in another dtype; differentiable between floating dtypes. TypeError for one that is not of real numbers."""
        return registered("cast")(self, dtype)

    @property
    def backend(self) -> str:
        """Where the array lives: "numpy" or "cupy"."""
        return "cupy" if is_cupy(self._array) else "numpy"

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of elements along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> Any:
        """NumPy's dtype of the elements, on either backend."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._array.size

    @property
    def is_leaf(self) -> bool:
        """Whether no differentiable function made this tensor; leaves that require gradients collect them in `.grad`."""
        return self._node is None

    @property
    def T(self) -> Tensor:
        """The matrix transpose of a 2-D tensor; for others all axes are reversed."""
        return registered("permute")(self, tuple(range(self.ndim))[::-1])

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor without axes")
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item()) if self.size == 1 else _ambiguous(self)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    __hash__ = object.__hash__  # by identity, although __eq__ compares elements

    def __repr__(self) -> str:
        values = np.array2string(to_backend(self._array, "numpy"), separator=", ", prefix="Tensor(", threshold=50)
        made = f", made by {type(self._node.function).__name__}" if self._node else ", requires_grad=True" if self.requires_grad else ""
        place = "" if self.backend == "numpy" else ", backend='cupy'"
        return f"Tensor({values}, shape={self.shape}, dtype={self.dtype}{place}{made})"

    # -- gradients ---------------------------------------------------------------------------------------------------

    def backward(self, grad: Tensor | Array | float | None = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add the gradient of <self, grad> to `.grad` of every leaf that requires one.

        `grad`: same shape as this tensor; may be left out for one element. The graph is freed on the way unless `retain_graph`;
        with `create_graph` the gradients can be differentiated again. RuntimeError if there is no graph, or it was freed already.
        """
        from .autograd import backward

        backward(self, grad, retain_graph, create_graph)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has collected, None if there is none.

        What is assigned must have this tensor's shape (else ValueError) and backend (TypeError). A broadcast or read-only array is copied.
        """
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"Tensor.grad must be a Tensor or None, got {type(value).__name__}; wrap arrays as minidcnn.Tensor(array)")
            if value.shape != self.shape:
                raise ValueError(f"Tensor.grad: the gradient has shape {value.shape}, the tensor has {self.shape}; they must be equal")
            if value.backend != self.backend:
                raise TypeError(f"Tensor.grad: the gradient lives on {value.backend}, the tensor on {self.backend}; move it with .to()")
            if not writable(value._array):
                value = value * 1  # memory of its own, for what is added to it in place
        self._grad = value

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are collected here, or flow through here to leaves that collect them.

        May be switched on a leaf. RuntimeError for a tensor that a function made, TypeError for one without a floating dtype.
        """
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._node is not None:
            raise RuntimeError("requires_grad: only leaves can be switched; use detach() to cut a computed tensor out of the graph")
        if value and not float_dtype(self.dtype):
            raise TypeError(f"requires_grad: only floating-point tensors can require gradients, got dtype {self.dtype}")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradient collection of this leaf on or off, as `.requires_grad = ...` does; returns this tensor."""
        self.requires_grad = requires_grad
        return self

    def changed(self) -> None:
        """Declare that the array was changed in place; a graph that still needs the old values will refuse to run backward."""
        self._storage.version += 1
        if watch.changed is not None:
            watch.changed.append(self)

    def __setitem__(self, index: Any, value: Operand) -> None:
        """Write into the array in place. RuntimeError for a tensor inside a graph; its history could not be kept."""
        if recorded(self, value):
            raise RuntimeError(
                "assigning into a tensor that takes part in gradients would falsify them; write inside no_grad(), or build the result "
                "with where(), cat() or pad()"
            )
        if not isinstance(value, Tensor):
            real_array("Tensor: what is assigned", value)
        try:
            self._array[raw(index)] = value._array if isinstance(value, Tensor) else value
        except OverflowError as error:
            raise ValueError(f"what is assigned, {value}, does not fit a tensor of {self.dtype}; cast the tensor with .astype()") from error
        self.changed()

    # -- operators: the functions themselves live in functional/, which registers them here ---------------------------------

    def __add__(self, other: Operand) -> Tensor:
        return registered("add")(self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return registered("add")(other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return registered("sub")(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return registered("sub")(other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return registered("mul")(self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return registered("mul")(other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return registered("div")(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return registered("div")(other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return registered("pow")(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return registered("pow")(other, self)

    def __iadd__(self, other: Operand) -> Tensor:
        return in_place("add", self, other)

    def __isub__(self, other: Operand) -> Tensor:
        return in_place("sub", self, other)

    def __imul__(self, other: Operand) -> Tensor:
        return in_place("mul", self, other)

    def __itruediv__(self, other: Operand) -> Tensor:
        return in_place("div", self, other)

    def __ipow__(self, other: Operand) -> Tensor:
        return in_place("pow", self, other)

    def __matmul__(self, other: Operand) -> Tensor:
        return registered("matmul")(self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return registered("matmul")(other, self)

    def __neg__(self) -> Tensor:
        return registered("neg")(self)

    def __abs__(self) -> Tensor:
        return registered("abs")(self)

    def __getitem__(self, index: Any) -> Tensor:
        return registered("getitem")(self, index)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare(self, other, "__eq__")

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare(self, other, "__ne__")

    def __lt__(self, other: Operand) -> Tensor:  # type: ignore[misc]  # ndarray has the mirrored operator
        return _compare(self, other, "__lt__")

    def __le__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return _compare(self, other, "__le__")

    def __gt__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return _compare(self, other, "__gt__")

    def __ge__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return _compare(self, other, "__ge__")

    # -- methods that are functions of the same name --------------------------------------------------------------------------

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Sum over `dim` (all axes if None). ValueError if one is out of range."""
        return registered("sum")(self, dim, keepdim)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Mean over `dim` (all axes if None). ValueError if one is out of range, or there is nothing to average."""
        return registered("mean")(self, dim, keepdim)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements, in row-major order, in another shape; one entry may be -1. ValueError if the counts differ."""
        return registered("reshape")(self, shape[0] if len(shape) == 1 else shape)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """The axes in the order `dims`. ValueError if they are not each named once."""
        return registered("permute")(self, dims[0] if len(dims) == 1 else dims)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Axes `dim0` and `dim1` exchanged. ValueError if one is out of range."""
        return registered("transpose")(self, dim0, dim1)

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return registered("exp")(self)

    def log(self) -> Tensor:
        """Natural logarithm of each element."""
        return registered("log")(self)

    def sqrt(self) -> Tensor:
        """Square root of each element."""
        return registered("sqrt")(self)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the (first) largest element along `dim`, of the flattened tensor if None; int64, without gradient. ValueError if there is none."""
        return registered("argmax")(self, dim, keepdim)


def real_array(name: str, data: Any, dtype: Any = None) -> Array:
    """`data` as a plain array, without a copy if it is one. TypeError unless it holds real numbers, ValueError if `dtype` cannot hold them."""
    problem = f"{name} must be real numbers or equally long nested lists of them, got {type(data).__name__}"
    try:
        array: Array = data if is_cupy(data) else np.asarray(data, dtype)
    except OverflowError as error:
        raise ValueError(f"{name}: a number does not fit {np.dtype(dtype)}; choose a larger dtype") from error
    except (TypeError, ValueError) as error:
        raise TypeError(problem) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{problem} of dtype {array.dtype}")
    return array


def _holds_float64(data: Any) -> bool:
    """Whether an array or a number of NumPy's in `data`, nested lists, is float64; Python's floats are no wish for it."""
    if isinstance(data, list | tuple):
        return any(type(d) is not float and _holds_float64(d) for d in data)
    return bool(getattr(data, "dtype", None) == np.float64)


def real_dtype(name: str, dtype: Any) -> Any:
    """`dtype` as NumPy's. TypeError unless it is one of real numbers."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if dtype is None or kind.kind not in "biuf":
        raise TypeError(f'{name}: dtype must be one of real numbers, such as "float32", got {dtype!r}')
    return kind


def _compare(a: Tensor, b: object, name: str) -> Tensor:
    result = getattr(a._array, name)(b._array if isinstance(b, Tensor) else b)
    return Tensor.wrap(result if hasattr(result, "dtype") else np.asarray(result))


def raw(index: Any) -> Any:
    """An index as users write it, with tensors in it replaced by their arrays."""
    if isinstance(index, tuple):
        return tuple(raw(i) for i in index)
    return index._array if isinstance(index, Tensor) else index


def _ambiguous(tensor: Tensor) -> bool:
    raise ValueError(f"the truth of a tensor of shape {tensor.shape} is ambiguous; compare its .item(), or use .numpy().any() or .all()")


def not_a_tensor(name: str, *inputs: Any) -> TypeError:
    """The error of a function `name` one of whose inputs is no Tensor."""
    i, kind = next(((i, type(x).__name__) for i, x in enumerate(inputs) if not isinstance(x, Tensor)), (0, "?"))
    which = f"input {i}" if len(inputs) > 1 else "input"
    return TypeError(f"{name}: {which} must be a Tensor, got {kind}; wrap arrays as minidcnn.Tensor(array)")
