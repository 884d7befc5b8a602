"""tests/gpu/run.sh without a GPU: a python3 that only notes what it is asked for shows which steps run, in which order, and what the table says."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cudasim.build import why_not as why_no_simulator

from minidcnn.backend import PRECISIONS
from minidcnn.cli import bench

SCRIPT = Path(__file__).parent / "gpu" / "run.sh"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("bash", "timeout", "cmp"))), reason="needs bash and GNU coreutils"
)

# Notes its arguments; fails, hangs or trains as it is told. `import x` fails for the packages in LACKING.
PYTHON = """#!/bin/bash
printf '%s\\037' "${@//$'\\n'/ }" >>"$NOTES"
printf '\\n' >>"$NOTES"
[[ -n "$FAILING" && "$*" == *$FAILING* ]] && { echo "it is broken"; exit 3; }
[[ -n "$HANGING" && "$*" == *$HANGING* ]] && { echo "it hangs"; exec sleep 60; }
for package in $LACKING; do [[ "$*" == *"import $package"* ]] && exit 1; done
while [ $# -gt 0 ]; do
    [ "$1" = --out ] && { mkdir -p "$2"; echo weights >"$2/best.safetensors"; }
    shift
done
echo "42 passed in 1s"
"""


class Box:
    """A folder with a python3 of its own, in which the script runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.bin = folder, folder / "out", folder / "bin"
        self.bin.mkdir()
        self.program("python3", PYTHON)

    def program(self, name: str, text: str = "#!/bin/sh\necho 'no findings'\n") -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        known = {"NOTES": str(self.folder / "notes"), "FAILING": "", "HANGING": "", "LACKING": "", "PATH": f"{self.bin}:/usr/bin:/bin"}
        return subprocess.Popen(
            ["bash", str(SCRIPT), str(self.out), *arguments], env={**os.environ, **known, **environment}, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, dict[str, str]]:
        """Exit status, and the table printed last: name -> the rest of the line."""
        process = self.start(*arguments, **environment)
        printed, _ = process.communicate(timeout=60)
        last = printed.rpartition("\n\n")[2]
        assert last == (self.out / "table.txt").read_text()
        return process.returncode, dict(line.split(maxsplit=1) for line in last.splitlines())  # type: ignore[misc]

    def asked(self) -> list[list[str]]:
        """What python3 was asked for."""
        return [line.split("\x1f")[:-1] for line in (self.folder / "notes").read_text().split("\n")[:-1]]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_everything_in_an_order_that_wastes_nothing(box: Box) -> None:
    box.program("compute-sanitizer")
    status, table = box.run()
    names = list(table)
    assert status == 0 and all(row.startswith("passed") for row in table.values()), table
    assert names[:6] == ["device", "fragments", "wgmma", "kernels", "engine", "streams"]
    both = {"tf32": ["kernels-tf32-mma.sync"], "float16": ["kernels-float16-mma.sync"]}  # on a GPU that has wgmma
    assert names[6:12] == [name for p in PRECISIONS for name in (f"kernels-{p}", *both.get(p, []))] and names[12] == "unet-16-float32"
    assert names[-3:] == ["memcheck", "racecheck", "initcheck"] and names[-4] == "same-bits-float16"
    assert len(names) == 6 + 6 + 16 + 3 * 9 + 12 + 3
    assert table["kernels"].endswith("42 passed in 1s")
    log = (box.out / "log.txt").read_text()
    assert log.count("\n== ") == len(names) and "== unet-16-tf32: python3 -m minidcnn bench" in log
    assert sorted(p.name for p in box.out.iterdir()) == ["log.txt", "table.txt"]


def test_every_benchmark_is_one_that_the_command_knows(box: Box) -> None:
    box.run("bench")
    parser = argparse.ArgumentParser()
    bench.arguments(parser)
    jobs = [parser.parse_args(words[3:]) for words in box.asked() if words[:3] == ["-m", "minidcnn", "bench"]]
    assert len(jobs) == 6 + 16 + 3 * 9 and all(job.backend == "cupy" for job in jobs)
    assert not any(job.graph and job.peer for job in jobs)  # PyTorch is not measured twice
    assert {job.what for job in jobs if not job.peer} == {"kernels", "step"} and {job.what for job in jobs if job.peer} == {
        "step",
        "memory",
        "layers",
    }
    assert {job.precision for job in jobs} == set(PRECISIONS)


def test_every_file_of_tests_is_there(box: Box) -> None:
    box.run("tests")
    files = {word for words in box.asked() for word in words if word.startswith("tests/")}
    assert len(files) > 6 and all((SCRIPT.parents[2] / file).is_file() for file in files)
    prepared = {f"tests/{p.name}" for p in SCRIPT.parents[1].glob("test_*.py") if "    if not ON_DEVICE:" in p.read_text(encoding="utf-8")}
    assert len(prepared) > 3 and prepared <= files | {f"tests/{Path(__file__).name}"}


@pytest.mark.skipif(bool(why_no_simulator()), reason=why_no_simulator() or "runs")
@pytest.mark.parametrize(("step", "among"), [("kernels", "tests/test_cuda_training.py"), ("engine", "tests/test_models_on_cupy.py")])
def test_tests_are_fit_for_a_device(step: str, among: str, box: Box) -> None:
    """A step as the script runs it, few cases of each, with the stand-in for CuPy where the device would be."""
    box.run(step)
    (words,) = (words for words in box.asked() if among in words)
    root = SCRIPT.parents[2]
    chosen = {
        "MINIDCNN_CUDA": "stand-in",
        "HYPOTHESIS_PROFILE": "short",
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run([sys.executable, *words], cwd=root, env={**os.environ, **chosen}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_without_a_gpu_nothing_else_is_tried(box: Box) -> None:
    status, table = box.run(FAILING="import cupy, minidcnn")
    assert status == 1 and list(table) == ["device"] and "FAILED 3" in table["device"] and "it is broken" in table["device"]
    assert len(box.asked()) == 1


def test_wrong_results_of_wgmma_leave_the_other_instructions(box: Box) -> None:
    status, table = box.run(FAILING="test_cuda_wgmma.py")
    assert status == 1 and "FAILED 3" in table["wgmma"] and "MINIDCNN_WGMMA=0" in table["without-wgmma"]
    assert "passed" in table["kernels-tf32"] and not any("mma.sync" in name for name in table)


@pytest.mark.parametrize("how", [{"FAILING": "raise SystemExit"}, {"MINIDCNN_WGMMA": "0"}])
def test_where_there_is_no_choice_nothing_is_compared(box: Box, how: dict[str, str]) -> None:
    _, table = box.run("bench", **how)
    assert "passed" in table["kernels-float16"] and not any("mma.sync" in name for name in table)


def test_wrong_fragments_leave_float32(box: Box) -> None:
    status, table = box.run(FAILING="-k tensor or")
    assert status == 1 and "FAILED 3" in table["fragments"] and table["tensor-cores"].startswith("skipped")
    assert "passed" in table["unet-16-float32"] and not any(p in name for name in table for p in ("tf32", "bf16", "float16"))


def test_a_part_that_fails_does_not_end_the_others(box: Box) -> None:
    status, table = box.run("tests train", FAILING="test_on_cupy")
    assert status == 1 and "FAILED 3" in table["engine"] and "passed" in table["streams"] and "passed" in table["train-bf16"]


@pytest.mark.parametrize(
    ("lacking", "row", "reason"),
    [
        ("hypothesis", "tests", "hypothesis is not installed"),
        ("pytest", "sanitizer", "pytest is not installed"),
        ("torch", "peer", "no PyTorch that finds the GPU is installed: nothing is compared"),
        ("", "sanitizer", "compute-sanitizer is not installed"),
    ],
)
def test_what_is_missing_is_skipped_with_the_reason(box: Box, lacking: str, row: str, reason: str) -> None:
    status, table = box.run(LACKING=lacking)
    assert status == 0 and table[row].startswith("skipped") and table[row].endswith(reason)
    assert "passed" in table["unet-16-float32"] and "passed" in table["train-float32"]
    assert ("fragments" in table) == (lacking not in ("hypothesis", "pytest"))
    assert any("--peer" in words for words in box.asked()) == (lacking != "torch")


def test_steps_by_name(box: Box) -> None:
    status, table = box.run("layers-bf16 same-bits-float32")
    assert list(table) == ["device", "layers-bf16", "same-bits-float32"]
    assert status == 1 and "FAILED" in table["same-bits-float32"]  # nothing was trained


def test_time_that_is_up_ends_a_step_and_skips_the_rest(box: Box) -> None:
    status, table = box.run("tests train", "4", HANGING="-k tensor or")
    assert status == 1 and table["fragments"].startswith("TOO LONG") and table["fragments"].endswith("it hangs")
    assert table["kernels"].endswith("no time is left") and table["train-float32"].startswith("skipped")


def test_who_stops_it_gets_the_table_too(box: Box) -> None:
    process = box.start("tests", HANGING="-k tensor or")
    table = box.out / "table.txt"
    for _ in range(200):
        if (box.folder / "notes").is_file() and "tensor" in (box.folder / "notes").read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert printed.endswith(table.read_text()) and printed.splitlines()[-1].split()[:2] == ["fragments", "stopped"]
