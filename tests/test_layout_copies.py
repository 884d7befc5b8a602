"""Nothing is copied for layout between layers: counted at the two seams through which every such copy goes, in whole steps of networks.

Kernels get images and weights in the memory that they work on (the channels of a pixel side by side), and `layout.plain`, which copies
what does not lie so, finds nothing to copy, but for what is listed here with its reason.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, autograd, models, nn, no_grad, optim, use_kernels
from minidcnn import functional as F
from minidcnn.autograd import _add
from minidcnn.backend import Kernels, is_channels_last, nchw
from minidcnn.backend.cpu import CpuKernels, algorithm, layout
from minidcnn.data import Loader, open_dataset

SHAPE = (2, 3, 64, 96)
PIXELS = (2, 64, 96)
CLASSES = 5

NETWORKS: dict[str, Callable[[], models.Segmenter]] = {
    "unet": lambda: models.UNet(3, CLASSES, base=16, padding="same", norm="batch"),
    "unet, as published": lambda: models.UNet(3, CLASSES, base=16),
    "unet, bilinear": lambda: models.UNet(3, CLASSES, base=16, padding="same", norm="batch", upsample="bilinear"),
    "segnet": lambda: models.SegNet(3, CLASSES, width=16),
    "segnet-basic": lambda: models.SegNetBasic(3, CLASSES, width=16),
    "fcn8s": lambda: models.FCN8s(CLASSES, 3, width=16),
}


class Seams:
    """What came to a kernel in another memory than channels last, by kernel; and what was copied, by the kernel's name and shape."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.copied: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self.kernel = ""
        self.calls = 0


@contextmanager
def watched() -> Iterator[Seams]:
    """Within the `with` block, both seams are watched."""
    seams, plain = Seams(), layout.plain

    def counting(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result = plain(x)
        if result is not x:
            seams.copied[seams.kernel, x.shape] += 1
        return result

    def watch(name: str) -> Callable[..., Any]:
        kernel = getattr(CpuKernels, name)

        def method(self: Kernels, *arguments: Any, **keywords: Any) -> Any:
            outer, seams.kernel = seams.kernel, seams.kernel or name
            seams.calls += 1
            arrays = [a for a in (*arguments, *keywords.values()) if isinstance(a, np.ndarray)]
            if not outer and any(a.ndim == 4 and not is_channels_last(a) for a in arrays):
                seams.asked[name] += 1
            try:
                return kernel(self, *arguments, **keywords)
            finally:
                seams.kernel = outer

        return method

    names = [n for n in dir(Kernels) if not n.startswith("_") and callable(getattr(Kernels, n))]
    watching = type("Watching", (CpuKernels,), {n: watch(n) for n in names})
    with pytest.MonkeyPatch.context() as patch, use_kernels(watching()):
        for name, module in list(sys.modules.items()):
            if name.startswith("minidcnn.") and getattr(module, "plain", None) is plain:
                patch.setattr(module, "plain", counting)
        yield seams


def batch(network: models.Segmenter) -> tuple[Tensor, Tensor]:
    n, c, *size = SHAPE
    height, width = network.suitable_size((20, 36)) if network.margin else size
    rng = np.random.default_rng(0)
    images = nchw(rng.random((n, height, width, c), dtype=np.float32))
    return Tensor(images), Tensor(rng.integers(0, CLASSES, (n, *network.output_size((height, width)))))


# A loss's slope is one number for all pixels, which its kernel wants written out: 4 bytes a pixel. FCN's scores are cropped to the image,
# and the loss copies what is left, once in each direction. No layer needs a copy.
SLOPE = {("cross_entropy_grad", PIXELS): 1}
COPIED: dict[str, dict[tuple[str, tuple[int, ...]], int]] = dict.fromkeys(NETWORKS, SLOPE)
COPIED["unet, as published"] = {("cross_entropy_grad", (2, 20, 36)): 1}
COPIED["fcn8s"] = SLOPE | {("cross_entropy", (*PIXELS, CLASSES)): 1, ("cross_entropy_grad", (*PIXELS, CLASSES)): 1}

# Elementwise functions run over views without a copy: sums of FCN's cropped scores, numbers broadcast to the image by SegNet-Basic's
# local response normalisation.
FORWARD: dict[str, dict[str, int]] = {"fcn8s": {"map": 2}, "segnet-basic": {"map": 1}}
BACKWARD: dict[str, dict[str, int]] = {"fcn8s": {"cross_entropy": 1, "cross_entropy_grad": 1}}


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(algorithm.VARIABLE, raising=False)  # forced on a few channels, Winograd pads


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_and_inference_copy_nothing_between_layers(name: str) -> None:
    network = NETWORKS[name]()
    images, labels = batch(network)
    layers = sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in network.modules())
    optimizer = optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()  # compiled, imported, momentum allocated
    with watched() as seams:
        step()
    assert dict(seams.copied) == COPIED[name]
    assert dict(seams.asked) == FORWARD.get(name, {}) | BACKWARD.get(name, {})
    assert seams.calls >= 2 * layers
    network.eval()
    with watched() as seams, no_grad():
        network(images)
    assert not seams.copied
    assert dict(seams.asked) == FORWARD.get(name, {})
    assert seams.calls >= layers  # they were watched


def test_recomputation_copies_nothing_more() -> None:
    network = NETWORKS["unet"]()
    network.recompute = True
    images, labels = batch(network)
    F.cross_entropy(network(images), labels).backward()
    with watched() as seams:
        F.cross_entropy(network(images), labels).backward()
    assert dict(seams.copied) == SLOPE and not seams.asked


def test_both_seams_see_a_copy() -> None:
    """Images in another memory are copied where they are read: in the first convolution, and for its weight's gradient."""
    network = NETWORKS["unet"]()
    images, labels = batch(network)
    with watched() as seams:
        F.cross_entropy(network(Tensor(np.ascontiguousarray(images.numpy()))), labels).backward()
    assert seams.asked == {"conv2d": 1, "conv2d_weight": 1}
    assert {kernel: count for (kernel, shape), count in seams.copied.items() if shape == (*PIXELS, 3)} == {"conv2d": 1, "conv2d_weight": 1}


def test_images_come_from_the_loader_as_the_first_layer_reads_them() -> None:
    data = open_dataset("cells")
    batch = next(iter(Loader(data, 2, seed=0).batches(0)))
    assert is_channels_last(batch.images) and is_channels_last(Tensor(batch.images)._array)


def test_gradients_are_added_up_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second backward pass adds to the arrays of the first; and what a skip connection sends back is added to, not added anew."""
    network = NETWORKS["unet"]()
    images, labels = batch(network)
    F.cross_entropy(network(images), labels).backward()
    arrays = {name: p.grad._array for name, p in network.named_parameters() if p.grad is not None}
    assert len(arrays) == sum(1 for _ in network.parameters())
    added: list[bool] = []
    monkeypatch.setattr(autograd, "_add", lambda a, b, create: (added.append(a._owned), _add(a, b, create))[1])
    F.cross_entropy(network(images), labels).backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and p.grad._array is arrays[name]
    assert added == [True] * 4  # the four skip connections are the only places where gradients meet
