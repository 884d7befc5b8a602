"""One promise, kept by every function on images: padding may be written in any form that PyTorch takes, and the batch axis left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from peer import agree

from minidcnn import Tensor, grad
from minidcnn import functional as F
from minidcnn.testing import tie_free

Array = np.ndarray[Any, Any]
W, WG, WT = tie_free((6, 4, 3, 2), 1), tie_free((6, 2, 2, 3), 2), tie_free((4, 3, 3, 2), 3)
PADDINGS = [0, 1, (1,), (1, 0), [0, 1]]

# function of (F, image, weight, padding), weight, the forms of padding beyond ints and pairs
PADDED: dict[str, tuple[Callable[..., Any], Array, list[str]]] = {
    "conv2d": (lambda F, x, w, p: F.conv2d(x, w, padding=p), W, ["same", "valid"]),
    "conv2d, dilated": (lambda F, x, w, p: F.conv2d(x, w, padding=p, dilation=(2, 3)), W, ["same", "valid"]),
    "conv2d in groups": (lambda F, x, w, p: F.conv2d(x, w, padding=p, groups=2), WG, ["same", "valid"]),
    "conv2d, strided": (lambda F, x, w, p: F.conv2d(x, w, stride=(2, 1), padding=p), W, ["valid"]),
    "conv_transpose2d": (lambda F, x, w, p: F.conv_transpose2d(x, w, stride=(2, 1), padding=p), WT, []),
    "max_pool2d": (lambda F, x, w, p: F.max_pool2d(x, (3, 2), padding=p) * w.sum(), W, []),
    "avg_pool2d": (lambda F, x, w, p: F.avg_pool2d(x, 3, (2, 1), p, True) * w.sum(), W, []),
    "max_unpool2d": (lambda F, x, w, p: F.max_unpool2d(*F.max_pool2d(x, 3, 3, p, return_indices=True), 3, 3, p, (9, 8)) * w.sum(), W, []),
    "unfold": (lambda F, x, w, p: F.unfold(x, (3, 2), padding=p) * w.sum(), W, []),
    "fold": (lambda F, x, w, p: F.fold(F.unfold(x * x, (3, 2), padding=p), (9, 8), (3, 2), padding=p) * w.sum(), W, []),
}


def forms(name: str) -> list[Any]:
    """What PyTorch takes; unfold, fold and max_unpool2d want both numbers there."""
    return [p for p in PADDINGS + PADDED[name][2] if not (name.endswith(("fold", "unpool2d")) and p == (1,))]


@pytest.mark.parametrize("batch", [True, False], ids=["batch", "image"])
@pytest.mark.parametrize("name, padding", [(name, p) for name in PADDED for p in forms(name)], ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_padding_in_every_form_agrees_with_pytorch(name: str, padding: Any, batch: bool) -> None:
    f, weight, _ = PADDED[name]
    agree(lambda F, x, w: f(F, x, w, padding), tie_free((2, 4, 9, 8) if batch else (4, 9, 8)), weight, order=1)


@pytest.mark.parametrize("name", PADDED)
def test_padding_by_name_elsewhere_is_refused_by_name(name: str) -> None:
    f, weight, names = PADDED[name]
    for padding in ("same", "valid", "full"):
        if padding not in names:
            with pytest.raises((TypeError, ValueError), match=re.escape(f"got '{padding}'") + "|is unknown|needs stride 1"):
                f(F, Tensor(tie_free((4, 9, 8))), Tensor(weight), padding)


# what PyTorch takes as (C, H, W) as well as (N, C, H, W)
IMAGES: dict[str, Callable[[Tensor], Any]] = {
    "conv2d": lambda x: F.conv2d(x, Tensor(W), Tensor(tie_free((6,))), 2, 1),
    "conv2d same": lambda x: F.conv2d(x, Tensor(W), padding="same"),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, Tensor(WT), None, 2, 1, 1),
    "conv_transpose2d to a size": lambda x: F.conv_transpose2d(x, Tensor(WT), stride=(2, 3), output_size=(20, 24)),
    "max_pool2d": lambda x: F.max_pool2d(x, (3, 2), padding=(1, 0), ceil_mode=True),
    "max_unpool2d": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(9, 8)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (2, 3), count_include_pad=False, padding=(1, 0)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (None, 3)),
    "unfold": lambda x: F.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)),
    "fold": lambda x: F.fold(F.unfold(x, 3), (9, 8), 3),
    "pad": lambda x: F.pad(x, (1, 2, 0, -1), value=2.0),
    "pad reflect": lambda x: F.pad(x, (1, 2, 0, 3), "reflect"),
    "pad replicate": lambda x: F.pad(x, (1, 2, 0, 3), "replicate"),
    "pad circular": lambda x: F.pad(x, (1, 2, 0, 3), "circular"),
    "center_crop": lambda x: F.center_crop(x, (4, 3)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[..., :8, :], 2),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_a_batch_of_one(name: str) -> None:
    f, x = IMAGES[name], tie_free((4, 9, 8))
    alone, batch = Tensor(x, requires_grad=True), Tensor(x[None], requires_grad=True)
    y, z = f(alone), f(batch)
    assert z.shape == (1, *y.shape)
    np.testing.assert_array_equal(y.numpy(), z.numpy()[0])
    g = tie_free(y.shape, 1)
    np.testing.assert_array_equal(grad(y, alone, g)[0].numpy(), grad(z, batch, g[None])[0].numpy()[0])


X, LABELS = tie_free((1, 4, 8, 8)), np.zeros((1, 8, 8), int)
ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {  # a NumPy array where a tensor belongs, and which input that is
    "relu": (lambda: F.relu(X), "input"),
    "softmax": (lambda: F.softmax(X, 1), "input"),
    "exp": (lambda: F.exp(X), "input"),
    "sum": (lambda: F.sum(X), "input"),
    "dropout": (lambda: F.dropout(X, 0.5, True), "input"),
    "conv2d": (lambda: F.conv2d(Tensor(X), W), "input 1"),
    "conv_transpose2d": (lambda: F.conv_transpose2d(X, Tensor(WT)), "input"),
    "max_pool2d": (lambda: F.max_pool2d(X, 2), "input"),
    "avg_pool2d": (lambda: F.avg_pool2d(X, 2), "input"),
    "max_unpool2d": (lambda: F.max_unpool2d(Tensor(X), X.astype(int), 2), "input 1"),
    "batch_norm": (lambda: F.batch_norm(X, None, None, training=True), "input"),
    "cat": (lambda: F.cat([Tensor(X), X], 1), "input 1"),
    "cross_entropy": (lambda: F.cross_entropy(Tensor(X), LABELS), "input 1"),
    "mse_loss": (lambda: F.mse_loss(Tensor(X), X), "input 1"),
    "binary_cross_entropy_with_logits": (lambda: F.binary_cross_entropy_with_logits(Tensor(X), X), "input 1"),
    "linear": (lambda: F.linear(Tensor(X), X[0, 0]), "input 1"),
    "reshape": (lambda: F.reshape(X, (4, 64)), "input"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_where_a_tensor_belongs_is_told_in_one_sentence(name: str) -> None:
    call, which = ARRAYS[name]
    with pytest.raises(TypeError, match=rf"^{name}: {which} must be a Tensor, got ndarray; wrap arrays as minidcnn.Tensor\(array\)$"):
        call()
