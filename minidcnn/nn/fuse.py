"""Modules that run one after the other, some of them together in one pass over memory: what they compute is the same.

While training, batch norm and the ReLU behind it; in inference, a convolution with both or one of them. A module with hooks, with
another `forward`, or of a class of its own, runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import kernels, sum_dtype
from ..recording import is_grad_enabled
from ..tensor import Tensor
from .activation import ReLU
from .conv import Conv2d
from .module import Module
from .norm import BatchNorm2d

FORWARDS: dict[type[Module], Any] = {kind: kind.forward for kind in (Conv2d, BatchNorm2d, ReLU)}  # which may be replaced later


def run(modules: Sequence[Module], x: Any) -> Any:
    """The modules in turn, from first to last."""
    at = 0
    while at < len(modules):
        done, kind = None, type(modules[at])
        if kind is BatchNorm2d:
            done = _norm(modules, at, x)
        elif kind is Conv2d and not is_grad_enabled():
            done = _convolution(modules, at, x)
        count, x = done or (1, modules[at](x))
        at += count
    return x


def _convolution(modules: Sequence[Module], at: int, x: Any) -> tuple[int, Any] | None:
    """A convolution in inference with what follows: how many modules ran, and the result. None if that is not what stands there."""
    conv: Any = modules[at]
    if not _follow(modules, at, Conv2d):
        return None
    norm: Any = modules[at + 1] if _follow(modules, at + 1, BatchNorm2d) else None
    if norm is not None and isinstance(x, Tensor) and x.ndim != 4:
        return None  # which batch norm says itself
    used = 1 if norm is None else 2
    relu = _follow(modules, at + used, ReLU)
    found: tuple[Tensor, Tensor] | None = None
    if norm is None:
        if not relu or conv.bias is None:
            return None
        offset = conv.bias.astype(sum_dtype(conv.bias.dtype))
        found = Tensor.wrap(kernels(offset.backend).xp.ones(conv.out_channels, offset.dtype)), offset
    elif norm.num_features == conv.out_channels:
        found = norm.scale_offset(conv.bias)
    if found is None or found[0].dtype != sum_dtype(conv.weight.dtype):
        return None
    return used + relu, conv.affine(x, *found, relu)


def _norm(modules: Sequence[Module], at: int, x: Any) -> tuple[int, Any] | None:
    """Batch norm and the ReLU behind it: how many modules ran, and the result. None if that is not what stands there."""
    if not (_follow(modules, at, BatchNorm2d) and _follow(modules, at + 1, ReLU)):
        return None
    return 2, modules[at](x, relu=True)


def _follow(modules: Sequence[Module], at: int, kind: type[Module]) -> bool:
    """Whether a module of exactly this class, which only does what the class does, stands at `at`."""
    if at >= len(modules):
        return False
    module = modules[at]
    if type(module) is not kind or module._hooks or module._pre_hooks:
        return False
    return getattr(module.forward, "__func__", None) is FORWARDS[kind]
