"""minidcnn: a from-scratch deep-learning engine for image semantic segmentation.

>>> import minidcnn
>>> x = minidcnn.Tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad.numpy()
array([2., 4.], dtype=float32)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .autograd import Function, enable_grad, grad, no_grad
from .backend import BackendError, backend, manual_seed, use, use_kernels
from .gradcheck import check_adjoint, check_grads
from .tensor import Tensor

if TYPE_CHECKING:
    from . import data, functional, interop, models, nn, optim, segmentation, study
    from . import testing as testing

__version__ = "0.1.0"

_ROOMS = ("data", "functional", "interop", "models", "nn", "optim", "segmentation", "study", "testing")

__all__ = [
    "BackendError",
    "Function",
    "Tensor",
    "backend",
    "check_adjoint",
    "check_grads",
    "data",
    "enable_grad",
    "functional",
    "grad",
    "interop",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "optim",
    "segmentation",
    "study",
    "use",
    "use_kernels",
]  # without testing: `from minidcnn import *` asks for no package that minidcnn does without


def __getattr__(name: str) -> Any:
    """Rooms are imported when first asked for, so that `import minidcnn` stays quick."""
    if name in _ROOMS:
        return importlib.import_module(f"minidcnn.{name}")
    raise AttributeError(f"module 'minidcnn' has no attribute {name!r}")
