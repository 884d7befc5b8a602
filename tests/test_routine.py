"""Routines of CPU kernels: compiled once, called by name, and there before a kernel from the cache is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minidcnn.backend import compiling

MODULE = """
from typing import NamedTuple
import numpy as np
from numba.core import event
from minidcnn.backend.arrays import Array
from minidcnn.backend.cpu.cache import code_of
from minidcnn.backend.cpu.jit import jit
from minidcnn.backend.cpu.routine import python_routine, routine, routines

class Sizes(NamedTuple):
    first: int
    last: int

@routine
def scale(x: Array, factor: int, s: Sizes) -> None:
    for i in range(s.first, s.last):
        x[i] *= factor

@python_routine
def twice(x: Array, s: Sizes) -> None:
    scale(x, 2, s)

@python_routine
def add(x: Array, s: Sizes, amount: int | None) -> None:
    for i in range(s.first, s.last):
        if amount is None:
            x[i] += 100
        else:
            x[i] += amount

@jit
def add_twice(x, first, last, amount):
    s = Sizes(first, last)
    add(x, s, amount)
    add(x, s, None)

@jit
def four_times(x, first, last):
    s = Sizes(first, last)
    twice(x, s)
    scale(x, np.int32(2), s)

class Compiled(event.Listener):
    def __init__(self):
        self.names = []
    def on_start(self, made):
        self.names.append(made.data["dispatcher"].py_func.__name__)
    def on_end(self, made):
        pass

compiled = Compiled()
event.register("numba:compile", compiled)
x = np.arange(6, dtype=np.float32)
"""
RUN = "from kernels import *\nfour_times(x, 1, 4)\nassert x.tolist() == [0, 4, 8, 12, 4, 5]\nprint(*sorted(compiled.names))"


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    # without .pyc files, which do not see a change within a second to as many characters
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernels.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


def out(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_routine_is_compiled_once_whoever_calls_it(folder: Path) -> None:
    assert out(python(folder, RUN)) == ["four_times", "scale", "twice"]


def test_a_kernel_calls_it_by_name_and_does_not_take_it_in(folder: Path) -> None:
    code = (
        "from kernels import *\nfour_times(x, 1, 4)\n"
        "(code,) = map(code_of, four_times.compiled.overloads.values())\n"
        "defined = {f.name for f in code._final_module.functions if not f.is_declaration}\n"
        "asked = {f.name for f in code._final_module.functions if f.is_declaration}\n"
        "print(*sorted(asked & set(routines)), len(defined & set(routines)))"
    )
    assert out(python(folder, code)) == ["kernels.scale", "kernels.twice", "0"]


def test_python_calls_it_with_the_same_types(folder: Path) -> None:
    code = "from kernels import *\ntwice(x, Sizes(np.int64(1), 3))\ntwice(x, Sizes(0, 2))\nprint(*x, *sorted(compiled.names))"
    assert out(python(folder, code)) == ["0.0", "4.0", "4.0", "3.0", "4.0", "5.0", "scale", "twice"]


def test_an_argument_that_may_be_none_makes_two_variants_each_compiled_when_it_is_used(folder: Path) -> None:
    code = (
        "from kernels import *\nadd(x, Sizes(0, 1), None)\nprint(len(compiled.names))\nadd_twice(x, 1, 3, None)\nprint(len(compiled.names))\n"
        "add_twice(x, 1, 3, 7)\nprint(len(compiled.names))\nadd(x, Sizes(5, 6), 3)\nprint(len(compiled.names), *x)"
    )
    assert out(python(folder, code)) == ["1", "2", "4", "4", "100.0", "308.0", "309.0", "3.0", "4.0", "8.0"]
    assert out(python(folder, code)) == ["0", "0", "0", "0", "100.0", "308.0", "309.0", "3.0", "4.0", "8.0"]


def test_another_type_is_an_error_and_no_other_version(folder: Path) -> None:
    done = python(folder, "from kernels import *\ntwice(x.astype('f8'), Sizes(0, 2))")
    assert done.returncode != 0 and "No matching definition" in done.stderr


def test_another_process_reads_kernel_and_routines_from_the_cache(folder: Path) -> None:
    out(python(folder, RUN))
    assert out(python(folder, RUN)) == []


def test_a_routine_that_is_gone_from_the_cache_is_compiled_before_its_kernel_is_loaded(folder: Path) -> None:
    out(python(folder, RUN))
    gone = list((folder / "cache").rglob("kernels.scale*"))
    assert len(gone) == 2  # index and code
    for file in gone:
        file.unlink()
    assert out(python(folder, RUN)) == ["scale"]


def test_a_kernel_from_the_cache_whose_routine_nobody_defines_is_compiled_anew(folder: Path) -> None:
    out(python(folder, RUN))
    assert out(python(folder, RUN.replace("four_times(x", "del routines['kernels.scale']\nfour_times(x", 1)))[0] == "four_times"


def test_changed_source_is_compiled_anew(folder: Path) -> None:
    """Also a constant, which is not part of a function's instructions, and outside the folder of the library's own kernels."""
    out(python(folder, RUN))
    (folder / "kernels.py").write_text(MODULE.replace("scale(x, 2, s)", "scale(x, 3, s)"), encoding="utf-8")
    assert out(python(folder, RUN.replace("[0, 4, 8, 12, 4, 5]", "[0, 6, 12, 18, 4, 5]"))) == ["four_times", "scale", "twice"]


def test_what_is_compiled_is_told_and_what_is_in_the_cache_is_not(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom minidcnn.backend import compiling, kernels\ntold = []\n"
        "with compiling.on_compile(lambda: told.append(1)):\n    kernels().relu(np.ones((1, 64, 99, 99), 'f4'))\n"
        "kernels().relu(np.ones((1, 64, 99, 99), 'f8'))\nprint(len(told))"
    )
    assert [out(python(tmp_path, code)) for _ in range(2)] == [["1"], ["0"]]


def test_what_may_be_compiled_elsewhere_is_told_if_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "LONG", 0.01)
    told = threading.Event()
    with compiling.on_compile(told.set):
        with compiling.told_if_long():
            assert told.wait(60)
        told.clear()
        monkeypatch.setattr(compiling, "LONG", 60)
        with compiling.told_if_long():
            pass
        assert not told.is_set() and not any(isinstance(t, threading.Timer) and not t.finished.is_set() for t in threading.enumerate())
