"""U-Net, SegNet and FCN against the same networks written in PyTorch, with the same weights: scores, gradients, ten steps of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor, models, optim
from minidcnn import functional as F

torch = pytest.importorskip("torch")
tn = torch.nn
tf = torch.nn.functional

Array = np.ndarray[Any, Any]


class TorchUNet(tn.Module):  # type: ignore[misc, name-defined]
    """Written from the paper's figure 1 and, for the padded variant, from the common description; names as ours."""

    def __init__(self, i: int, classes: int, base: int, padding: str, norm: str | None, bilinear: bool) -> None:
        super().__init__()
        self.valid, pad = padding == "valid", 0 if padding == "valid" else 1

        def double(a: int, m: int, b: int) -> Any:
            layers: list[Any] = []
            for c, d in ((a, m), (m, b)):
                layers += [tn.Conv2d(c, d, 3, padding=pad, bias=norm is None), *([tn.BatchNorm2d(d)] if norm else []), tn.ReLU()]
            return tn.Sequential(*layers)

        f = 2 if bilinear else 1
        w = [base, 2 * base, 4 * base, 8 * base, 16 * base // f]
        self.encoder = tn.ModuleList([double(a, b, b) for a, b in zip([i, *w], w, strict=False)])
        self.upsample = tn.ModuleList(
            [
                tn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) if bilinear else tn.ConvTranspose2d(c, c // 2, 2, 2)
                for c in w[:0:-1]
            ]
        )
        self.decoder = tn.ModuleList([double(2 * c, c, c // f if c > base else c) for c in w[3::-1]])
        self.head = tn.Conv2d(base, classes, 1)

    def forward(self, x: Any) -> Any:
        kept = []
        for k, stage in enumerate(self.encoder):
            x = stage(tf.max_pool2d(x, 2) if k else x)
            kept.append(x)
        kept.pop()
        for up, stage in zip(self.upsample, self.decoder, strict=True):
            x, skip = up(x), kept.pop()
            dh, dw = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            if self.valid:
                skip = skip[:, :, dh // 2 : dh // 2 + x.shape[2], dw // 2 : dw // 2 + x.shape[3]]
            else:
                x = tf.pad(x, (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2))
            x = stage(torch.cat([skip, x], 1))
        return self.head(x)


class TorchSegNet(tn.Module):  # type: ignore[misc, name-defined]
    """The 26 convolutions, the five poolings and what undoes them."""

    def __init__(self, i: int, classes: int, w: int) -> None:
        super().__init__()

        def block(a: int, b: int) -> list[Any]:
            return [tn.Conv2d(a, b, 3, padding=1), tn.BatchNorm2d(b, eps=1e-9), tn.ReLU()]

        down: list[Any] = []
        for a, b, n in ((i, w, 2), (w, 2 * w, 2), (2 * w, 4 * w, 3), (4 * w, 8 * w, 3), (8 * w, 8 * w, 3)):
            for k in range(n):
                down += block(b if k else a, b)
            down.append(tn.MaxPool2d(2, ceil_mode=True, return_indices=True))
        self.features = tn.Sequential(*down)
        self.decoder = tn.ModuleList()
        for a, b, n in ((8 * w, 8 * w, 3), (8 * w, 4 * w, 3), (4 * w, 2 * w, 3), (2 * w, w, 2), (w, classes, 2)):
            up = [layer for k in range(n) for layer in block(a, b if k == n - 1 else a)]
            self.decoder.append(tn.Sequential(*(up if b != classes else up[:-2])))

    def forward(self, x: Any) -> Any:
        kept = []
        for layer in self.features:
            if isinstance(layer, tn.MaxPool2d):
                size = x.shape[2:]
                x, at = layer(x)
                kept.append((at, size))
            else:
                x = layer(x)
        for stage in self.decoder:
            at, size = kept.pop()
            x = stage(tf.max_unpool2d(x, at, 2, output_size=size))
        return x


class TorchSegNetBasic(tn.Module):  # type: ignore[misc, name-defined]
    """Four 7x7 convolutions down, four up."""

    def __init__(self, i: int, classes: int, w: int) -> None:
        super().__init__()
        down: list[Any] = []
        for k in range(4):
            down += [tn.Conv2d(w if k else i, w, 7, padding=3), tn.BatchNorm2d(w, eps=1e-9), tn.ReLU()]
            down.append(tn.MaxPool2d(2, ceil_mode=True, return_indices=True))
        self.features = tn.Sequential(*down)
        self.decoder = tn.ModuleList([tn.Sequential(tn.Conv2d(w, w, 7, padding=3), tn.BatchNorm2d(w, eps=1e-9)) for _ in range(4)])
        self.classifier = tn.Conv2d(w, classes, 1)

    def forward(self, x: Any) -> Any:
        return self.classifier(TorchSegNet.forward(self, tf.local_response_norm(x, 5, 1e-4, 0.75, 1.0)))


class TorchFCN(tn.Module):  # type: ignore[misc, name-defined]
    """FCN-32s, 16s, 8s and 8s at once as their network files write them out, numbers and all."""

    def __init__(self, kind: str, i: int, classes: int, w: int) -> None:
        super().__init__()
        self.kind = kind
        layers: list[Any] = []
        for a, b, n in ((i, w, 2), (w, 2 * w, 2), (2 * w, 4 * w, 3), (4 * w, 8 * w, 3), (8 * w, 8 * w, 3)):
            for k in range(n):
                layers += [tn.Conv2d(b if k else a, b, 3, padding=1 if layers else 100), tn.ReLU()]
            layers.append(tn.MaxPool2d(2, ceil_mode=True))
        self.features = tn.Sequential(*layers)
        h = 64 * w
        self.classifier = tn.Sequential(tn.Conv2d(8 * w, h, 7), tn.ReLU(), tn.Dropout(0), tn.Conv2d(h, h, 1), tn.ReLU(), tn.Dropout(0))
        self.score_fr = tn.Conv2d(h, classes, 1)

        def up(k: int, s: int) -> Any:
            return tn.ConvTranspose2d(classes, classes, k, s, bias=False).requires_grad_(False)

        if kind == "32s":
            self.upscore = up(64, 32)
        else:
            self.score_pool4, self.upscore2 = tn.Conv2d(8 * w, classes, 1), up(4, 2)
        if kind == "16s":
            self.upscore16 = up(32, 16)
        if kind.startswith("8s"):
            self.score_pool3, self.upscore_pool4, self.upscore8 = tn.Conv2d(4 * w, classes, 1), up(4, 2), up(16, 8)
        if kind == "8s at once":
            self.scale_pool4, self.scale_pool3 = tn.Module(), tn.Module()
            self.scale_pool4.weight = tn.Parameter(torch.ones(8 * w), requires_grad=False)
            self.scale_pool3.weight = tn.Parameter(torch.ones(4 * w), requires_grad=False)

    def forward(self, x: Any) -> Any:
        size = x.shape[2:]

        def crop(y: Any, at: int, to: Any) -> Any:
            return y[:, :, at : at + to[0], at : at + to[1]]

        pool3 = self.features[:17](x)
        pool4 = self.features[17:24](pool3)
        y = self.score_fr(self.classifier(self.features[24:](pool4)))
        if self.kind == "32s":
            return crop(self.upscore(y), 19, size)
        if self.kind == "8s at once":
            pool4, pool3 = pool4 * 0.01, pool3 * 0.0001
        y = self.upscore2(y)
        y = y + crop(self.score_pool4(pool4), 5, y.shape[2:])
        if self.kind == "16s":
            return crop(self.upscore16(y), 27, size)
        y = self.upscore_pool4(y)
        y = y + crop(self.score_pool3(pool3), 9, y.shape[2:])
        return crop(self.upscore8(y), 31, size)


class TorchFCNAlexNet(tn.Module):  # type: ignore[misc, name-defined]
    """FCN-AlexNet as its network file writes it out: CaffeNet in two groups, local response norm behind the poolings, crop at 18."""

    def __init__(self, i: int, classes: int, w: int) -> None:
        super().__init__()
        a, b, c, d = w, w // 3 * 8, w // 3 * 12, w // 3 * 128

        def pool() -> Any:
            return tn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = tn.Sequential(
            tn.Conv2d(i, a, 11, 4, 100), tn.ReLU(), pool(), tn.LocalResponseNorm(5, 1e-4, 0.75),
            tn.Conv2d(a, b, 5, 1, 2, groups=2), tn.ReLU(), pool(), tn.LocalResponseNorm(5, 1e-4, 0.75),
            tn.Conv2d(b, c, 3, 1, 1), tn.ReLU(), tn.Conv2d(c, c, 3, 1, 1, groups=2), tn.ReLU(), tn.Conv2d(c, b, 3, 1, 1, groups=2), tn.ReLU(), pool(),
        )  # fmt: skip
        self.classifier = tn.Sequential(tn.Conv2d(b, d, 6), tn.ReLU(), tn.Dropout(0.0), tn.Conv2d(d, d, 1), tn.ReLU(), tn.Dropout(0.0))
        self.score_fr = tn.Conv2d(d, classes, 1)
        self.upscore = tn.ConvTranspose2d(classes, classes, 63, 32, bias=False).requires_grad_(False)

    def forward(self, x: Any) -> Any:
        h, w = x.shape[2:]
        return self.upscore(self.score_fr(self.classifier(self.features(x))))[:, :, 18 : 18 + h, 18 : 18 + w]


CASES: dict[str, tuple[Callable[[], models.Segmenter], Callable[[], Any], tuple[int, ...]]] = {
    "unet": (lambda: models.UNet(2, 3, base=2), lambda: TorchUNet(2, 3, 2, "valid", None, False), (2, 2, 204, 188)),
    "unet-same": (
        lambda: models.UNet(2, 3, base=2, padding="same", norm="batch"),
        lambda: TorchUNet(2, 3, 2, "same", "batch", False),
        (2, 2, 45, 38),
    ),
    "unet-bilinear": (
        lambda: models.UNet(2, 3, base=2, padding="same", norm="batch", upsample="bilinear"),
        lambda: TorchUNet(2, 3, 2, "same", "batch", True),
        (2, 2, 45, 38),
    ),
    "segnet": (lambda: models.SegNet(2, 3, width=2), lambda: TorchSegNet(2, 3, 2), (3, 2, 69, 78)),
    "segnet-basic": (lambda: models.SegNetBasic(2, 3, width=4), lambda: TorchSegNetBasic(2, 3, 4), (3, 2, 45, 38)),
    "fcn-32s": (lambda: models.FCN32s(3, 2, width=1, dropout=0.0), lambda: TorchFCN("32s", 2, 3, 1), (2, 2, 45, 38)),
    "fcn-16s": (lambda: models.FCN16s(3, 2, width=1, dropout=0.0), lambda: TorchFCN("16s", 2, 3, 1), (2, 2, 45, 38)),
    "fcn-8s": (lambda: models.FCN8s(3, 2, width=2, dropout=0.0), lambda: TorchFCN("8s", 2, 3, 2), (2, 2, 45, 38)),
    "fcn-alexnet": (lambda: models.FCNAlexNet(3, 2, width=6, dropout=0.0), lambda: TorchFCNAlexNet(2, 3, 6), (2, 2, 45, 38)),
    "fcn-8s-at-once": (lambda: models.FCN8sAtOnce(3, 2, width=1, dropout=0.0), lambda: TorchFCN("8s at once", 2, 3, 1), (2, 2, 45, 38)),
}


def pair(name: str, rng: np.random.Generator) -> tuple[models.Segmenter, Any, Array, Array]:
    """Our network and PyTorch's with the same weights in float64, none of them zero; images, and labels some of which are to be ignored."""
    make, peer, shape = CASES[name]
    ours, theirs = make().double(), peer().double()
    for key, p in ours.named_parameters():
        if key.startswith("score") or key.endswith("bias"):
            p._array[...] = rng.normal(0, 0.1, p.shape)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict()) or set(state) == set(theirs.state_dict())
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    size = ours.output_size((shape[2], shape[3]))
    labels = rng.integers(0, 3, (shape[0], *size))
    labels[rng.random(labels.shape) < 0.1] = 255
    return ours, theirs, rng.standard_normal(shape), labels


def close(a: Array, b: Any, name: str = "") -> None:
    b = b.detach().numpy()
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(b).max())), err_msg=name)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_scores_and_gradients_agree(name: str, training: bool, rng: np.random.Generator) -> None:
    ours, theirs, images, labels = pair(name, rng)
    ours.train(training)
    theirs.train(training)
    x, y = Tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    scores, peer = ours(x), theirs(y)
    assert peer.std() > 1e-3
    close(scores.numpy(), peer, "scores")
    F.cross_entropy(scores, Tensor(labels), ignore_index=255).backward()
    tf.cross_entropy(peer, torch.tensor(labels), ignore_index=255).backward()
    assert x.grad is not None and y.grad.abs().max() > 1e-8
    close(x.grad.numpy(), y.grad, "image")
    others = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        if p.requires_grad:
            assert p.grad is not None
            close(p.grad.numpy(), others[key].grad, key)
        else:
            assert p.grad is None and not others[key].requires_grad


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_of_training_agree(name: str, rng: np.random.Generator) -> None:
    """SGD with momentum and weight decay: losses along the way, and all parameters and statistics at the end."""
    ours, theirs, images, labels = pair(name, rng)
    start = ours.state_dict()
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    mine = optim.SGD([p for p in ours.parameters() if p.requires_grad], **options)
    peers = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], **options)
    losses = []
    for _ in range(10):
        mine.zero_grad()
        loss = F.cross_entropy(ours(Tensor(images)), Tensor(labels), ignore_index=255)
        loss.backward()
        mine.step()
        peers.zero_grad()
        other = tf.cross_entropy(theirs(torch.tensor(images)), torch.tensor(labels), ignore_index=255)
        other.backward()
        peers.step()
        losses.append((loss.item(), other.item()))
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-9)
    assert losses[-1][0] < losses[0][0]
    others = theirs.state_dict()
    for key, value in ours.state_dict().items():
        close(value, others[key], key)
    moved = [key for key, value in ours.state_dict().items() if not np.array_equal(value, start[key])]
    assert set(start) - set(moved) == {key for key, p in ours.named_parameters() if not p.requires_grad}


# -- classifiers --------------------------------------------------------------------------------------------------------------------------


class TorchClassifier(tn.Module):  # type: ignore[misc, name-defined]
    """Table 1 of the VGG paper, or AlexNet, as torchvision writes them."""

    def __init__(self, rows: str, norm: bool, i: int, classes: int, hidden: int, side: int) -> None:
        super().__init__()
        layers: list[Any] = []
        for word in rows.split():
            if word == "M":
                layers.append(tn.MaxPool2d(2, 2) if side == 7 else tn.MaxPool2d(3, 2))
                continue
            o, k, stride, pad = (int(n) for n in (word.split("/") if "/" in word else (word, 3, 1, 1)))
            layers += [tn.Conv2d(i, o, k, stride, pad), *([tn.BatchNorm2d(o)] if norm else []), tn.ReLU()]
            i = o
        self.features, self.avgpool = tn.Sequential(*layers), tn.AdaptiveAvgPool2d(side)
        drop = tn.Dropout(0.0)
        head = [tn.Linear(i * side * side, hidden), tn.ReLU(), drop, tn.Linear(hidden, hidden), tn.ReLU()]
        self.classifier = tn.Sequential(*([*head, drop] if side == 7 else [drop, *head]), tn.Linear(hidden, classes))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


CLASSIFIERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "alexnet": (
        lambda: models.AlexNet(3, 2, width=2, dropout=0.0, hidden=8),
        lambda: TorchClassifier("2/11/4/2 M 6/5/1/2 M 12 8 8 M", False, 2, 3, 8, 6),
    ),
    "vgg11": (
        lambda: models.VGG11(3, 2, width=1, dropout=0.0, hidden=8),
        lambda: TorchClassifier("1 M 2 M 4 4 M 8 8 M 8 8 M", False, 2, 3, 8, 7),
    ),
    "vgg13": (
        lambda: models.VGG13(3, 2, width=1, dropout=0.0, hidden=8),
        lambda: TorchClassifier("1 1 M 2 2 M 4 4 M 8 8 M 8 8 M", False, 2, 3, 8, 7),
    ),
    "vgg16-bn": (
        lambda: models.VGG16(3, 2, width=1, norm="batch", dropout=0.0, hidden=8),
        lambda: TorchClassifier("1 1 M 2 2 M 4 4 4 M 8 8 8 M 8 8 8 M", True, 2, 3, 8, 7),
    ),
    "vgg19": (
        lambda: models.VGG19(3, 2, width=1, dropout=0.0, hidden=8),
        lambda: TorchClassifier("1 1 M 2 2 M 4 4 4 4 M 8 8 8 8 M 8 8 8 8 M", False, 2, 3, 8, 7),
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_ten_steps_of_classifiers_agree(name: str, rng: np.random.Generator) -> None:
    make, peer = CLASSIFIERS[name]
    ours, theirs = make().double(), peer().double()
    for key, p in ours.named_parameters():
        if key.endswith("bias"):
            p._array[...] = rng.normal(0.2, 0.1, p.shape)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in ours.state_dict().items()})  # by torchvision's names
    images, labels = rng.standard_normal((6, 2, 70, 78)), np.array([0, 1, 2, 0, 1, 2])
    mine, peers = optim.SGD(ours.parameters(), lr=0.01, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    start, losses = ours.state_dict(), []
    for _ in range(10):
        mine.zero_grad()
        loss = F.cross_entropy(ours(Tensor(images)), Tensor(labels))
        loss.backward()
        mine.step()
        peers.zero_grad()
        other = tf.cross_entropy(theirs(torch.tensor(images)), torch.tensor(labels))
        other.backward()
        peers.step()
        losses.append((loss.item(), other.item()))
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-9)
    others = theirs.state_dict()
    for key, value in ours.state_dict().items():
        close(value, others[key], key)
    first = next(iter(start))
    assert np.abs(ours.state_dict()[first] - start[first]).max() > 1e-6  # the gradient reached the first layer
