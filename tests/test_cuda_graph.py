"""A training step recorded and launched again, on a stand-in whose streams record: what a recording computes is gone, what it did is done later."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import training
from simulated import ON_DEVICE, why_not

import minidcnn
from minidcnn import BackendError, Tensor, optim
from minidcnn import functional as F
from minidcnn.backend import Kernels, kernels, random_state, set_random_state, switch
from minidcnn.backend.cpu import CpuKernels
from minidcnn.backend.cuda.graph import SEEDS, WARM_UP, Graphs
from minidcnn.data import Cells, Dataset
from minidcnn.models import VGG11, CaffeNet, SegNet
from minidcnn.segmentation.diagnose import TrainingError

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
watched = pytest.mark.skipif(ON_DEVICE, reason="watches the stand-in")


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for CuPy with simulated kernels; on a device CuPy itself."""
    if not ON_DEVICE:
        monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    minidcnn.use("cupy")
    yield
    minidcnn.use("numpy")


def there(values: Any) -> Any:
    return kernels().xp.asarray(np.asarray(values))


# -- recording -----------------------------------------------------------------------------------------------------------------------------


def test_the_same_numbers_from_new_inputs() -> None:
    calls = []

    def work(x: Any, y: Any, nothing: None) -> tuple[Any, ...]:
        calls.append(1)
        total = x * y
        total += x.T.reshape(x.shape)
        return total, total.sum(dtype="float64"), nothing

    rng = np.random.default_rng(0)
    with Graphs(kernels().xp, work) as graphs:
        for step in range(WARM_UP + 4):
            x, y = rng.standard_normal((2, 3, 4))
            total, added, nothing = graphs(there(x), there(y), None)
            wanted = x * y + x.T.reshape(x.shape)
            np.testing.assert_array_equal(total.get(), wanted)
            np.testing.assert_allclose(float(added), wanted.sum(), rtol=1e-13)  # a GPU adds up in an order of its own
            assert nothing is None
            assert len(calls) == min(step + 1, WARM_UP + 1)


def test_each_combination_of_shapes_has_its_own() -> None:
    with Graphs(kernels().xp, lambda x: (x + 1,)) as graphs:
        for _ in range(WARM_UP + 2):
            for x in (np.zeros(3), np.zeros((2, 5)), np.zeros(3, np.float32)):
                np.testing.assert_array_equal(graphs(there(x))[0].get(), x + 1)
        assert len(graphs._recorded) == 3
        assert ON_DEVICE or all(r.graph.launches == 2 for r in graphs._recorded.values())


def test_the_norm_of_gradients_is_part_of_a_recording() -> None:
    """Their addresses are recorded with the launch: nothing is uploaded, and every launch sums what stands there then, copies of what has gaps too."""

    def work(x: Any, y: Any) -> tuple[Any, ...]:
        arrays = [x * 2, y - 1, x.astype("float32")[:, ::2], y[:0], (x + 1).T]
        return *(kernels().power_sum(arrays, p) for p in (2.0, 3.0, np.inf)), kernels().all_finite(arrays)

    rng = np.random.default_rng(0)
    with Graphs(kernels().xp, work) as graphs:
        for step in range(WARM_UP + 4):
            x, y = rng.standard_normal((70, 90)), rng.standard_normal(9000).astype(np.float32)
            if step == WARM_UP + 2:
                y[8999] = np.nan
            found = graphs(there(x), there(y))
            numbers = np.concatenate([a.ravel().astype(np.float64) for a in (x * 2, y - 1, x.astype(np.float32)[:, ::2], x + 1)])
            wanted = (numbers**2).sum(), (np.abs(numbers) ** 3).sum(), np.abs(numbers).max()
            np.testing.assert_allclose([float(a) for a in found[:3]], wanted, rtol=1e-12)
            assert bool(found[3]) == (step != WARM_UP + 2)
        (recorded,) = graphs._recorded.values()
        assert ON_DEVICE or recorded.graph.launches == 4


def test_arrays_changed_in_place_change_at_each_launch_and_not_while_recording() -> None:
    state = there(np.zeros(3))

    def work(x: Any) -> tuple[Any, ...]:
        state[...] = state * 2 + x
        return (state,)

    with Graphs(kernels().xp, work) as graphs:
        for step in range(1, WARM_UP + 4):
            graphs(there(np.ones(3)))
            assert state.get().tolist() == [2.0**step - 1] * 3


def test_dropout_draws_anew_at_each_launch_and_twice_the_same_within_one() -> None:
    def work(x: Any) -> tuple[Any, ...]:
        state = random_state()
        first = F.dropout(Tensor.wrap(x), 0.5)
        set_random_state(state)
        again = F.dropout(Tensor.wrap(x), 0.5)  # as a backward pass that computes a forward pass once more
        return first._array, again._array, F.dropout2d(Tensor.wrap(x), 0.3)._array

    x = np.ones((2, 6, 5, 4), np.float32)
    results = []
    for how in (Graphs(kernels().xp, work), work):
        minidcnn.manual_seed(3)
        with how if isinstance(how, Graphs) else minidcnn.use_kernels("fast"):
            results.append([[a.get() for a in how(there(x))] for _ in range(WARM_UP + 4)])
    for recorded, eager in zip(*results, strict=True):
        for a, b in zip(recorded, eager, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(recorded[0], recorded[1])
    assert len({r[0].tobytes() for r in results[0]}) == WARM_UP + 4


def test_the_reference_reads_seeds_from_their_place_too() -> None:
    from minidcnn.backend.random import DeviceSeed

    for value in (5, 2**63 - 2):
        place = np.array([value], np.uint64)
        np.testing.assert_array_equal(Kernels(np).uniform_bits(DeviceSeed(0, place), 9), Kernels(np).uniform_bits(value, 9))


def test_many_classes_and_many_images_joined_are_recorded() -> None:
    """CuPy joins more than eight arrays by a table of their addresses, which comes from the host."""
    rng = np.random.default_rng(0)

    def work(x: Any, labels: Any) -> tuple[Any, ...]:
        logits, target = Tensor.wrap(x), Tensor.wrap(labels)
        logits.requires_grad = True
        loss = F.dice_loss(logits, target) + F.tversky_loss(logits, target) + F.cross_entropy(logits, target)
        loss.backward()
        parts = [logits[:, c : c + 1] * (c + 1) for c in range(11)]
        assert logits.grad is not None
        return loss._array, logits.grad._array, F.cat(parts, 1)._array, F.stack(parts, 0)._array

    with Graphs(kernels().xp, work) as graphs:
        for _ in range(WARM_UP + 2):
            x, labels = there(rng.standard_normal((2, 11, 3, 4)).astype(np.float32)), there(rng.integers(0, 11, (2, 3, 4)))
            for recorded, eager in zip([a.get() for a in graphs(x, labels)], work(x, labels), strict=True):
                np.testing.assert_array_equal(recorded, eager.get())
        (recording,) = graphs._recorded.values()
        assert ON_DEVICE or recording.graph.launches == 2


def test_a_wrong_label_is_told_at_every_launch() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 3, 2, 2)).astype(np.float32)

    def work(x: Any, labels: Any) -> tuple[Any, ...]:
        return (F.cross_entropy(Tensor.wrap(x), Tensor.wrap(labels))._array,)

    with Graphs(kernels().xp, work) as graphs:
        for step in range(WARM_UP + 4):
            labels = np.zeros((1, 2, 2), np.int64)
            labels[0, 1, 0] = 3 if step in (WARM_UP, WARM_UP + 2) else 2
            loss = Tensor.wrap(graphs(there(logits), there(labels))[0])
            if labels.max() == 3:
                with pytest.raises(ValueError, match=r"target\[0, 1, 0\] is 3"):
                    loss.item()
            else:
                assert np.isfinite(loss.item())


@watched
def test_a_limit_of_memory_holds_for_recordings_and_none_gives_anything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUPY_GPU_MEMORY_LIMIT is every new pool's limit; the stand-in objects to a recording from a pool that has one."""
    for more, enough in ((960, True), (959, False)):  # two results of 480 bytes
        monkeypatch.setattr(cupy_stand_in.Pool, "most", cupy_stand_in.Memory.own + more)
        with Graphs(kernels().xp, lambda x: (x * 2 + 1,)) as graphs:
            for _ in range(WARM_UP):
                graphs(there(np.ones(60)))
            x = there(np.ones(60))
            if enough:
                np.testing.assert_array_equal(graphs(x)[0].get(), np.full(60, 3.0))
            else:
                with pytest.raises(MemoryError, match=r"Out of memory allocating 480 bytes .*limit set to: 6,000,000,959 bytes"):
                    graphs(x)


@watched
def test_its_memory_is_its_own_and_stays() -> None:
    """The stand-in refuses allocations from the common pool in a recording, and launches after the pool is gone."""
    xp = kernels().xp
    with Graphs(xp, lambda x: (x * 2,)) as graphs:
        for _ in range(WARM_UP + 1):
            graphs(there(np.ones(3)))
        (recorded,) = graphs._recorded.values()
        recorded.pool = None
        gc.collect()
        with pytest.raises(AssertionError, match="the memory of this graph was given back"):
            graphs(there(np.ones(3)))


REFUSED = {
    "a value is read": lambda x: (x * float(x.sum()),),
    "an array comes from the host": lambda x: (x + kernels().xp.asarray(np.ones(3)),),
    "a product of cuBLAS": lambda x: (x @ x,),
    "a product of whole numbers": lambda x: (F.matmul(Tensor.wrap(x.astype("int64")), Tensor.wrap(x.astype("int64")))._array,),
    "a mask selects": lambda x: (x[x > 0],),
    "too many seeds": lambda x: (F.dropout(sum((F.dropout(Tensor.wrap(x)) for _ in range(SEEDS)), Tensor.wrap(x)))._array,),
}


@watched
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_recorded_is_one_sentence(what: str) -> None:
    with Graphs(kernels().xp, REFUSED[what]) as graphs:
        for _ in range(WARM_UP):
            graphs(there(np.ones(3)))
        with pytest.raises(BackendError, match=r"this step cannot be recorded as a CUDA graph \(.*\): leave out --graph"):
            graphs(there(np.ones(3)))
        assert graphs.stream.recording is None  # and the stream can be used again
        np.testing.assert_array_equal((there(np.ones(3)) * 2).get(), [2, 2, 2])


@watched
def test_a_recording_that_turns_out_invalid_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cupy_stand_in.Stream.end_capture

    def invalid(stream: Any) -> Any:
        real(stream)
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    with Graphs(kernels().xp, lambda x: (x + 1,)) as graphs:
        for _ in range(WARM_UP):
            graphs(there(np.ones(3)))
        monkeypatch.setattr(cupy_stand_in.Stream, "end_capture", invalid)
        with pytest.raises(BackendError, match=r"\(cudaErrorStreamCaptureInvalidated\): leave out --graph"):
            graphs(there(np.ones(3)))


@watched
def test_memory_that_runs_out_while_recording_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with Graphs(kernels().xp, lambda x: (x + 1,)) as graphs:
        x = there(np.ones(3))
        for _ in range(WARM_UP):
            graphs(x)
        monkeypatch.setattr(cupy_stand_in.Memory, "left", 2)
        with pytest.raises(MemoryError, match="Out of memory allocating"):
            graphs(x)
    assert graphs.stream.recording is None


def test_elsewhere_it_is_one_clear_error() -> None:
    for found in (Kernels(np), CpuKernels(), Kernels(kernels().xp)):
        with pytest.raises(
            BackendError, match=r"\(--graph\) by the CUDA kernels on a GPU only, .*: use --backend cupy, or leave out --graph"
        ):
            found.graphs(lambda: ())


@watched
def test_memory_that_runs_out_while_recording_is_no_other_error() -> None:
    """What the runs before it left is given back first; after that nothing is, since it may be the recording's."""
    Memory, x = cupy_stand_in.Memory, there(np.zeros(3))
    before = Memory.given_back
    with Graphs(kernels().xp, lambda x: (x + 1 - 2 * x,)) as graphs:
        for _ in range(WARM_UP):
            graphs(x)
        Memory.left = 4  # the input, the seeds, and two of three results
        try:
            with pytest.raises(MemoryError, match="Out of memory allocating 24 bytes"):
                graphs(x)
        finally:
            Memory.left = None
        assert Memory.given_back == before + 1 and not graphs._recorded
        np.testing.assert_array_equal(graphs(x)[0].get(), [1, 1, 1])


# -- training ------------------------------------------------------------------------------------------------------------------------------


def options(**changes: Any) -> Any:
    """Few steps on small images: enough to record and to launch twice."""
    return training.options(**{"backend": "cupy", "epochs": 1, "repeat": 3, "limit": WARM_UP + 2, "optimizer": "sgd", **changes})


def data() -> tuple[Dataset, Dataset]:
    return Cells("train", 4, (16, 16)), Cells("val", 1, (16, 16))


def train(out: Path, **changes: Any) -> Any:
    build = changes.pop("build", training.unet)
    trainer = training.make(out, options(**changes), data(), build)
    trainer.fit()
    return trainer


def dropped(data: Dataset) -> Any:
    return training.unet(data, dropout=0.5)


def recomputed(data: Dataset) -> Any:
    network = dropped(data)
    network.recompute = True
    return network


def bilinear(data: Dataset) -> Any:
    return training.unet(data, upsample="bilinear")


def segnet(data: Dataset) -> Any:
    return SegNet(data.channels, len(data.classes), width=1, eps=1e-3)


RUNS: dict[str, dict[str, Any]] = {
    "unet": {},
    "with dropout, Adam, weights of classes and a limit": {
        "build": dropped, "optimizer": "adam", "class_weights": "median", "clip": 0.1, "loss": "cross_entropy+dice",
    },
    "bilinear upsampling and pixel weights": {"build": bilinear, "border_weight": 3.0, "prefetch": 2},
    "a forward pass that is computed again in the backward pass": {"build": recomputed},
    "segnet": {"build": segnet},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    trainer = train(tmp_path / "recorded", graph=True, **RUNS[name])
    assert trainer.graphs is not None
    if not ON_DEVICE:
        launches = sum(r.graph.launches for r in trainer.graphs._recorded.values())
        assert launches == trainer.config.epochs * trainer.steps - WARM_UP  # everything but the first steps
    train(tmp_path / "eager", **RUNS[name])
    training.same_results(tmp_path / "recorded", tmp_path / "eager")


def test_a_recorded_run_in_float16_reads_its_scale_anew(tmp_path: Path) -> None:
    """The scale begins so high that it falls from launch to launch: a recording that kept its first one would end elsewhere."""
    minidcnn.use("cupy", "float16")
    for graph in (True, False):
        trainer = training.make(tmp_path / str(graph), options(graph=graph, limit=WARM_UP + 3, clip=1.0), data())
        trainer.scaler.update(2.0**20)
        trainer.fit()
        assert trainer.scaler.get_scale() < 2.0 ** (20 - WARM_UP)  # left out while recorded too
        assert any(state for state in trainer.optimizer.state.values())  # and in the end it steps
        if trainer.graphs is not None and not ON_DEVICE:
            assert sum(r.graph.launches for r in trainer.graphs._recorded.values()) == trainer.steps - WARM_UP == 3
    training.same_results(tmp_path / "True", tmp_path / "False")


CLASSIFIERS: dict[str, Any] = {
    "caffenet: two groups, local response norm, linear layers": lambda: CaffeNet(3, width=6, hidden=8),
    "vgg: linear layers": lambda: VGG11(3, width=1, hidden=8, norm="batch"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_recorded_with_its_linear_layers(name: str) -> None:
    """Products of matrices are kernels of our own, so nothing of it asks cuBLAS, which cannot be recorded."""
    results = []
    for recorded in (True, False):
        minidcnn.manual_seed(0)
        network = CLASSIFIERS[name]().to("cupy")
        optimizer, size = optim.SGD(network.parameters(), lr=0.01), network.smallest

        def work(x: Any, labels: Any, network: Any = network, optimizer: Any = optimizer) -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(Tensor.wrap(x)), Tensor.wrap(labels))
            loss.backward()
            return loss._array, *(p.grad._array for p in network.parameters())

        rng, losses = np.random.default_rng(0), []
        graphs = Graphs(kernels().xp, work)
        with graphs:
            for _ in range(WARM_UP + 2):
                x, labels = rng.standard_normal((2, 3, size, size + 3)).astype(np.float32), rng.integers(0, 3, 2)
                loss, *grads = (graphs if recorded else work)(there(x), there(labels))
                for p, g in zip(network.parameters(), grads, strict=True):
                    p.grad = Tensor.wrap(g)
                optimizer.step()
                losses.append(float(loss))
        assert len(graphs._recorded) == recorded
        results.append((losses, [p.numpy() for p in network.parameters()]))
    (recorded_losses, weights), (losses, wanted) = results
    assert recorded_losses == losses and len(set(losses)) == len(losses)
    for a, b in zip(weights, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_of_two_sizes_have_a_recording_each(tmp_path: Path) -> None:
    class Uneven(Cells):
        """Every other image is smaller."""

        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            return sample.with_arrays(sample.image[:, :8], sample.mask[:8], None) if index % 2 else sample

    for graph in (True, False):
        config = options(graph=graph, batch_size=1, repeat=2, limit=0, augment=())
        trainer = training.make(tmp_path / str(graph), config, (Uneven("train", 4, (16, 16)), data()[1]))
        trainer.fit()
        if trainer.graphs is not None:
            assert len(trainer.graphs._recorded) == 2
    training.same_results(tmp_path / "True", tmp_path / "False")


def test_a_recorded_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    train(tmp_path / "whole", graph=True, epochs=2, schedule="constant")
    train(tmp_path / "half", graph=True, epochs=1, schedule="constant")
    config = options(epochs=2, graph=True, schedule="constant")
    training.make(tmp_path / "half", config, data(), resume=True).fit()
    training.same_results(tmp_path / "whole", tmp_path / "half")


def test_a_recorded_run_that_diverges_says_where(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, options(graph=True, lr=1e30), data())
    with pytest.raises(
        TrainingError, match=r"training stopped at step \d+ .*: (the loss is nan|the gradient is not finite|the loss is inf)"
    ):
        trainer.fit()


def test_without_a_gpu_the_option_is_an_error(tmp_path: Path) -> None:
    minidcnn.use("numpy")
    with pytest.raises(BackendError, match="leave out --graph"):
        training.make(tmp_path, training.options(graph=True))
