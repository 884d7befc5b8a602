"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..backend import kernels, sum_dtype
from ..tensor import Tensor, not_a_tensor
from ..window import fraction, integer
from . import init
from .module import Module
from .parameter import Parameter


class BatchNorm2d(Module):
    """(N, C, H, W) -> the same shape: each channel to mean 0 and variance 1 over the batch, then times weight plus bias.

    Ioffe & Szegedy, "Batch normalization", 2015. While training, running_mean and running_var (unbiased) follow the batches' statistics,
    new = (1 - momentum) old + momentum batch, or with momentum=None their plain average; eval() normalises by them. With
    track_running_stats=False the batch's own statistics are always used.
    ValueError for settings out of range and for inputs of another shape, else as functional.batch_norm; TypeError for a num_features that is
    no integer.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    optional_state = ("num_batches_tracked",)

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__()
        num_features = integer(num_features, "BatchNorm2d: num_features", 1)
        if momentum is not None:
            fraction(momentum, "BatchNorm2d: momentum", " or be None (plain average)")
        if eps < 0:
            raise ValueError(f"BatchNorm2d: eps must not be negative, got {eps}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name in ("weight", "bias"):
            self.register_parameter(name, Parameter.empty((num_features,)) if affine else None)
        xp = kernels().xp
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, Tensor.wrap(xp.empty(num_features, np.float32)) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", Tensor.wrap(xp.zeros((), np.int64)) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches seen."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """weight 1, bias 0, statistics as at the beginning."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, input: Tensor, relu: bool = False) -> Tensor:
        """input: (N, num_features, H, W) -> the same shape; `relu`: with ReLU behind it, in the same passes over memory."""
        if not isinstance(input, Tensor):
            raise not_a_tensor("BatchNorm2d", input)
        if input.ndim != 4 or input.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm2d: input must be (N, {self.num_features}, H, W), got shape {input.shape}")
        mean, variance, training = self.running_mean, self.running_var, self.training
        if training and not self.track_running_stats:
            mean = variance = None
        rate: Any = 0.0 if self.momentum is None else self.momentum
        if training and input.size and mean is not None and (count := self.num_batches_tracked) is not None:
            count._array += 1
            count.changed()
            if self.momentum is None:
                rate = 1 / count._array  # stays on its device: nobody waits for it
        batch = training or mean is None
        return F.batch_norm(input, mean, variance, self.weight, self.bias, batch, rate, self.eps, relu)

    def scale_offset(self, before: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """(scale, offset) (num_features,) with self(x + before) = scale x + offset in eval(), in float32 for float16; None where the batch
        decides them."""
        if self.training or self.running_mean is None or self.running_var is None:
            return None
        xp = kernels(self.running_mean.backend).xp
        scale = 1 / xp.sqrt(self.running_var._array.astype("float64") + self.eps)
        scale = scale if self.weight is None else scale * self.weight._array
        offset = (0 if before is None else before._array) - self.running_mean._array.astype("float64")
        offset = offset * scale + (0 if self.bias is None else self.bias._array)
        kind = sum_dtype(self.running_mean.dtype)
        return Tensor.wrap(scale.astype(kind)), Tensor.wrap(offset.astype(kind))

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class LocalResponseNorm(Module):
    """(N, C, H, W) -> the same shape: x / (k + alpha mean(x^2 over `size` neighbouring channels))^beta.

    Krizhevsky et al., "ImageNet classification", 2012, section 3.3, with PyTorch's and Caffe's convention that alpha is divided by size.
    ValueError for a size below 1 and for inputs without channels, TypeError for a size that is no integer.
    """

    def __init__(self, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        size = integer(size, "LocalResponseNorm: size", 1)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
