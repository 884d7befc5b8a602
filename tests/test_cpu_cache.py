"""Compiled kernels on disk: used again, done without, and written anew where they cannot be read."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest
from cpu_kernels import python


@pytest.mark.parametrize("cache", ["read-only", "no folder"])
def test_kernels_run_where_nothing_can_be_cached(cache: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    if cache == "read-only":
        folder.mkdir()
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    else:
        folder.write_text("a file, where a folder should be", encoding="utf-8")
    code = "x = kernels().relu(np.full((1, 64, 99, 99), -1, 'f4'))\nassert x.max() == 0 == x.min()\nprint('ran')"
    done = python(code, NUMBA_CACHE_DIR=str(folder))
    assert done.stdout.strip() == "ran", done.stderr


def test_a_cache_written_once_is_used_again(tmp_path: Path) -> None:
    code = "kernels().relu(np.ones((1, 64, 99, 99), 'f4'))"
    for _ in range(2):
        assert python(code, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    written = list(tmp_path.rglob("*.nbc"))
    assert len(written) == 1  # one kernel for one combination of types, found the second time


@pytest.mark.parametrize("rest", [b"cminidcnn.backend.cpu.memory\nGone\n.", b""], ids=["names a class that is gone", "is cut off"])
def test_an_index_of_the_cache_that_cannot_be_read_is_written_anew(rest: bytes, tmp_path: Path) -> None:
    code = "kernels().relu(np.ones((1, 64, 99, 99), 'f4'))"
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    (index,) = tmp_path.rglob("*.nbi")
    sound = index.read_bytes()
    version = pickle.dumps(pickle.loads(sound))  # noqa: S301  # numba's, which comes first in the file
    index.write_bytes(version + rest)
    done = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert index.read_bytes() == sound
