"""The benchmark command: what it measures and says, on tiny networks, with PyTorch where it is installed."""

from __future__ import annotations

import errno
import importlib.util
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minidcnn
from minidcnn.backend import kernels
from minidcnn.bench import NETS, Job, compare, measure, text
from minidcnn.bench.compare import Side, operations
from minidcnn.bench.worker import TO_THE_END, layer, network, record
from minidcnn.cli import main

TINY: dict[str, Any] = {"base": 4, "shape": (1, 3, 32, 48)}
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is the peer")


def test_the_ratio_is_the_median_of_neighbouring_turns_with_the_better_format() -> None:
    values = compare._ratios([1.0, 2.0, 4.0], [[9.0, 9.0, 9.0], [3.0, 4.0, 20.0]])
    assert values == {"seconds": 2.0, "peer_seconds": 4.0, "peer_format": "channels_last", "ratio": 3.0}


def test_operations_are_counted_by_the_definition() -> None:
    assert operations({"x": [2, 6, 9, 9], "y": [2, 4, 5, 7], "kernel": (3, 2), "groups": 2}) == 2 * (2 * 4 * 5 * 7) * 3 * 6


def test_a_step_records_its_convolutions_and_each_runs_alone() -> None:
    seen = record(network(Job(**TINY).told()))
    kinds = [item["kind"] for item in seen]
    assert kinds.count("conv2d") == 19 + 4  # of the forward pass, and the gradients of four transposed convolutions
    assert kinds.count("conv_transpose2d") == 4 + 18  # the image itself needs no gradient
    assert kinds.count("conv2d_weight") == 23
    for item in {json.dumps(item): item for item in seen}.values():
        expected = {"conv2d": item["y"], "conv_transpose2d": item["x"]}.get(item["kind"])
        result: Any = layer(item)()  # type: ignore[func-returns-value]
        assert list(result.shape) == (expected or [item["y"][1], item["x"][1], *item["kernel"]])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("what", ["step", "infer"])
def test_every_network_is_measured(net: str, what: str) -> None:
    done = []
    result = measure(Job(what, net, (2, 3, 32, 48), 1), rounds=1, progress=lambda *at: done.append(at))
    assert result["seconds"] > 0 and result["gflop"] > 0
    assert done == [(1, 2), (2, 2)]
    said = text(result)
    assert f"{net}, first layer 1 channels, images 2x3x32x48" in said and "GFLOP/s and" in said
    assert (result.get("constant_gain", 0) > 0) == ("with nn.constant_weights" in said) == (what == "infer")


def test_weights_stay_to_the_end_of_an_inference_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIDCNN_CONV", raising=False)
    try:
        for constant, count in ((False, 0), (True, 1)):
            network(Job("infer", "unet", (1, 3, 32, 48), 16).told(constant=constant))()
            blocks = kernels().kept.blocks  # type: ignore[attr-defined]
            assert len(blocks) == count
        assert sum(len(entry.made) for entry in blocks[0].values()) >= 10
    finally:
        TO_THE_END.close()


@needs_torch
def test_pytorch_takes_turns_at_every_layer() -> None:
    table = measure(Job("layers", "unet", (1, 3, 32, 32), 2), "torch", rounds=1)
    assert sum(item["times"] for item in table["layers"]) == 68
    assert all(item["ratio"] > 0 and item["gflops"] > 0 for item in table["layers"])
    assert len(text(table).splitlines()) == 4 + len(table["layers"])


def test_inference_counts_the_convolutions_of_training() -> None:
    """Those joined with batch norm and ReLU too."""
    counts = {}
    for what in ("step", "infer"):
        seen = record(network(Job(what, "unet", (1, 3, 32, 48), 2).told()))
        counts[what] = [item["y"] for item in seen if item["kind"] == "conv2d"][:19]
    assert counts["infer"] == counts["step"]


@needs_torch
def test_pytorch_trains_the_same_networks() -> None:
    """The peer's process with each network, one step; what it says is what a Side reads."""
    for net in NETS:
        side = compare._theirs("torch", Job("step", net, (2, 3, 32, 48), 1).told(format="channels_last"))
        try:
            assert side.run() > 0
            assert side.ask("memory")["peak"] > 1e7
        finally:
            side.close()


def test_memory_is_that_of_a_process_of_its_own() -> None:
    result = measure(Job("memory", "unet", (1, 3, 32, 32), 2))
    assert 1e7 < result["peak"] < 1e10
    assert "most memory: " in text(result)


def test_memory_cannot_be_asked_for_on_windows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert main(["bench", "--what", "memory"]) == 2
    assert capsys.readouterr().err.startswith("error: --what memory asks the system by Python's module resource, which Windows lacks: ")


def test_recomputing_takes_less_memory_and_is_said() -> None:
    """Of arrays, as Python counts them: how much of it is resident is the allocator's business."""

    def peak(recompute: bool) -> int:
        step = network(Job("memory", "unet", (2, 3, 96, 128), 8, recompute).told())
        step()
        tracemalloc.start()
        step()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(True) < 0.7 * peak(False)
    result = {**Job("memory", **TINY, recompute=True).told(), "peer": None, "peak": 123e6}
    assert text(result).splitlines() == [
        "unet, first layer 4 channels, images 1x3x32x48, float32, results computed again instead of kept", "most memory: 123 MB",
    ]  # fmt: skip


def test_a_sweep_measures_each_shape_once_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("sweep", "unet", (1, 3, 32, 32), 2, sizes=(16, 32, 64), batches=(1, 3))
    assert [p.shape for p in job.points()] == [(1, 3, 16, 16), (1, 3, 32, 32), (3, 3, 32, 32), (1, 3, 64, 64)]
    assert {p.what for p in job.points()} == {"step"}
    picture = tmp_path / "sweep.png"
    arguments = ["--base", "2", "--shape", "1,3,32,32", "--sizes", "32,64", "--batches", "1,2", "--rounds", "1"]
    assert main(["bench", "--what", "sweep", *arguments, "--plot", str(picture), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [p["shape"] for p in result["points"]] == [[1, 3, 32, 32], [2, 3, 32, 32], [1, 3, 64, 64]]
    for p in result["points"]:
        assert p["microseconds"] == pytest.approx(1e6 * p["seconds"] / (p["shape"][0] * p["shape"][2] * p["shape"][3]))
    said = text(result).splitlines()
    assert said[1].startswith("microseconds of a training step") and said[3].split()[0] == "1,3,32,32" and len(said) == 6
    with Image.open(picture) as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def test_only_a_sweep_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--plot", "x.png"]) == 2
    assert capsys.readouterr().err == "error: --plot draws a sweep; --what is step\n"


def test_a_sweep_that_cannot_be_drawn_is_refused_at_once_or_printed_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for plot in (tmp_path, tmp_path / "missing" / "x.png", tmp_path / "file" / "x.png"):
        assert main(["bench", "--what", "sweep", "--plot", str(plot)]) == 2  # at once: the usual sweep takes minutes
        assert capsys.readouterr().err.startswith(f"error: --plot {plot} cannot be written: name a file in a folder that exists")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("minidcnn.bench.plot.sweep", full)
    arguments = ["--base", "2", "--shape", "1,3,32,32", "--sizes", "32", "--batches", "1", "--rounds", "1"]
    assert main(["bench", "--what", "sweep", *arguments, "--plot", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr()
    assert "1,3,32,32" in said.out and said.err.endswith(f"error: {tmp_path}/x.png cannot be written: No space left on device\n")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("what", ["infer", "layers"])
def test_a_graph_is_of_a_step(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--what", what, "--graph", "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == f"error: --graph launches a training step as one; --what {what} has none: leave it out\n"


def test_memory_is_not_that_of_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--what", "memory", "--graph", "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == (
        "error: --what memory does not see what a recorded step takes, which has memory of its own: leave out --graph\n"
    )


def test_cold_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Quick(Side):
        def __init__(self, command: list[str], job: dict[str, Any], **environment: str) -> None:
            seen.append(environment)
            self.ready = {"imported": 0.25}
            self.times = [5.0, 1.0, 1.0, 1.0]

        def run(self, which: int = 0) -> float:
            return self.times.pop(0)

        def close(self) -> None:
            pass

    monkeypatch.setattr(compare, "Side", Quick)
    result = measure(Job("cold"))
    assert result["cold"] == result["warm"] == {"import": 0.25, "first": 5.0, "later": 1.0, "extra": 4.0}
    assert len({e["NUMBA_CACHE_DIR"] for e in seen}) == 1  # one new folder for both: cold, then warm
    assert not Path(seen[0]["NUMBA_CACHE_DIR"]).exists()
    assert "nothing compiled: import 0.25 s, first step 5.00 s, later ones 1.00 s (first is +4.00 s)" in text(result)


def test_an_installed_package_says_what_the_peer_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(compare, "PEERS", tmp_path)
    assert main(["bench", "--peer", "torch", "--base", "2", "--shape", "1,3,16,16"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: --peer torch needs a checkout of minidcnn") and len(said.splitlines()) == 1


def test_a_process_that_fails_is_quoted() -> None:
    with pytest.raises(ValueError, match="bench: the process that measures failed: ValueError: UNet: "):
        measure(Job("step", "unet", (1, 3, 16, 16), base=0))


def test_a_process_that_says_much_on_stderr_goes_on_measuring() -> None:
    """More than a pipe holds."""
    code = "import sys\nsys.stderr.write('word ' * 100_000)\nprint('{}', flush=True)\nfor _ in sys.stdin: print('{\"seconds\": 2}', flush=True)"
    side = Side([sys.executable, "-c", code], {})
    try:
        assert side.run() == 2
    finally:
        side.close()


def test_processes_get_ready_side_by_side(tmp_path: Path) -> None:
    """Each waits for the file that the other writes."""
    code = "import pathlib, sys, time\nown, other = map(pathlib.Path, sys.argv[1:3])\nown.touch()\n"
    code += "for _ in range(500):\n    if other.exists(): break\n    time.sleep(0.02)\nelse: sys.exit()\nprint('{}')"
    files = [str(tmp_path / name) for name in "ab"]
    with compare._sides(*(lambda f=f: Side([sys.executable, "-c", code, *f], {}) for f in (files, files[::-1]))) as sides:  # type: ignore[misc]
        assert [side.ready for side in sides] == [{}, {}]


def test_a_format_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """torch.compile, where it does not work: the other formats are compared all the same. What is not optional ends the comparison."""
    code = "print('{}', flush=True)\nfor _ in sys.stdin: print('{\"seconds\": 2, \"peak\": 5}', flush=True)"
    broken = "print('{}', flush=True); sys.stdin.readline(); raise RuntimeError('no compiler')"

    def side(job: dict[str, Any]) -> Side:
        made = Side([sys.executable, "-c", "import sys\n" + (broken if job["format"] == "compiled" else code)], {})
        made.optional = job["format"] == "compiled"
        return made

    told = {"backend": "cupy"}
    monkeypatch.setattr(compare, "_ours", lambda job: side({"format": "ours"}))
    monkeypatch.setattr(compare, "_theirs", lambda peer, job: side(job))
    monkeypatch.setattr(compare, "_script", lambda peer: None)
    monkeypatch.setattr(Job, "told", lambda self, **more: {**told, **more})
    with compare._sides(*compare._makers(told, "torch")) as sides:
        times = [[s.run(), s.run()] for s in sides]
    assert times[:3] == [[2, 2]] * 3 and times[3] == [float("inf")] * 2
    assert compare._ratios(times[0], times[1:])["peer_format"] == "contiguous"
    assert measure(Job("memory", backend="cupy"), "torch")["peer_peak"] == 5
    said = "warning: one side is left out: bench: the process that measures failed: RuntimeError: no compiler\n"
    assert capsys.readouterr().err == said * 2
    with (
        pytest.raises(ValueError, match="no compiler"),
        compare._sides(lambda: Side([sys.executable, "-c", "import sys\n" + broken], {})) as (one,),
    ):
        one.run()


def test_a_process_that_has_ended_says_why() -> None:
    """Killed for want of memory, say, between two turns."""
    side = Side([sys.executable, "-c", "print('{}', flush=True); raise SystemExit('gone')"], {})
    try:
        side.wait()
        side.process.wait()
        with pytest.raises(ValueError, match=r"^bench: the process that measures failed: gone$"):
            side.run()
    finally:
        side.close()


def test_warnings_of_a_process_that_measures_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Slower kernels than those asked for, say: once each, and nothing else of what it says."""
    code = "import warnings\nfor _ in range(2): warnings.warn('slower kernels are used')\nwarnings.warn('old', FutureWarning)\nprint('{}')"
    Side([sys.executable, "-W", "always", "-c", code], {}).close()
    assert capsys.readouterr().err == "warning: slower kernels are used\nwarning: old\n"


def test_the_command_prints_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--base", "2", "--shape", "1,3,32,32", "--rounds", "1"]
    assert main(arguments) == 0
    assert "training step: " in capsys.readouterr().out
    assert main([*arguments, "--json", "--what", "infer"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["what"] == "infer" and result["shape"] == [1, 3, 32, 32] and result["peer"] is None


@pytest.mark.parametrize("shape", ["1,3,16", "1,3,0,16", "a,b,c,d", "1x3x16x16"])
def test_a_wrong_shape_is_refused(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--shape", shape])
    assert "expected four numbers N,C,H,W such as 1,3,256,256" in capsys.readouterr().err


def test_float16_is_measured_and_said() -> None:
    """Images, results and single layers in float16; the loss is scaled."""
    job = Job("step", **TINY, precision="float16")
    try:
        minidcnn.use("numpy", "float16")
        step = network(job.told())
        recorded = record(step)
        assert {item["kind"] for item in recorded} == {"conv2d", "conv_transpose2d", "conv2d_weight"}
        assert layer(recorded[0])().dtype == np.float16  # type: ignore[attr-defined]
    finally:
        minidcnn.use("numpy")
    result = measure(job, None, 1)
    assert ", float16" in text(result)


@pytest.mark.parametrize(("precision", "said"), [("bf16", "bf16"), ("tf32x3", "float32"), ("tf32", "float32")])
def test_bf16_is_measured_and_said_and_tf32_is_float32_here(precision: str, said: str) -> None:
    result = measure(Job("step", "unet", (1, 3, 32, 48), 16, precision=precision), None, 1)
    assert text(result).splitlines()[0].endswith(f", {said}")
    assert result["machine"]["gflops"] > 0


@needs_torch
def test_pytorch_takes_part_in_bf16() -> None:
    """Networks under autocast, layers with factors that are bf16."""
    assert measure(Job("infer", "unet", (1, 3, 32, 48), 16, precision="bf16"), "torch", 1)["ratio"] > 0
    table = measure(Job("layers", "unet", (1, 3, 32, 48), 16, precision="bf16"), "torch", 1)["layers"]
    assert all(item["ratio"] > 0 for item in table)
