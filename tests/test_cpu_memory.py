"""The memory of the CPU kernels: where it begins, what it holds, and that it is used again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from cpu_kernels import python

from minidcnn import Tensor, grad
from minidcnn.autograd import owner_of
from minidcnn.backend.cpu import memory
from minidcnn.functional import avg_pool2d


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is about glibc")
@pytest.mark.parametrize(
    ("text", "size"), [("1280K\n", 1280 << 10), ("2M", 2 << 20), ("49152", 49152), ("", 1 << 20), ("?", 1 << 20), (None, 1 << 20)]
)
def test_the_size_of_the_cache(text: str | None, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "size").write_text(text or "")
    where = tmp_path / ("size" if text is not None else "nowhere")
    monkeypatch.setattr(memory, "Path", lambda _: where)
    assert memory.second_level_cache() == size


def test_empty_arrays_start_at_cache_lines() -> None:
    for shape, dtype in (((3, 5), np.float32), ((7,), np.float64), ((), np.uint8)):
        array = memory.empty(shape, dtype)
        assert array.shape == shape and array.dtype == dtype and array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous and array.flags.writeable


def test_an_empty_array_owns_its_memory_so_that_gradients_in_it_are_not_copied() -> None:
    x = Tensor(np.ones((1, 2, 6, 8), np.float32), requires_grad=True)
    (slope,) = grad(avg_pool2d(x, (2, 4)).sum(), x)
    owners = [memory.empty((3, 5)), memory.empty((0, 2)), slope._array]
    assert [owner_of(a).size for a in owners] == [15, 0, 96]
    assert slope._array.ctypes.data % 64 == 0, "a copy lies anywhere"


def test_scratch_memory_holds_no_denormal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and counts that lay in fresh memory are denormal as float32; products with them take 20 times as long."""
    monkeypatch.setattr(memory, "empty", lambda shape: np.full(shape, 1e-40, np.float32))
    scratch = memory.Scratch()
    assert not scratch("a", 7).any()
    scratch("a", 7)[...] = 3
    assert (scratch("a", 5) == 3).all() and not scratch("a", 8).any()


def test_freed_memory_is_used_again_unless_the_environment_says_otherwise() -> None:
    code = (
        "import resource, platform\nkernels()\n"
        "def faults():\n    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for turn in range(12):\n    if turn == 6: before = faults()\n    held = [np.ones(1 << size, 'f4') for size in (18, 20, 22, 24)]\n    del held\n"
        "print(platform.libc_ver()[0], faults() - before)"
    )
    libc, kept = python(code).stdout.split()
    if libc != "glibc":
        pytest.skip("this is about glibc")
    fresh = int(python(code, MINIDCNN_KEEP_MEMORY="0").stdout.split()[1])
    mine = int(python(code, MALLOC_MMAP_THRESHOLD_="131072").stdout.split()[1])
    assert int(kept) * 4 < fresh and int(kept) * 4 < mine
