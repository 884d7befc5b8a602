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

# Notes MINIDCNN_WGMMA and its arguments; fails, hangs or trains as it is told. `import x` fails for the packages in LACKING.
PYTHON = """#!/bin/bash
printf '%s\\037' "${MINIDCNN_WGMMA:-}" "${@//$'\\n'/ }" >>"$NOTES"
printf '\\n' >>"$NOTES"
[[ -n "$FAILING" && "$*" == *$FAILING* ]] && { echo "it is broken"; exit ${CODE:-1}; }
[[ -n "$HANGING" && "$*" == *$HANGING* ]] && { echo "it hangs"; exec sleep 60; }
for package in $LACKING; do [[ "$*" == *"import $package"* ]] && exit 1; done
while [ $# -gt 0 ]; do
    [ "$1" = --out ] && { mkdir -p "$2"; echo weights >"$2/best.safetensors"; }
    shift
done
echo "compute ${GPU-9.0}"
echo "best mean IoU 0.9"
echo "=== 42 passed in 1s ==="
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

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """JOBS=1: one after the other, so that the order is the script's."""
        known = {
            "NOTES": str(self.folder / "notes"),
            "FAILING": "",
            "HANGING": "",
            "LACKING": "",
            "JOBS": "1",
            "CUDA_PATH": str(self.folder),
            "PATH": f"{self.bin}:/usr/bin:/bin",
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), str(self.out), *arguments], cwd=cwd, env={**os.environ, **known, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def run(self, *arguments: str, **environment: str) -> tuple[int, dict[str, str]]:
        """Exit status, and the table printed last: name -> the rest of the line."""
        process = self.start(*arguments, **environment)
        printed, _ = process.communicate(timeout=60)
        last = printed.rpartition("\n\n")[2]
        assert last and (self.out / "table.txt").read_text(errors="replace").endswith(last)
        return process.returncode, dict(line.split(maxsplit=1) for line in last.splitlines())  # type: ignore[misc]

    def asked(self) -> list[list[str]]:
        """What python3 was asked for."""
        return [words for _, words in self.asked_with()]

    def asked_with(self) -> list[tuple[str, list[str]]]:
        """The same, each beside MINIDCNN_WGMMA as it was then."""
        lines = (line.split("\x1f")[:-1] for line in (self.folder / "notes").read_text().split("\n")[:-1])
        return [(wgmma, words) for wgmma, *words in lines]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_everything_in_an_order_that_wastes_nothing(box: Box) -> None:
    box.program("compute-sanitizer")
    status, table = box.run()
    names = list(table)
    assert status == 0 and all(row.startswith("passed") for name, row in table.items() if name != "peer"), {
        k: v for k, v in table.items() if "passed" not in v
    }
    assert names[:3] == ["device", "fragments", "wgmma"] and names[11:13] == ["engine", "streams"]
    files = ["cuda-kernels", "cuda-conv", "cuda-linalg", "half-cuda", "cuda-training", "cuda-norm", "cuda-optim", "cuda-metrics"]
    assert names[3:11] == files
    assert names[13:28] == [f"{what}-{p}" for p in PRECISIONS for what in ("train", "graph")] + [f"same-bits-{p}" for p in PRECISIONS]
    assert names[28:33] == [f"kernels-{p}" for p in PRECISIONS]
    assert names[33:35] == ["kernels-tf32-mma.sync", "kernels-float16-mma.sync"]  # on a GPU that has wgmma
    assert names[35:37] == ["peer", "unet-16-float32"] and names[-3:] == ["memcheck", "racecheck", "initcheck"]
    assert len(names) == 13 + 15 + 7 + 1 + 20 + 3 * 9 + 3  # of three networks not float16 and tf32x3
    assert "layers-tf32x3" in names and not {"unet-4-tf32x3", "unet-4-float16"} & set(names)
    assert table["cuda-kernels"].endswith("42 passed in 1s") and table["train-bf16"].endswith("best mean IoU 0.9")
    assert not table["same-bits-bf16"].split("s   ")[1:]  # cmp has nothing to say
    log = (box.out / "log.txt").read_text()
    assert log.count("\n== ") == len(names) - 1 and "== unet-16-tf32: python3 -m minidcnn bench" in log
    assert sorted(p.name for p in box.out.iterdir()) == ["log.txt", "table.txt"]


def test_mma_sync_and_wgmma_are_judged_apart(box: Box) -> None:
    """On a GPU that has both, tiles of 128 would be wgmma's: so fragments are tested without it, and wgmma with it, whatever is set elsewhere."""
    box.run("tests bench")
    without = [words for wgmma, words in box.asked_with() if wgmma == "0"]
    assert len(without) == 3 and any("tensor or large_tiles" in word for word in without[0])
    assert [words[words.index("--precision") + 1] for words in without[1:]] == ["tf32", "float16"]
    assert {wgmma for wgmma, words in box.asked_with() if words not in without and "tests/test_cuda_wgmma.py" not in words} == {""}
    box.run("fragments wgmma engine", MINIDCNN_WGMMA="0")
    assert [wgmma for wgmma, words in box.asked_with() if "pytest" in words][-3:] == ["0", "1", "0"]


def test_what_is_not_timed_goes_on_side_by_side(box: Box) -> None:
    """A step that hangs keeps nobody from the end, and benchmarks begin when all others have ended."""
    box.program("compute-sanitizer")
    status, table = box.run("fragments cuda-conv cuda-optim engine kernels-float32", "6", JOBS="3", HANGING="-k tensor or")
    assert status == 1 and next(iter(table)) == "device" and set(list(table)[1:4]) == {"cuda-conv", "cuda-optim", "engine"}
    assert table["fragments"].startswith("CUT OFF") and table["kernels-float32"].endswith("no time is left")


def test_every_benchmark_is_one_that_the_command_knows(box: Box) -> None:
    box.run("bench")
    parser = argparse.ArgumentParser()
    bench.arguments(parser)
    jobs = [parser.parse_args(words[3:]) for words in box.asked() if words[:3] == ["-m", "minidcnn", "bench"]]
    assert len(jobs) == 7 + 20 + 3 * 9 and all(job.backend == "cupy" for job in jobs)
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
@pytest.mark.parametrize(
    ("step", "among", "chosen"),
    [
        ("cuda-training", "tests/test_cuda_training.py", ""),
        ("engine", "tests/test_models_on_cupy.py", "cupy and (pool or segnet or optim or gradcheck)"),
    ],
)
def test_tests_are_fit_for_a_device(step: str, among: str, chosen: str, box: Box) -> None:
    """A step as the script runs it, some of its tests, few cases of each, with the stand-in for CuPy where the device would be."""
    box.run(step)
    (words,) = (words for words in box.asked() if among in words)
    root = SCRIPT.parents[2]
    environment = {
        "MINIDCNN_CUDA": "stand-in",
        "HYPOTHESIS_PROFILE": "short",
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    some = ["-k", chosen] if chosen else []
    done = subprocess.run(
        [sys.executable, *words, *some], cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(bool(why_no_simulator()), reason=why_no_simulator() or "runs")
@pytest.mark.parametrize("capability", [(9, 0), (8, 9)])
def test_the_device_says_what_it_is(capability: tuple[int, int], box: Box) -> None:
    """With Python itself, and the stand-in for CuPy: all else depends on these lines. Where there is no wgmma, nothing is compared with it."""
    names = dict(zip(("major", "minor"), capability, strict=True))
    before = f"import simulated, cupy; cupy.cuda.runtime.getDeviceProperties = lambda device: dict({names}, name=b'H200')"
    real = f'MINIDCNN_CUDA=stand-in exec {sys.executable} -c "{before}; $2"'
    box.program("python3", PYTHON.replace("[[", f'[[ "$*" == *"import cupy, minidcnn"* ]] && {{ {real}; }}\n[[', 1))
    status, table = box.run("kernels-tf32 kernels-tf32-mma.sync", PYTHONPATH="")
    assert "H200 compute {}.{} | CuPy ".format(*capability) in table["device"] and "| CUDA 1" in table["device"]
    assert "passed" in table["kernels-tf32"] and ("passed" in table["kernels-tf32-mma.sync"]) == (status == 0) == (capability == (9, 0))


def test_without_a_gpu_nothing_else_is_tried(box: Box) -> None:
    status, table = box.run(FAILING="import cupy, minidcnn")
    assert status == 1 and list(table) == ["device"] and "FAILED 1" in table["device"] and "it is broken" in table["device"]
    assert len(box.asked()) == 1


def test_wrong_results_of_wgmma_leave_the_other_instructions(box: Box) -> None:
    """Networks are timed without it, and it is timed all the same: what is wrong is as fast as what is right."""
    status, table = box.run("tests bench", FAILING="test_cuda_wgmma.py")
    assert status == 1 and "FAILED 1" in table["wgmma"] and "MINIDCNN_WGMMA=0 from here on" in table["without-wgmma"]
    kernels = [(wgmma, words[words.index("--precision") + 1]) for wgmma, words in box.asked_with() if "kernels" in words]
    assert kernels == [*(("0", p) for p in PRECISIONS), ("1", "tf32"), ("1", "float16")]
    assert "passed" in table["kernels-tf32-wgmma"] and "kernels-tf32-mma.sync" not in table


def test_a_failure_is_the_scripts_own_however_slowly_its_table_is_read(box: Box) -> None:
    """A reader that stops at the first failure would end the writer by SIGPIPE, whose status hid the failure on a busy machine."""
    box.program(
        "tail", '#!/bin/bash\n/usr/bin/tail "$@" | while IFS= read -r line; do printf "%s\\n" "$line" || exit 141; sleep 0.02; done\n'
    )
    status, table = box.run("tests", FAILING="test_cuda_wgmma.py")
    assert status == 1 and "FAILED 1" in table["wgmma"]
    assert all(wgmma == "0" for wgmma, words in box.asked_with() if "--net" in words)


@pytest.mark.parametrize(("code", "how"), [("134", "FAILED 134"), ("124", "TOO LONG")])
def test_wgmma_that_crashes_or_hangs_is_not_tried_again(code: str, how: str, box: Box) -> None:
    status, table = box.run("wgmma kernels-tf32 kernels-float16 kernels-tf32-wgmma", FAILING="test_cuda_wgmma.py", CODE=code)
    assert status == 1 and table["wgmma"].startswith(how) and "without-wgmma" in table
    assert table.pop("kernels-tf32-wgmma").startswith("FAILED") and "MINIDCNN_WGMMA=0" in table["without-wgmma"]
    assert "passed" in table["kernels-tf32"] and not any("mma" in name for name in table if name.startswith("kernels-"))


@pytest.mark.parametrize("code", ["2", "3", "4", "5"])
def test_a_step_that_tested_nothing_says_nothing_about_results(code: str, box: Box) -> None:
    """Of pytest's codes only 1 means that tests failed; 4 is a pytest that is too old."""
    status, table = box.run("tests kernels-tf32 kernels-tf32-mma.sync", FAILING="-m pytest", CODE=code)
    assert status == 1 and f"FAILED {code}" in table["fragments"] and f"FAILED {code}" in table["wgmma"]
    assert not {"tensor-cores", "without-wgmma"} & set(table)
    assert "passed" in table["kernels-tf32"] and "passed" in table["kernels-tf32-mma.sync"]


@pytest.mark.parametrize("how", [{"GPU": "9.1"}, {"GPU": "19.0"}, {"MINIDCNN_WGMMA": "0"}])
def test_where_there_is_no_choice_nothing_is_compared(box: Box, how: dict[str, str]) -> None:
    _, table = box.run("bench", **how)
    assert "passed" in table["kernels-float16"] and not any("mma.sync" in name for name in table)


def test_wrong_fragments_leave_times(box: Box) -> None:
    status, table = box.run("fragments unet-16-float32 unet-16-bf16", FAILING="-k tensor or")
    assert status == 1 and "FAILED 1" in table["fragments"] and table["tensor-cores"].endswith("believe times only")
    assert "passed" in table["unet-16-float32"] and "passed" in table["unet-16-bf16"]


@pytest.mark.parametrize(("code", "how"), [("139", "FAILED 139"), ("124", "TOO LONG")])
def test_fragments_that_crash_or_hang_leave_float32(code: str, how: str, box: Box) -> None:
    status, table = box.run("fragments train bench", FAILING="-k tensor or", CODE=code)
    assert status == 1 and table["fragments"].startswith(how) and table["tensor-cores"].startswith("skipped")
    assert "passed" in table["unet-16-float32"] and not any(p in name for name in table for p in ("tf32", "bf16", "float16"))


def test_a_part_that_fails_does_not_end_the_others(box: Box) -> None:
    status, table = box.run("tests train", FAILING="test_on_cupy")
    assert status == 1 and "FAILED 1" in table["engine"] and "passed" in table["streams"] and "passed" in table["train-bf16"]


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
    status, table = box.run("tests train-float32 kernels-tf32 unet-16-float32 sanitizer", LACKING=lacking)
    assert status == 0 and table[row].startswith("skipped") and table[row].endswith(reason)
    assert "passed" in table["unet-16-float32"] and "passed" in table["train-float32"]
    assert ("fragments" in table) == (lacking not in ("hypothesis", "pytest"))
    assert any("--peer" in words for words in box.asked()) == (lacking != "torch")


def test_steps_by_name(box: Box) -> None:
    status, table = box.run("layers-bf16 same-bits-float32")
    assert list(table) == ["device", "same-bits-float32", "peer", "layers-bf16"]
    assert status == 1 and "FAILED" in table["same-bits-float32"]  # nothing was trained


@pytest.mark.parametrize("parts", ["test", "fragments kernels-bf61", "memcheck", "without-wgmma"])
def test_a_name_that_does_not_occur_is_a_failure(parts: str, box: Box) -> None:
    """A lent machine would be started for nothing. memcheck does not occur where compute-sanitizer is not installed."""
    status, table = box.run(parts)
    wrong = parts.split()[-1]
    assert (
        status == 1 and table[wrong].split(maxsplit=4)[0] == "FAILED" and table[wrong].endswith("no such step, or nothing to run it with")
    )
    assert ("passed" in table.get("fragments", "")) == (wrong == "kernels-bf61")


def test_what_fails_beside_pytorch_is_measured_alone(box: Box) -> None:
    status, table = box.run("unet-16-bf16 layers-bf16 kernels-bf16", FAILING="--peer torch", CODE="2")
    assert status == 1 and list(table) == [
        "device",
        "kernels-bf16",
        "peer",
        *(f"{n}-bf16{e}" for n in ("unet-16", "layers") for e in ("", "-alone")),
    ]
    assert all(
        ("FAILED 2" if name in ("unet-16-bf16", "layers-bf16") else "passed") in row for name, row in table.items() if name != "peer"
    )
    alone = [words for words in box.asked() if "bench" in words and "--peer" not in words]
    assert [words[-2:] for words in alone][1:] == [["--shape", "16,3,256,256"]] * 2 and "layers" in alone[2]


def test_a_step_may_be_named_beside_its_part(box: Box) -> None:
    status, table = box.run("train graph-bf16 same-bits-bf16")
    assert status == 0 and len(table) == 1 + 15 and "passed" in table["same-bits-bf16"]


def test_what_says_too_much_does_not_fill_the_log(box: Box) -> None:
    box.program("python3", PYTHON.replace('echo "best', 'seq 1 400000\necho "best'))
    _, table = box.run("engine")
    log = (box.out / "log.txt").read_text()
    assert table["engine"].endswith("42 passed in 1s") and log.count("42 passed") == 2 and "== engine: env" in log
    assert len(log) < 2_100_000 and "\n400000\n" in log


def test_what_is_no_text_is_told_all_the_same(box: Box) -> None:
    box.program("python3", PYTHON.replace('echo "best', r"printf 'warning: \000\377 slower\n'" + '\necho "best'))
    _, table = box.run("kernels-tf32")
    assert table["kernels-tf32"].endswith("42 passed in 1s; first warning: \N{REPLACEMENT CHARACTER} slower")


def test_folders_lie_where_the_caller_stands(box: Box) -> None:
    """And may have spaces; a home where nothing can be kept is replaced, as CuPy would not compile without one."""
    box.program("python3", PYTHON.replace("[[", 'echo "$HOME $PYTHONUSERBASE" >>"$NOTES.home"\n[[', 1))
    box.run("device", HOME=str(box.folder))
    homes = {"HOME": str(box.folder / "none"), "PYTHONUSERBASE": ""}
    box.out = Path("my folder") / "out"
    with box.start("device", cwd=box.folder, **homes) as process:
        process.communicate(timeout=20)
    assert process.returncode == 0 and "device" in (box.folder / box.out / "table.txt").read_text()
    told = [line.split(" ") for line in (box.folder / "notes.home").read_text().splitlines()]
    (first, _), (second, packages) = told[0], told[-1]
    assert first == str(box.folder) and second not in (first, homes["HOME"])
    assert packages == f"{homes['HOME']}/.local" and not Path(second).exists()


def test_another_call_adds_to_what_is_there(box: Box) -> None:
    assert box.run("fragments", FAILING="-k tensor or")[0] == 1
    status, table = box.run("engine")
    assert status == 0 and list(table) == ["device", "engine"]  # its own rows, and its own success
    told = (box.out / "table.txt").read_text()
    assert [line.split()[0] for line in told.splitlines()] == ["device", "fragments", "tensor-cores", "device", "engine"]
    assert "== fragments" in (box.out / "log.txt").read_text()


SOME_TESTS = """
import time

def test_that_passes(): pass
def test_that_is_wrong(): assert 1 + 1 == 3
def test_that_never_ends():
    while True: time.sleep(0.01)
"""


def test_of_a_step_that_hangs_the_table_says_where_and_what_had_failed(box: Box) -> None:
    """With pytest itself: the log has the stack."""
    (box.folder / "tests").mkdir()
    (box.folder / "tests" / "test_some.py").write_text(SOME_TESTS)
    real = f'cd "{box.folder}"; exec {sys.executable} "${{@:1:12}}" tests/test_some.py'
    box.program("python3", PYTHON.replace("[[", f'[[ "$*" == *test_cuda_wgmma.py* ]] && {{ {real}; }}\n[[', 1))
    status, table = box.run("wgmma", "8", PYTHONPATH="")
    assert status == 1 and table["wgmma"].startswith("CUT OFF")
    assert table["wgmma"].endswith("in tests/test_some.py::test_that_never_ends; first tests/test_some.py::test_that_is_wrong FAILED")
    assert 'test_some.py", line 7 in test_that_never_ends' in (box.out / "log.txt").read_text()


def test_of_a_step_that_fails_the_table_says_what_failed_first(box: Box) -> None:
    (box.folder / "tests").mkdir()
    (box.folder / "tests" / "test_some.py").write_text(SOME_TESTS.replace("while True", "for _ in range(3)"))
    real = f'cd "{box.folder}"; exec {sys.executable} "${{@:1:12}}" tests/test_some.py'
    box.program("python3", PYTHON.replace("[[", f'[[ "$*" == *test_cuda_wgmma.py* ]] && {{ {real}; }}\n[[', 1))
    _, table = box.run("wgmma", PYTHONPATH="")
    assert "1 failed, 2 passed in " in table["wgmma"]
    assert table["wgmma"].endswith("; first FAILED tests/test_some.py::test_that_is_wrong - assert (1 + 1) == 3")


def test_what_a_benchmark_was_warned_of_stands_beside_its_numbers(box: Box) -> None:
    box.program("python3", PYTHON.replace('echo "best', 'echo "warning: slower kernels are used"\necho "best'))
    _, table = box.run("kernels-tf32")
    assert table["kernels-tf32"].endswith("42 passed in 1s; first warning: slower kernels are used")


def test_time_that_is_up_ends_a_step_and_skips_the_rest(box: Box) -> None:
    status, table = box.run("tests train", "6", HANGING="-k tensor or")
    assert status == 1 and table["fragments"].startswith("CUT OFF") and table["fragments"].endswith("it hangs")
    assert table["cuda-kernels"].endswith("no time is left") and table["train-float32"].startswith("skipped")
    assert not {"tensor-cores", "without-wgmma"} & set(table)  # nothing is known of what had not enough time
    _, table = box.run("wgmma unet-16-tf32", "6", HANGING="test_cuda_wgmma.py")
    assert table["wgmma"].startswith("CUT OFF") and table["unet-16-tf32"].startswith("skipped")
    assert not {"without-wgmma", "peer"} & set(table)


@pytest.mark.parametrize("number", ["0", "9m", "08", "-1"])
def test_numbers_that_are_none_are_refused(number: str, box: Box) -> None:
    for arguments, jobs in (("device", number), "1"), (("device",), number):
        with box.start(*arguments, JOBS=jobs) as process:
            printed, said = process.communicate(timeout=20)
        assert process.returncode == 2 and not printed and not box.out.exists()
        assert said == f"run.sh: SECONDS and JOBS are whole numbers from 1 on, not '{number}'\n"


@pytest.mark.parametrize("what", ["FOLDER", "TMPDIR"])
def test_where_nothing_can_be_written_nothing_is_tried(what: str, box: Box) -> None:
    (box.folder / "file").touch()
    nowhere = box.folder / "file" / "folder"
    box.out = nowhere if what == "FOLDER" else box.out
    with box.start("device", **({} if what == "FOLDER" else {"TMPDIR": str(nowhere)})) as process:
        printed, said = process.communicate(timeout=20)
    assert process.returncode == 2 and not printed and str(box.folder / "file") in said and len(said.splitlines()) == 1
    assert not (box.folder / "notes").exists()


def test_what_a_step_leaves_behind_ends_with_it(box: Box) -> None:
    """It would go on beside what is timed, and hold memory of the GPU."""
    left = """[[ "$*" == *"-m pytest"* ]] && { (trap "" ABRT TERM; echo $BASHPID >"$NOTES.left"; exec sleep 50) & sleep 0.3; }\n[["""
    box.program("python3", PYTHON.replace("[[", left, 1))
    status, _ = box.run("wgmma")
    assert status == 0
    pid = int((box.folder / "notes.left").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("it goes on")


def test_who_stops_it_gets_the_table_too(box: Box) -> None:
    """And a log that is not too large to come back."""
    box.program("python3", PYTHON.replace('echo "it hangs"', '{ seq 1 400000; echo "it hangs"; }'))
    process = box.start("tests", HANGING="-m pytest", JOBS="2")
    for _ in range(400):
        running = [p.read_bytes() for p in (box.out / "running").glob("*")]
        if len(running) == 2 and all(said.endswith(b"it hangs\n") for said in running):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert printed.endswith((box.out / "table.txt").read_text())
    assert sorted(line.split()[:2] for line in printed.splitlines()[-2:]) == [["fragments", "stopped"], ["wgmma", "stopped"]]
    log = (box.out / "log.txt").read_text()
    assert log.count("it hangs") == 2 and "== fragments" in log and not (box.out / "running").exists()
    assert len(log) < 2_100_000
