"""What holds for all CPU kernels; each family of them is compared with the reference in a file of its own, test_cpu_*.py."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minidcnn.backend import Kernels
from minidcnn.backend.cpu import CpuKernels, elementwise

ELSEWHERE = {"constant_weights"}  # computes nothing that could be compared: tests/test_constant_weights.py


def overrides() -> list[str]:
    return sorted(name for name in vars(Kernels) | dict(inspect.getmembers(Kernels, inspect.isfunction)) if changed(name))


def changed(name: str) -> bool:
    return not name.startswith("_") and getattr(CpuKernels, name, None) is not getattr(Kernels, name, None)


def test_every_override_is_in_these_tests_and_has_the_signature_of_the_reference() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_cpu_*.py"))
    names = [name for name in overrides() if callable(getattr(Kernels, name))]
    assert len(names) >= 24
    for name in names:
        assert name in ELSEWHERE or source.count(f'"{name}"') >= 2, f"{name} is not compared with the reference"
        assert inspect.signature(getattr(CpuKernels, name)) == inspect.signature(getattr(Kernels, name)), name


def test_a_fast_kernel_is_documented_by_the_reference() -> None:
    for name in overrides():
        if callable(getattr(Kernels, name)):
            assert inspect.getdoc(getattr(CpuKernels, name)), name


def test_the_plain_python_behind_a_kernel_gives_the_same(rng: np.random.Generator) -> None:
    """What numba compiled is what is written: the loops run as Python too."""
    x = rng.standard_normal(50, dtype="f4")
    x[:2] = np.nan, -0.0
    compiled, plain = np.empty_like(x), np.empty_like(x)
    elementwise.relu(x, compiled, 0, 50)
    function: Callable[..., None] = elementwise.relu.function
    function(x, plain, 0, 50)
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize(
    ("variable", "value"), [("MINIDCNN_NUM_THREADS", "0"), ("MINIDCNN_CONV", "fft"), ("MINIDCNN_LANES", "12"), ("MINIDCNN_AMX", "on")]
)
def test_a_training_with_a_wrong_variable_ends_before_it_begins(variable: str, value: str, tmp_path: Path) -> None:
    """One sentence and no folder of a run."""
    command = [sys.executable, str(Path(__file__).parent.parent / "examples" / "train_unet.py"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {variable: value}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.startswith(f"error: {variable} must be ") and done.stderr.count("\n") == 1
