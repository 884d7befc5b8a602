"""Convolution layers: weights beside the functions of functional/conv.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..tensor import Tensor
from ..window import Pair, Window, integer, pair, same_padding
from . import init
from .module import Module
from .parameter import Parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What Conv2d and ConvTranspose2d share: checks, weights as (first, second / groups, KH, KW), bias, repr."""

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int] | str,
        dilation: int | Sequence[int],
        output_padding: int | Sequence[int],
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        in_channels, out_channels = integer(in_channels, f"{name}: in_channels", 1), integer(out_channels, f"{name}: out_channels", 1)
        groups = integer(groups, f"{name}: groups", 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups must divide both channel counts, got groups={groups} for {in_channels} -> {out_channels} channels"
            )
        if padding_mode not in PADDING_MODES:
            raise ValueError(f'{name}: padding_mode "{padding_mode}" is unknown; use one of {", ".join(PADDING_MODES)}')
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(kernel_size, f"{name}: kernel_size", 1)
        self.stride = pair(stride, f"{name}: stride", 1)
        self.dilation = pair(dilation, f"{name}: dilation", 1)
        self.padding: Pair | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f'{name}: padding "{padding}" is unknown; use an int, a pair, "same" or "valid"')
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f'{name}: padding="same" needs stride 1, got {self.stride}; give the padding as numbers')
            self.padding = padding
        else:
            self.padding = pair(padding, f"{name}: padding")
        self.output_padding = pair(output_padding, f"{name}: output_padding")
        self.padding_mode = padding_mode
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = Parameter.empty((first, second // groups, *self.kernel_size))
        self.register_parameter("bias", Parameter.empty((out_channels,)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's default: weight and bias uniform within +- 1 / sqrt(fan_in), fan_in counted by weight.shape[1:]."""
        reset(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.output_padding != (0, 0):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


def reset(weight: Parameter, bias: Parameter | None) -> None:
    """Weight and bias uniform within +- 1 / sqrt(fan_in): kaiming_uniform_ with a = sqrt 5, as PyTorch's layers begin."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(init.calculate_fans(weight)[0])
        init.uniform_(bias, -bound, bound)


class Conv2d(_Conv):
    """(N, C, H, W) -> (N, O, H', W'), H' = floor((H + 2 padding - dilation (KH - 1) - 1) / stride) + 1; weight (O, C/groups, KH, KW).

    padding may be an int, a pair, "valid" or "same"; padding_mode says what is padded: "zeros", "reflect", "replicate" or "circular".
    Images without a batch axis work too. ValueError for parameters or inputs that do not fit, TypeError for sizes that are no integers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, False)

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def affine(self, input: Tensor, scale: Tensor, offset: Tensor, relu: bool) -> Tensor:
        """scale (this convolution without its bias) + offset, by channel, then ReLU if `relu`: for inference (see F.conv2d_affine).

        Errors as there.
        """
        input, padding = self._padded(input)
        return F.conv2d_affine(input, self.weight, scale, offset, self.stride, padding, self.dilation, self.groups, relu)

    def _padded(self, input: Tensor) -> tuple[Tensor, Pair | str]:
        """The input, padded unless the convolution does it with zeros, and the padding left to do."""
        if self.padding_mode == "zeros" or self.padding == "valid":
            return input, self.padding
        (top, bottom), (left, right) = self._sides()
        return F.pad(input, (left, right, top, bottom), mode=self.padding_mode), (0, 0)

    def _sides(self) -> tuple[Pair, Pair]:
        """Padding (before, after) per axis, in numbers."""
        if self.padding == "same":
            return same_padding(Window(self.kernel_size, dilation=self.dilation))
        height, width = pair(self.padding, "Conv2d: padding")  # type: ignore[arg-type]
        return (height, height), (width, width)


class ConvTranspose2d(_Conv):
    """(N, C, H, W) -> (N, O, H', W'), H' = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding; weight (C, O/groups, KH, KW).

    The adjoint of Conv2d with the same weight. `forward(input, output_size)` chooses the output size among those possible.
    ValueError for parameters, inputs or an output_size that do not fit, TypeError for sizes that are no integers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'ConvTranspose2d: padding_mode must be "zeros", got "{padding_mode}"; its padding crops the output')
        if isinstance(padding, str):
            raise ValueError(
                f'ConvTranspose2d: padding must be an int or a pair, got "{padding}"; choose the size with output_size instead'
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias, padding_mode, True
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        where: dict[str, Any] = {"output_padding": self.output_padding} if output_size is None else {"output_size": output_size}
        padding: Any = self.padding
        return F.conv_transpose2d(input, self.weight, self.bias, self.stride, padding, groups=self.groups, dilation=self.dilation, **where)
