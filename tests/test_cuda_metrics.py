"""Labels checked and counted on the device: the reference's numbers, and nobody waits for them before a value is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import training
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not

import minidcnn
from minidcnn import Tensor, nn
from minidcnn import functional as F
from minidcnn.backend import Kernels, pending, raise_pending, switch, to_backend
from minidcnn.backend import kernels as present
from minidcnn.segmentation.evaluate import evaluate
from minidcnn.segmentation.losses import Loss
from minidcnn.segmentation.metrics import ConfusionMatrix
from minidcnn.testing import seeds

needs_simulator = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
REFERENCE = Kernels(np)
orders = st.sampled_from([{"order": 0}, {"order": 2}, {"mode": "check", "order": 0}, {"mode": "check", "order": 2}])
labels = st.sampled_from(["int64", "int32", "uint8", "int16"])


@needs_simulator
@given(
    shape=st.sampled_from([(0,), (1,), (3, 5, 7), (2, 64, 65), (5000,)]),
    classes=st.sampled_from([1, 2, 21, 110, 111, 200]),
    ignore=st.sampled_from([None, 255, 0, -1]),
    wrong=st.booleans(),
    kinds=st.tuples(labels, labels),
    order=orders,
    seed=seeds,
)
def test_counts(
    shape: tuple[int, ...], classes: int, ignore: int | None, wrong: bool, kinds: tuple[str, str], order: dict[str, Any], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.integers(0, min(classes, 100), shape).astype(kind) for kind in kinds)
    if ignore is not None and ignore >= 0:
        truth[rng.random(shape) < 0.2] = min(ignore, np.iinfo(truth.dtype).max)
    if wrong:
        prediction[rng.random(shape) < 0.01] = 120
    matrices, firsts = [], []
    for kernels in (simulated(**order), REFERENCE):
        matrix = np.arange(classes**2).reshape(classes, classes) * (1 << 33)  # beyond 32 bits
        firsts.append(int(kernels.count_pairs(matrix, truth, prediction, ignore)))
        matrices.append(matrix)
    np.testing.assert_array_equal(*matrices)
    assert firsts[0] == firsts[1]


def test_the_reference_counts_as_the_definition_does(rng: np.random.Generator) -> None:
    truth, prediction = rng.integers(0, 4, (3, 5, 6)), rng.integers(0, 3, (3, 5, 6))
    matrix = np.ones((3, 3), np.int64)
    assert REFERENCE.count_pairs(matrix, truth, prediction, 3) == -1
    expected = [[1 + sum((t, p) == (i, j) for t, p in zip(truth.flat, prediction.flat, strict=True)) for j in range(3)] for i in range(3)]
    assert matrix.tolist() == expected
    assert REFERENCE.count_pairs(matrix, truth, prediction, None) == np.flatnonzero(truth == 3)[0]


@needs_simulator
@given(
    shape=st.sampled_from([(0, 2), (1,), (2, 9, 31), (4100,)]),
    kind=labels,
    classes=st.sampled_from([1, 5, 90]),
    ignore=st.sampled_from([-100, 255, 3, -1]),
    order=orders,
    seed=seeds,
)
def test_clean_target(shape: tuple[int, ...], kind: str, classes: int, ignore: int, order: dict[str, Any], seed: int) -> None:
    target = np.random.default_rng(seed).integers(0, 90, shape).astype(kind)
    before = target.copy()
    clean, first = simulated(**order).clean_target(target, classes, ignore)
    wanted, expected = REFERENCE.clean_target(target, classes, ignore)
    np.testing.assert_array_equal(clean, wanted)
    assert clean.dtype == wanted.dtype == np.int64 and clean.max(initial=-1) < classes
    assert int(first) == int(expected)
    np.testing.assert_array_equal(target, before)


# -- errors that wait ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["reference", "fast"])
def cupy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """The stand-in for CuPy, with the reference kernels and with the CUDA kernels on the simulator."""
    if ON_DEVICE:
        pytest.skip("counts on the stand-in how often the host waits")
    if request.param == "fast" and why_not():
        pytest.skip(why_not())
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    with minidcnn.use_kernels(request.param):
        yield
    minidcnn.use("numpy")
    pending._pending.clear()


def reads() -> int:
    return cupy_stand_in.ndarray.reads


def batch() -> tuple[Tensor, Tensor]:
    logits = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32), requires_grad=True)
    return logits, Tensor(np.random.default_rng(1).integers(0, 3, (2, 4, 5)))


@pytest.mark.usefixtures("cupy")
def test_a_loss_and_its_gradient_wait_for_nothing() -> None:
    logits, target = batch()
    before = reads()
    for smoothing in (0.0, 0.1):
        loss = F.cross_entropy(logits, target, Tensor(np.ones(3, np.float32)), 2, label_smoothing=smoothing)
        loss.backward()
    assert reads() == before
    assert np.isfinite(loss.item())


def binary(logits: Tensor) -> tuple[Tensor, Tensor]:
    target = Tensor(np.random.default_rng(1).random(logits.shape).astype(np.float32))
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=Tensor(np.float32(2))), target


LOSSES = {
    "nll": lambda x, t: F.nll_loss(F.log_softmax(x, 1), t),
    "focal": lambda x, t: F.focal_loss(x, t, ignore_index=1),
    "dice": lambda x, t: F.dice_loss(x, t),
    "probabilities": lambda x, t: F.cross_entropy(x, F.softmax(x.detach(), 1)),
    "binary": lambda x, t: binary(x)[0],
    "mse": lambda x, t: F.mse_loss(x, x.detach() * 2),
    "l1": lambda x, t: F.l1_loss(x, x.detach() * 2),
}


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits_for_anything(name: str) -> None:
    logits, target = batch()
    before = reads()
    loss = LOSSES[name](logits, target)
    loss.backward()
    assert reads() == before and logits.grad is not None
    assert np.isfinite(loss.item())


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_a_target_outside_0_and_1_is_told_when_a_value_is_read(value: float) -> None:
    logits, _ = batch()
    target = Tensor(np.full(logits.shape, 0.5, np.float32))
    target._array[1, 2, 3, 4] = value
    before = reads()
    loss = F.binary_cross_entropy_with_logits(logits, target)
    loss.backward()
    assert reads() == before
    with pytest.raises(ValueError, match="target must lie between 0 and 1, got values from (-0.5 to 0.5|0.5 to 1.5|nan to nan); divide"):
        loss.item()


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("read", [lambda loss: loss.item(), lambda loss: loss.numpy(), lambda loss: float(loss), lambda _: raise_pending()])
def test_a_wrong_label_is_told_when_a_value_is_read(read: Any) -> None:
    logits, target = batch()
    target._array[1, 2, 3] = 7
    before = reads()
    loss = F.cross_entropy(logits, target)
    loss.backward()
    assert reads() == before
    with pytest.raises(ValueError, match=r"cross_entropy: target\[1, 2, 3\] is 7, which is none of the input's 3 classes, 0 to 2; map it"):
        read(loss)
    raise_pending()  # it was told, once


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_waited_for_by_nobody(momentum: float | None) -> None:
    norms, (images, _) = [], batch()
    for backend in ("cupy", "numpy"):
        minidcnn.use(backend)
        norms.append(nn.BatchNorm2d(3, momentum=momentum))
    before, x = reads(), images._array
    for step in range(3):
        norms[0](Tensor.wrap(x + step)).sum().backward()
    assert reads() == before
    for step in range(3):
        norms[1](Tensor(x.get() + step))
    for a, b in zip(norms[0].state_dict().values(), norms[1].state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.usefixtures("cupy")
def test_indices_outside_an_output_are_told_and_harmless() -> None:
    x, at = Tensor(np.ones((1, 1, 2, 2), np.float32)), Tensor(np.array([[[[0, 5], [40, 15]]]]))
    before = reads()
    y = F.max_unpool2d(x, at, 2)
    assert reads() == before
    with pytest.raises(ValueError, match=r"max_unpool2d: indices reach from 0 to 40, outside an output of 4x4 = 16 pixels"):
        y.numpy()
    np.testing.assert_array_equal(y.numpy().ravel(), [1, 0, 0, 0, 0, 1, *[0] * 9, 2])


@pytest.mark.usefixtures("cupy")
def test_who_never_reads_is_told_in_the_end() -> None:
    logits, target = batch()
    target._array[0, 0, 0] = -5
    with pytest.raises(ValueError, match=r"target\[0, 0, 0\] is -5"):
        for _ in range(pending.MOST + 1):
            F.cross_entropy(logits, target)


# -- validation ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cupy")
def test_validation_counts_where_the_network_is() -> None:
    """The same scores as on NumPy, and no prediction comes down."""
    results, copied = {}, []
    data = {n: training.arrays(np.random.default_rng(3), n, (16, 24)) for n in (4, 12)}
    loss = Loss("cross_entropy", np.array([1, 2, 3], np.float32), 255)
    for backend, count in (("numpy", 12), ("cupy", 4), ("cupy", 12)):
        minidcnn.use(backend)
        minidcnn.manual_seed(0)
        network = training.unet(data[count])
        before, seen = (reads(), cupy_stand_in.ndarray.bytes_read), []
        options = {"mean": [0.5] * 3, "std": [0.5] * 3, "loss": loss, "batch_size": 2}
        results[backend, count] = evaluate(network, data[count], **options, progress=lambda *_, seen=seen: seen.append(reads()))
        assert set(seen) == {before[0]}  # nobody waited before the end
        copied.append(cupy_stand_in.ndarray.bytes_read - before[1])
    more = 4 * (4 + 3 * 8)  # four batches more: the loss of each, and whether something is wrong with answers, labels, counts
    assert copied[0] == 0 and copied[2] - copied[1] <= more < 16 * 24
    a, b = results["numpy", 12], results["cupy", 12]
    assert a.loss == pytest.approx(b.loss, rel=1e-5)
    assert abs(a.confusion.matrix - b.confusion.matrix).sum() <= 4  # a pixel on the edge of two classes may fall to either
    assert a.confusion.matrix.sum() == b.confusion.matrix.sum() > 0
    minidcnn.use("cupy")
    shown = evaluate(network, data[12], mean=[0.5] * 3, std=[0.5] * 3, batch_size=5, show=(7,)).shown
    assert type(shown[0].prediction) is np.ndarray and shown[0].prediction.shape == (16, 24)


@pytest.mark.usefixtures("cupy")
def test_a_confusion_matrix_adds_up_both_places() -> None:
    truth, prediction = np.array([[0, 1, 2], [255, 1, 0]]), np.array([[0, 2, 2], [1, 1, 0]])
    there = [to_backend(a, "cupy") for a in (truth, prediction)]
    confusion = ConfusionMatrix(3)
    before = reads()
    confusion.update(*there)
    confusion.update(*there)
    assert reads() == before
    confusion.update(truth, prediction)
    assert confusion.matrix.tolist() == [[6, 0, 0], [0, 3, 3], [0, 0, 3]]
    there[1][0, 0] = 9
    confusion.update(*there)
    with pytest.raises(ValueError, match=r"prediction holds 9, expected classes 0 to 2 or 255 in the truth \(ignored\)"):
        _ = confusion.mean_iou
    with pytest.raises(TypeError, match="prediction must hold integer class indices, got float32; take the argmax"):
        confusion.update(there[0], there[1].astype("float32"))


@pytest.mark.usefixtures("cupy")
def test_nothing_to_count() -> None:
    """CuPy before 14 has no bincount of an empty array."""
    own = present()
    matrix, none = own.xp.zeros((3, 3), "int64"), own.xp.zeros((0, 4), "int64")
    assert int(own.count_pairs(matrix, none, none, None)) == -1 and not matrix.get().any()


@pytest.mark.usefixtures("cupy")
def test_an_answer_that_is_nan_is_told() -> None:
    data = training.arrays(np.random.default_rng(3), 4, (16, 24))
    network = training.unet(data)
    next(iter(network.parameters()))._array[...] = np.nan
    with pytest.raises(FloatingPointError, match="the network answers with NaN"):
        evaluate(network, data, mean=[0.5] * 3, std=[0.5] * 3, batch_size=2)
