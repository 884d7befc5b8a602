"""Sizes, axes and counts as users write them: tuples, lists, ranges, arrays and NumPy's numbers all work; anything else gets a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, nn
from minidcnn import functional as F

X = Tensor(np.random.default_rng(0).random((2, 4, 9, 8), dtype=np.float32))
W = Tensor(np.random.default_rng(1).random((4, 4, 3, 3), dtype=np.float32))
V = Tensor(np.arange(6, dtype=np.float32).reshape(1, 6))
POOLED, WHERE = F.max_pool2d(X, 2, return_indices=True)

Call = Callable[[Any], Any]

PAIRS: dict[str, tuple[tuple[int, ...], Call]] = {
    "conv2d: stride": ((2, 1), lambda v: F.conv2d(X, W, stride=v)),
    "conv2d: padding": ((2, 1), lambda v: F.conv2d(X, W, padding=v)),
    "conv2d: dilation": ((2, 1), lambda v: F.conv2d(X, W, dilation=v)),
    "conv_transpose2d: stride": ((2, 1), lambda v: F.conv_transpose2d(X, W, stride=v)),
    "conv_transpose2d: output_size": ((20, 18), lambda v: F.conv_transpose2d(X, W, stride=2, output_size=v)),
    "conv2d_weight: weight_size": ((4, 4, 3, 3), lambda v: F.conv2d_weight(X, v, F.conv2d(X, W))),
    "unfold: kernel_size": ((2, 1), lambda v: F.unfold(X, v)),
    "unfold: stride": ((2, 1), lambda v: F.unfold(X, 2, stride=v)),
    "max_pool2d: kernel_size": ((2, 1), lambda v: F.max_pool2d(X, v)),
    "max_unpool2d: output_size": ((9, 8), lambda v: F.max_unpool2d(POOLED, WHERE, 2, output_size=v)),
    "adaptive_avg_pool2d: output_size": ((2, 1), lambda v: F.adaptive_avg_pool2d(X, v)),
    "interpolate: size": ((2, 1), lambda v: F.interpolate(X, v)),
    "center_crop: size": ((2, 1), lambda v: F.center_crop(X, v)),
    "pad: pad": ((2, 1), lambda v: F.pad(X, v)),
    "sum: dim": ((2, 1), lambda v: F.sum(X, v)),
    "flip: dim": ((2, 1), lambda v: F.flip(X, v)),
    "permute: dim": ((2, 1, 0, 3), lambda v: F.permute(X, v)),
    "reshape: shape": ((2, 3), lambda v: F.reshape(V, v)),
    "broadcast_to: shape": ((2, 6), lambda v: F.broadcast_to(V, v)),
    "split: sizes": ((2, 4), lambda v: F.split(V, v, 1)[1]),
    "Conv2d: kernel_size": ((3, 2), lambda v: filled(nn.Conv2d(4, 2, v))(X)),
    "MaxUnpool2d: kernel_size": ((2, 2), lambda v: nn.MaxUnpool2d(v)(POOLED, WHERE, X.shape)),
    "ReflectionPad2d: padding": ((2, 1, 0, 1), lambda v: nn.ReflectionPad2d(v)(X)),
}

COUNTS: dict[str, Call] = {
    "conv2d: groups": lambda v: F.conv2d(X, W[:, :2], groups=v),
    "conv_transpose2d: groups": lambda v: F.conv_transpose2d(X, W, groups=v),
    "conv2d_weight: groups": lambda v: F.conv2d_weight(X, (4, 2, 3, 3), F.conv2d(X, W), groups=v),
    "avg_pool2d: divisor_override": lambda v: F.avg_pool2d(X, 3, divisor_override=v),
    "local_response_norm: size": lambda v: F.local_response_norm(X, v),
    "pixel_shuffle: the factor": lambda v: F.pixel_shuffle(X, v),
    "split: split_size": lambda v: F.split(V, v, 1)[1],
    "argmax: dim": lambda v: X.argmax(v),
    "softmax: dim": lambda v: F.softmax(X, v),
    "unsqueeze: dim": lambda v: F.unsqueeze(X, v),
    "Conv2d: in_channels": lambda v: filled(nn.Conv2d(v, 3, 1))(X[:, :2]),
    "Conv2d: out_channels": lambda v: filled(nn.Conv2d(4, v, 1))(X),
    "Conv2d: groups": lambda v: filled(nn.Conv2d(4, 2, 1, groups=v))(X),
    "Linear: in_features": lambda v: filled(nn.Linear(v, 3))(X[..., :2]),
    "Linear: out_features": lambda v: filled(nn.Linear(8, v))(X),
    "BatchNorm2d: num_features": lambda v: nn.BatchNorm2d(v)(X[:, :2]),
    "LocalResponseNorm: size": lambda v: nn.LocalResponseNorm(v)(X),
}


def filled(layer: nn.Module) -> nn.Module:
    """The same weights each time."""
    for p in layer.parameters():
        nn.init.constant_(p, 0.5)
    return layer


@pytest.mark.parametrize("argument", PAIRS)
def test_several_numbers_may_come_in_any_sequence_or_array(argument: str) -> None:
    numbers, call = PAIRS[argument]
    wanted = call(numbers).numpy()
    for same in (list(numbers), tuple(np.array(numbers)), np.array(numbers), np.array(numbers, np.uint8)):
        np.testing.assert_array_equal(call(same).numpy(), wanted)
    for wrong in ([*numbers[:-1], 1.0], np.array(numbers, float), [[n] for n in numbers], (True,) * len(numbers)):
        with pytest.raises(TypeError, match=f"^{argument} must be an int"):
            call(wrong)
    for wrong in ((n for n in numbers), 2.0, object()):
        with pytest.raises(TypeError, match=f"^{argument.split(':')[0]}: .* must be an int"):
            call(wrong)


@pytest.mark.parametrize("argument", COUNTS)
def test_one_number_may_be_numpys(argument: str) -> None:
    call = COUNTS[argument]
    wanted = call(2).numpy()
    for same in (np.int64(2), np.uint8(2), np.array(2)):
        np.testing.assert_array_equal(call(same).numpy(), wanted)
    for wrong in (2.0, np.float32(2), True, "2", object(), (n for n in (2, 2)), np.array([[2]]), Tensor(2)):
        with pytest.raises(TypeError, match=f"^{argument} must be an int, got"):
            call(wrong)


def test_a_size_that_is_one_number_counts_as_a_pair_or_as_one_axis() -> None:
    assert F.conv_transpose2d(X[..., :8, :], W, stride=2, output_size=18).shape == (2, 4, 18, 18)
    assert (V.reshape(6).shape, F.reshape(V, -1).shape, V.reshape(np.array([3, 2])).shape) == ((6,), (6,), (3, 2))
    assert nn.ZeroPad2d(np.int64(1))(X).shape == nn.ZeroPad2d([1])(X).shape == (2, 4, 11, 10)
    assert nn.Upsample(scale_factor=np.array([2, 0.5]))(X).shape == F.interpolate(X, scale_factor=np.array([2, 0.5])).shape == (2, 4, 18, 4)
    with pytest.raises(TypeError, match="^interpolate: scale_factor must be a number or a pair of numbers, got {2, 3}"):
        F.interpolate(X, scale_factor={2, 3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^permute: 1 dims \(1,\) for a tensor of 2 axes"):
        V.permute(1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d(X, W, stride=None),  # type: ignore[arg-type]
        lambda: F.conv_transpose2d(X, W, stride=None),  # type: ignore[arg-type]
        lambda: F.conv2d_weight(X, W.shape, F.conv2d(X, W, stride=3), stride=None),  # type: ignore[arg-type]
        lambda: F.unfold(X, 2, stride=None),  # type: ignore[arg-type]
        lambda: F.fold(F.unfold(X, 2, stride=2), (9, 8), 2, stride=None),  # type: ignore[arg-type]
    ],
)
def test_no_stride_is_the_kernels_size_in_pooling_only(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="stride must be an int or a pair of ints, got None"):
        call()


NO_DIMS = {"dim": 0, "dims": (0,), "dim0": 0, "dim1": 0, "shape": (2,), "split_size": 1}


@pytest.mark.parametrize("value", [None, [1.0, 2.0], 3.0, np.ones((2, 3))], ids=["None", "list", "number", "array"])
@pytest.mark.parametrize("name", [
    "sum", "mean", "var", "amax", "amin", "logsumexp", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "flip",
    "broadcast_to", "split", "stack", "exp", "log", "log1p", "sqrt", "abs", "sign", "clamp", "square", "relu", "softmax", "dropout",
])  # fmt: skip
def test_what_is_no_tensor_is_told_so(name: str, value: Any) -> None:
    f = getattr(F, name)
    needed = [p.name for p in list(inspect.signature(f).parameters.values())[1:] if p.default is p.empty]
    arguments = {n: NO_DIMS[n] for n in needed} | ({"min": 0.0} if name == "clamp" else {})
    with pytest.raises(
        TypeError, match=rf"^{name}: input( 0)? must be a Tensor, got {type(value).__name__}; wrap arrays as minidcnn\.Tensor"
    ):
        f([value, value] if name == "stack" else value, **arguments)
