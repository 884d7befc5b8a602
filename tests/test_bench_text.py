"""What a benchmark says, line by line, and what it reckons: operations, speeds, ratios, shares, the ceilings of the machine."""

from __future__ import annotations

import ctypes
import json
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from simulated import ON_DEVICE

import minidcnn
from minidcnn.backend import switch
from minidcnn.backend.cpu import matmul, tiled_loops, tiles
from minidcnn.backend.cpu.instructions import LANES
from minidcnn.backend.cpu.threads import num_threads
from minidcnn.bench import Job, compare, device, measure, text, worker
from minidcnn.cli import main

MACHINE = {"threads": 2, "gflops": 234.4, "gigabytes": 23.06}
GPU = {"name": "H200", "gflops": 50_000.0, "gigabytes": 4_000.0}
HEAD = "unet, first layer 8 channels, images 2x3x32x48, float32"


def lines(what: str, *, peer: str | None = None, options: dict[str, Any] | None = None, **values: Any) -> list[str]:
    """The report of a job whose measurement gave `values`."""
    job = Job(what, "unet", (2, 3, 32, 48), 8, **options or {})
    return text({**job.told(), "peer": peer, "rounds": 7, **values}).splitlines()


# -- in words ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "name"), [("step", "training step"), ("infer", "inference")])
def test_a_step_and_its_peer(what: str, name: str) -> None:
    said = lines(
        what, peer="torch", machine=MACHINE, seconds=0.25, gflop=28.94, gflops=115.76, peer_seconds=0.4, peer_format="channels_last",
        ratio=1.62,
    )  # fmt: skip
    assert said == [
        HEAD,
        "this machine: 2 threads, at most 234 GFLOP/s and 23.1 GB/s",
        f"{name}: 250.0 ms, 28.9 GFLOP in convolutions by the definition, 116 a second",
        "torch: 400.0 ms (channels_last); ours is 1.62 times as fast",
    ]


def test_inference_with_weights_that_stay() -> None:
    said = lines("infer", seconds=0.25, gflop=28.94, gflops=115.76, constant_seconds=0.2, constant_gain=1.26)
    assert said[1:] == [
        "inference: 250.0 ms, 28.9 GFLOP in convolutions by the definition, 116 a second",
        "with nn.constant_weights: 200.0 ms, 1.26 times as fast",
    ]


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({"precision": "tf32"}, "float32"),  # of a GPU only
        ({"precision": "bf16", "recompute": True}, "bf16, results computed again instead of kept"),
        ({"precision": "tf32x3"}, "float32"),
        ({"backend": "cupy", "precision": "tf32"}, "tf32 on a GPU"),
        ({"backend": "cupy", "precision": "tf32x3"}, "tf32x3 on a GPU"),
        ({"backend": "cupy", "precision": "float16", "graph": True}, "float16 on a GPU, as a graph"),
    ],
)
def test_how_it_was_measured(options: dict[str, Any], end: str) -> None:
    assert lines("step", options=options, seconds=0.001, gflop=1.0, gflops=1000.0) == [
        f"unet, first layer 8 channels, images 2x3x32x48, {end}",
        "training step: 1.0 ms, 1.0 GFLOP in convolutions by the definition, 1000 a second",
    ]


def test_layers_are_a_table_with_the_peer_on_the_right() -> None:
    """The most expensive in all comes first, not the slowest one."""
    often = {
        "kind": "conv2d", "x": [1, 8, 30, 40], "y": [1, 16, 15, 20], "kernel": [3, 5], "stride": [2, 2], "padding": [1, 2], "times": 4,
        "seconds": 0.002, "gflops": 87.6, "peer_seconds": 0.003, "ratio": 1.5,
    }  # fmt: skip
    once = {
        "kind": "conv_transpose2d", "x": [1, 8, 30, 40], "y": [1, 4, 15, 20], "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0],
        "times": 1, "seconds": 0.00412, "gflops": 9.4, "peer_seconds": 0.00206, "ratio": 0.5,
    }  # fmt: skip
    assert lines("layers", peer="torch", layers=[once, often]) == [
        HEAD,
        "convolution       N,C,H,W -> N,O,H,W                       window         times       ms  GFLOP/s  peer ms  ratio",
        "conv2d            1,8,30,40 -> 1,16,15,20                  3x5/2 p1           4     2.00       88     3.00   1.50",
        "conv_transpose2d  1,8,30,40 -> 1,4,15,20                   2x2/2 p0           1     4.12        9     2.06   0.50",
        "all of them: 12.12 ms; torch: 14.06 ms, ours are 1.16 times as fast",
    ]
    for item in (once, often):
        del item["peer_seconds"], item["ratio"]
    alone = lines("layers", layers=[once, often])
    assert alone[-1] == "all of them: 12.12 ms"
    assert alone[1:3] == [
        "convolution       N,C,H,W -> N,O,H,W                       window         times       ms  GFLOP/s",
        "conv2d            1,8,30,40 -> 1,16,15,20                  3x5/2 p1           4     2.00       88",
    ]


def test_memory_and_the_share_of_the_peers() -> None:
    assert lines("memory", peer="torch", peak=123_400_000, peer_peak=246_800_000, share=0.5) == [
        HEAD, "most memory: 123 MB", "torch: 247 MB; ours needs 0.50 of that",
    ]  # fmt: skip


def test_the_first_step_cold_warm_and_elsewhere() -> None:
    cases = {
        "cold": {"import": 0.25, "first": 9.5, "later": 1.5, "extra": 8.0},
        "warm": {"import": 0.5, "first": 1.75, "later": 2.0, "extra": -0.25},
        "other": {"import": 3.0, "first": 4.0, "later": 2.5, "extra": 1.5},
    }
    assert lines("cold", peer="torch", **cases) == [
        HEAD,
        "nothing compiled: import 0.25 s, first step 9.50 s, later ones 1.50 s (first is +8.00 s)",
        "compiled before: import 0.50 s, first step 1.75 s, later ones 2.00 s (first is -0.25 s)",
        "torch: import 3.00 s, first step 4.00 s, later ones 2.50 s (first is +1.50 s)",
    ]


def test_a_sweep_tells_our_time_before_the_peers() -> None:
    point = {
        "shape": [2, 3, 32, 48],
        "seconds": 0.0125,
        "microseconds": 4.07,
        "peer_seconds": 0.025,
        "peer_microseconds": 8.14,
        "ratio": 2.0,
    }
    assert lines("sweep", peer="torch", points=[point]) == [
        HEAD,
        "microseconds of a training step for each pixel of its images",
        "N,C,H,W                   ms us a pixel      torch  ratio",
        "2,3,32,48               12.5       4.07       8.14   2.00",
    ]
    alone = {key: point[key] for key in ("shape", "seconds", "microseconds")}
    assert lines("sweep", points=[alone])[2:] == ["N,C,H,W                   ms us a pixel", "2,3,32,48               12.5       4.07"]


def test_kernels_and_what_they_achieve() -> None:
    """8 GB in 4 ms are 2000 GB/s, half of what a copy achieves; 40 GFLOP in 4 ms are 10000 GFLOP/s, a fifth of GEMM's."""
    rows = [
        {"kernel": "conv_forward", "launches": 23, "seconds": 0.004, "bytes": 8e9, "operations": 40e9, "of": 0.012},
        {"kernel": "relu", "launches": 18, "seconds": 0.001, "bytes": 3e9, "operations": 0, "of": 0.012},
    ]
    assert lines("kernels", options={"backend": "cupy"}, machine=GPU, kernels=rows) == [
        HEAD + " on a GPU",
        "this GPU: H200, at most 50000 GFLOP/s and 4000.0 GB/s",
        "kernel               launches        ms     GB/s  of copy   GFLOP/s  of GEMM",
        "conv_forward               23     4.000     2000      50%     10000      20%",
        "relu                       18     1.000     3000      75%",
        "these kernels: 5.000 ms of 12.000 ms that the step took while each was timed",
    ]


# -- in numbers, with processes that take as long as they are told -------------------------------------------------------------------------

LAYERS: list[dict[str, Any]] = [  # as far as it counts here
    {"x": [2, 6, 9, 11], "y": [2, 4, 5, 7], "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0], "groups": 2},
    {"x": [2, 4, 5, 7], "y": [2, 3, 5, 7], "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "groups": 1},
]
OPERATIONS = [2 * (2 * 4 * 5 * 7) * 3 * 6, 2 * (2 * 3 * 5 * 7) * 4]
PEERS_TIMES = {"contiguous": 8.0, "channels_last": 6.0}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our process takes 4 seconds, with constant weights 2.5, PyTorch 8 or, in its better format, 6.

    Layer k takes k + 1 times as long, and what comes first, to warm up, 100 seconds.
    """

    class Told(compare.Side):
        def __init__(self, command: list[str], job: dict[str, Any], **environment: str) -> None:
            self.seconds = PEERS_TIMES[job["format"]] if "format" in job else 2.5 if job.get("constant") else 4.0
            self.peak = {8.0: 500, 6.0: 400}.get(self.seconds, 100)
            self.ready = {"layers": LAYERS[:1] * 3 + LAYERS[1:] if job.get("record") else []}
            self.warm: set[int] = set()

        def ask(self, command: str) -> dict[str, Any]:
            return {"machine": MACHINE, "memory": {"peak": self.peak}}[command]

        def run(self, which: int = 0) -> float:
            if which in self.warm:
                return self.seconds * (which + 1)
            self.warm.add(which)
            return 100.0

        def close(self) -> None:
            pass

    monkeypatch.setattr(compare, "Side", Told)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("what", ["step", "infer"])
def test_a_steps_operations_speed_and_ratio(what: str) -> None:
    result = measure(Job(what, "unet", (2, 3, 32, 48), 8), "torch", 1)
    gflop = (3 * OPERATIONS[0] + OPERATIONS[1]) / 1e9
    assert result["gflop"] == pytest.approx(gflop, rel=1e-12) and result["gflops"] == pytest.approx(gflop / 4, rel=1e-12)
    assert (result["seconds"], result["peer_seconds"], result["ratio"], result["peer_format"]) == (4, 6, 1.5, "channels_last")
    constant = {key: value for key, value in result.items() if key.startswith("constant")}
    assert constant == ({"constant_seconds": 2.5, "constant_gain": 1.6} if what == "infer" else {})
    assert result["machine"] == MACHINE and (result["what"], result["peer"], result["rounds"]) == (what, "torch", 1)


def test_a_graph_is_timed_when_it_has_been_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two turns run as they are, the third records, all later ones only launch: those count, however few are asked for."""
    times = iter([9.0, 8.0, 50.0, 2.0, 3.0, 4.0])
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(compare.Side, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(compare.Side, "ready", {"layers": LAYERS}, raising=False)
    monkeypatch.setattr(compare.Side, "ask", lambda self, command: MACHINE if command == "machine" else {"seconds": next(times)})
    monkeypatch.setattr(compare.Side, "close", lambda self: None)
    result = measure(Job("step", "unet", (2, 3, 32, 48), 8, backend="cupy", graph=True), rounds=3, progress=lambda *at: seen.append(at))
    assert result["seconds"] == 3.0 and seen[-1] == (6, 6)


@pytest.mark.usefixtures("told")
def test_each_kind_of_layer_is_measured_once_and_counted_as_often_as_it_occurs() -> None:
    result = measure(Job("layers", "unet", (2, 3, 32, 48), 8), "torch", 1)
    assert [(v["times"], v["seconds"], v["peer_seconds"], v["ratio"]) for v in result["layers"]] == [(3, 4, 6, 1.5), (1, 8, 12, 1.5)]
    for v, layer, operations in zip(result["layers"], LAYERS, OPERATIONS, strict=True):
        assert v.items() >= layer.items() and v["gflops"] == pytest.approx(operations / v["seconds"] / 1e9, rel=1e-12)


@pytest.mark.usefixtures("told")
def test_memory_is_compared_with_the_peers_better_format() -> None:
    result = measure(Job("memory", "unet", (2, 3, 32, 48), 8), "torch", 1)
    assert (result["peak"], result["peer_peak"], result["share"]) == (100, 400, 0.25)
    assert "share" not in measure(Job("memory"), None, 3)


@pytest.mark.usefixtures("told")
def test_a_sweep_reckons_by_the_pixels_of_all_images() -> None:
    job = Job("sweep", "unet", (1, 3, 32, 48), 8, sizes=(16,), batches=(1, 5))
    points = measure(job, "torch", 2)["points"]
    assert [p["shape"] for p in points] == [(1, 3, 16, 16), (1, 3, 32, 48), (5, 3, 32, 48)]
    for p in points:
        n, _, h, w = p["shape"]
        assert p["microseconds"] == pytest.approx(4e6 / (n * h * w)) and p["peer_microseconds"] == pytest.approx(6e6 / (n * h * w))


@pytest.mark.usefixtures("told")
def test_the_command_measures_the_network_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option but those of a graph and a GPU; the usual shape is that of the network."""
    assert main(["bench", "--net", "segnet", "--what", "layers", "--json"]) == 0
    usual = json.loads(capsys.readouterr().out)
    assert (usual["net"], usual["what"], usual["shape"], usual["base"]) == ("segnet", "layers", [1, 3, 360, 480], 64)
    assert usual["classes"] == 11 and (usual["rounds"], usual["peer"], usual["recompute"]) == (7, None, False)
    words = (
        "--net fcn8s --what sweep --shape 2,1,40,56 --base 3 --peer torch --precision bf16 --rounds 2 --recompute --sizes 8,24 --batches 3"
    )
    assert main(["bench", *words.split(), "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert [point["shape"] for point in given.pop("points")] == [[1, 1, 8, 8], [1, 1, 24, 24], [3, 1, 40, 56]]
    assert given == {
        "net": "fcn8s", "what": "sweep", "shape": [2, 1, 40, 56], "base": 3, "peer": "torch", "precision": "bf16", "rounds": 2,
        "recompute": True, "sizes": [8, 24], "batches": [3], "classes": 21, "backend": "numpy", "graph": False,
    }  # fmt: skip


# -- the ceilings of the machine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "per"), [("float32", 1), ("bf16", 2)])
def test_the_ceilings_are_what_is_done_in_a_second(precision: str, per: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says half a second: the operations of all products asked for, each byte of what is copied and of the copy once."""
    done: list[int] = []

    def multiply(
        a: int, a_row: int, a_run: int, runs: int, b: int, to: int, to_row: int, k: int, rows: int, vectors: int, *end: Any
    ) -> None:
        assert runs == 1 and end == (0, 1 if precision == "bf16" else None)
        done.append(2 * per * rows * k * vectors * LANES)

    def half_a_second(run: Callable[[], object]) -> float:
        run()
        return 0.5

    monkeypatch.setattr(matmul, "multiply", multiply)
    monkeypatch.setattr(tiles, "TILES", False)
    monkeypatch.setattr(worker, "fastest", half_a_second)
    tracemalloc.start()
    found = worker.machine(precision)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["threads"] == num_threads() and len(done) == 64 * num_threads()
    assert found["gflops"] == pytest.approx(sum(done) / 0.5 / 1e9, rel=1e-12)
    assert found["gigabytes"] == pytest.approx(most / 0.5 / 1e9, rel=0.01)


def test_the_ceiling_of_tiles_is_what_blocks_of_32_by_32_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two operations for each of the two products of a pair; each block is made, as the sums show."""
    done: list[int] = []
    run = tiled_loops.same_block

    def same_block(a: int, b: int, c: int, k: int, times: int) -> None:
        run(a, b, c, k, times)
        done.append(4 * 32 * 32 * k * times)
        sums = np.ctypeslib.as_array((ctypes.c_float * 1024).from_address(c))
        assert (sums == k).all()  # 1 in float32 is the pair 0, 1

    monkeypatch.setattr(tiled_loops, "same_block", same_block)
    monkeypatch.setattr(tiles, "TILES", True)
    monkeypatch.setattr(worker, "fastest", lambda run: (run(), 0.5)[1])
    found = worker.machine("bf16")
    assert len(done) == 64 * num_threads() and found["gflops"] == pytest.approx(sum(done) / 0.5 / 1e9, rel=1e-12)


def test_the_ceilings_of_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 48^3 operations and 2 x 40 kB, in half a second each."""
    if ON_DEVICE:
        pytest.skip("plays CuPy")
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.make_module())
    monkeypatch.setattr(switch, "_made", {})
    monkeypatch.setattr(device, "PRODUCT", 48)
    monkeypatch.setattr(device, "COPY", 40_000)
    monkeypatch.setattr(device.Gpu, "timed", lambda self, run: (run(), 0.5)[1])
    minidcnn.use("cupy")
    try:
        found = device.Gpu().machine("float32")
    finally:
        minidcnn.use("numpy")
    assert found["gflops"] == pytest.approx(4 * 48**3 / 1e9, rel=1e-12) and found["gigabytes"] == pytest.approx(4 * 40_000 / 1e9, rel=1e-12)
