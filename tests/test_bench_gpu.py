"""The benchmark on a GPU, as far as it goes without one: what it counts and says, on the stand-in for CuPy with simulated kernels."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from cudasim.build import why_not
from simulated import ON_DEVICE

import minidcnn
from minidcnn.backend import BackendError, kernels, switch
from minidcnn.bench import Job, compare, device, text
from minidcnn.bench.device import Gpu, normal, operations
from minidcnn.bench.worker import layer, network, record
from minidcnn.cli import main

needs_simulator = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")
TINY: dict[str, Any] = {"base": 2, "shape": (1, 3, 16, 32), "backend": "cupy"}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if ON_DEVICE:
        pytest.skip("plays CuPy")
    module = cupy_stand_in.make_module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(switch, "_made", {})
    monkeypatch.setattr(device, "PRODUCT", 64)
    monkeypatch.setattr(device, "COPY", 1 << 16)
    minidcnn.use("cupy")
    yield module
    minidcnn.use("numpy")


@needs_simulator
@pytest.mark.usefixtures("cupy")
def test_the_launches_of_a_step_are_counted_and_told() -> None:
    job = Job(**TINY, what="kernels")
    run, gpu = network(job.told(what="step")), Gpu()
    layers = record(run)
    table = {row["kernel"]: row for row in gpu.profile(run)}
    assert table["sgd_step"]["launches"] == table["cross_entropy"]["launches"] == 1
    assert table["max_pool"]["launches"] == 4 and table["sum_parts"]["launches"] == table["conv_weight"]["launches"] == 23
    counted = sum(row["operations"] for row in table.values())
    assert counted == sum(map(compare.operations, layers)) > 0  # the same, once from arguments of launches, once from the layers
    model = sum(4 * item["y"][1] * item["x"][1] * np.prod(item["kernel"]) for item in layers if item["kind"] == "conv2d_weight")
    assert table["sgd_step"]["bytes"] > 3 * model  # parameters, gradients, momentum
    assert all(row["seconds"] > 0 for row in table.values())
    assert [row["seconds"] for row in table.values()] == sorted((row["seconds"] for row in table.values()), reverse=True)
    assert kernels().launcher.launch.__name__ == "launch"  # as it was
    result = {**job.told(), "peer": None, "machine": gpu.machine("float32"), "kernels": list(table.values())}
    said = text(result).splitlines()
    assert said[0] == "unet, first layer 2 channels, images 1x3x16x32, float32 on a GPU" and "this GPU: stand-in, at most" in said[1]
    assert len(said) == 3 + len(table) + 1 and said[-1].startswith("these kernels: ")
    row = next(line.split() for line in said if line.startswith("conv_forward"))
    assert len(row) == 7 and row[1] == "23"


@needs_simulator
@pytest.mark.usefixtures("cupy")
def test_the_operations_of_products_are_counted() -> None:
    a, b = (kernels().xp.ones(shape, "float32") for shape in ((2, 3, 5, 700), (3, 700, 4)))
    table = {row["kernel"]: row for row in Gpu().profile(lambda: kernels().matmul(a, b))}
    assert table["gemm"]["operations"] == 2 * (2 * 3) * 5 * 4 * 700 and table["sum_parts"]["operations"] == 0


@needs_simulator
@pytest.mark.usefixtures("cupy")
def test_layers_run_alone_and_give_what_the_cpu_gives() -> None:
    seen = record(network(Job(**TINY).told()))
    for item in list({json.dumps(item): item for item in seen}.values())[:6]:
        there: Any = layer(item)()  # type: ignore[func-returns-value]
        minidcnn.use("numpy")
        here: Any = layer(item)()  # type: ignore[func-returns-value]
        minidcnn.use("cupy")
        np.testing.assert_allclose(there.get(), here, rtol=1e-3, atol=1e-3)


@needs_simulator
def test_a_step_as_a_graph_is_the_same_step(cupy: Any) -> None:
    losses = []
    for graph in (True, False):
        minidcnn.manual_seed(0)
        run = network(Job(**TINY, graph=graph).told())
        for _ in range(4):
            run()
        state = next(cell.cell_contents for cell in run.__closure__ or () if type(cell.cell_contents).__name__ == "SGD")
        losses.append([p._array.get() for group in state.param_groups for p in group["params"]])
        while cupy.cuda.get_current_stream() is not cupy_stand_in.device.default:
            cupy.cuda.get_current_stream().__exit__()
    for a, b in zip(*losses, strict=True):
        np.testing.assert_array_equal(a, b)


def test_time_and_memory_are_the_devices_own(cupy: Any) -> None:
    gpu = Gpu()
    assert gpu.peak() == cupy_stand_in.Memory.own
    assert 0 < gpu.timed(lambda: sum(range(1000))) < 1
    machine = gpu.machine("bf16")
    assert machine["name"] == "stand-in" and machine["gflops"] > 0 and machine["gigabytes"] > 0


def test_the_ceiling_is_a_product_of_random_numbers(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ones take less power, and an H200 multiplies them an eighth faster than what networks hold."""
    seen: list[Any] = []
    multiply = cupy.matmul
    monkeypatch.setattr(cupy, "matmul", lambda a, b, out: (seen.append((a.get(), b.get())), multiply(a, b, out=out))[1], raising=False)
    Gpu().machine("float16")
    for factor in seen[0]:
        assert factor.dtype == np.float16 and len(np.unique(factor)) > 1000
        assert abs(factor.mean(dtype=float)) < 0.1 and abs(factor.std(dtype=float) - 1) < 0.1
    assert (seen[0][0] != seen[0][1]).any()


@needs_simulator
@pytest.mark.usefixtures("cupy")
def test_layers_multiply_what_the_peer_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal numbers, not positive ones."""
    seen: list[Any] = []
    monkeypatch.setattr(kernels(), "conv2d", lambda *arguments: seen.extend(arguments[:2]))
    item = {
        "kind": "conv2d",
        "x": [2, 8, 9, 11],
        "y": [2, 16, 9, 11],
        "kernel": (3, 3),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
    }
    layer({**item, "groups": 1})()
    assert len(seen) == 2 and all(abs(a.get().mean()) < 0.1 and abs(a.get().std() - 1) < 0.1 for a in seen)


def test_many_numbers_are_a_million_again_and_again() -> None:
    """All that the layers of a network multiply, three thousand million, would be drawn for minutes."""
    numbers = normal(np.random.default_rng(0), (3, 1 << 18, 4))
    assert numbers.dtype == np.float32 and (numbers == numbers[0]).all() and len(np.unique(numbers)) > 900_000
    assert abs(numbers.mean(dtype=float)) < 0.01 and abs(numbers.std(dtype=float) - 1) < 0.01
    assert normal(np.random.default_rng(0), (0, 4)).shape == (0, 4)


def test_operations_from_the_arguments_of_a_launch() -> None:
    geometry = (2, 3, 9, 8, 5, 4, 3, 2, 1, 1, 0, 0, 1, 1)
    assert operations("conv_forward", (None, None, None, None, 7, 3, 7, *geometry)) == 2 * (2 * 5 * 4) * 7 * 3 * (3 * 2)
    assert operations("conv_weight", (None, None, None, 7, 999, 3, 7, *geometry)) == 2 * (2 * 5 * 4) * 7 * 3 * (3 * 2)
    in_groups = (2, 30, *geometry[2:])
    for kernel in ("conv_transposed", "direct_transposed"):
        assert operations(kernel, (None, None, None, None, 60, 5, 10, *in_groups)) == 2 * (2 * 5 * 4) * 60 * 5 * (3 * 2)
    assert operations("relu", (None, None, 5)) == 0


# -- what is missing is one sentence -------------------------------------------------------------------------------------------------------


def bench(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["bench", "--base", "1", "--shape", "1,3,32,32", "--rounds", "1", *options]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1
    return said.err


def test_without_a_gpu_the_backend_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    if switch.why_no_cupy() == "":
        pytest.skip("there is a GPU")
    assert 'error: bench: backend "cupy"' in bench(capsys, "--backend", "cupy")


def test_options_that_need_a_gpu_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--what kernels times the launches of a step on a GPU one by one: it needs --backend cupy, and no --graph" in bench(
        capsys, "--what", "kernels"
    )
    assert "use --backend cupy, or leave out --graph" in bench(capsys, "--graph")
    with pytest.raises(BackendError, match="leave out --graph"):
        network(Job(base=1, shape=(1, 3, 32, 32), graph=True).told())


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is the peer")
def test_a_pytorch_without_cuda_says_so() -> None:
    torch: Any = importlib.import_module("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    job = json.dumps(Job(**TINY).told(format="compiled"))
    script = Path(__file__).parent / "peers" / "torch_bench.py"
    done = subprocess.run([sys.executable, str(script), job], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert json.loads(done.stdout)["error"] == "--peer torch with --backend cupy needs a PyTorch that is built for CUDA and finds the GPU"


def test_on_a_gpu_pytorch_is_compiled_too_except_for_single_layers() -> None:
    told = Job(**TINY).told()
    assert compare._formats(told) == ("contiguous", "channels_last", "compiled")
    assert compare._formats({**told, "layers": [1]}) == compare._formats(Job().told()) == ("contiguous", "channels_last")
    values = compare._ratios([1.0], [[3.0], [2.0], [1.5]])
    assert (values["peer_format"], values["ratio"]) == ("compiled", 1.5)
