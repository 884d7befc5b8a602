"""Files are written under a name beside their own: errors name their own, and it may be as long as any."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minidcnn.interop import atomic


@pytest.mark.parametrize("how", ["touch", "chmod", "replace", "write_bytes"])
def test_an_error_never_names_the_temporary_file(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a folder that one may not write."""

    def refuse(path: Path, *args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path), None, *map(str, args if how == "replace" else ()))

    monkeypatch.setattr(Path, how, refuse)
    with pytest.raises(OSError) as told:
        atomic.write_text(tmp_path / "a.txt", "new")
    assert str(told.value) == f"{tmp_path}/a.txt cannot be written: Permission denied"
    assert not list(tmp_path.iterdir())


def test_an_error_about_another_file_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told, atomic.replacing(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_text()
    assert told.value.filename == str(tmp_path / "b.txt")


@pytest.mark.skipif(os.name == "nt", reason="names are shorter there")
@pytest.mark.parametrize("name", ["n" * 251 + ".png", "長" * 83 + ".png"])
def test_the_longest_names_can_be_written(name: str, tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
        temporary.with_name(temporary.name.replace(str(os.getpid()), "4711")).touch()  # of a process that was killed
    atomic.remove_unfinished(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "whole"
    with pytest.raises(OSError, match="File name too long") as told:
        atomic.write_text(tmp_path / f"more{name}", "")
    assert ".tmp" not in str(told.value)


def test_contents_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, fsync = [], os.fsync

    def spy(file: int) -> None:
        there.append((tmp_path / "a").exists())
        fsync(file)

    monkeypatch.setattr(os, "fsync", spy)
    atomic.write_text(tmp_path / "a", "x")
    assert there[0] is False


def test_what_is_synced_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to sync a file that is open for reading only."""
    fcntl = pytest.importorskip("fcntl")
    modes, fsync = [], os.fsync

    def spy(file: int) -> None:
        modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE)
        fsync(file)

    monkeypatch.setattr(os, "fsync", spy)
    atomic.write_text(tmp_path / "a", "x")
    assert modes[0] == os.O_RDWR


def test_names_with_brackets_are_no_patterns(tmp_path: Path) -> None:
    for name in (".a[1].png.7.tmp", ".a1.png.7.tmp"):
        (tmp_path / name).touch()
    atomic.remove_unfinished(tmp_path / "a[1].png")
    assert [path.name for path in tmp_path.iterdir()] == [".a1.png.7.tmp"]


def test_nothing_else_is_taken_for_what_was_left_behind(tmp_path: Path) -> None:
    """Somebody's own hidden files, those of longer names, and whatever lies in sub-folders."""
    (tmp_path / "sub").mkdir()
    others = [".a.png.7.bak", ".a.png.old.7.txt", ".a.pngx.7.tmp", "sub/.a.png.7.tmp"]
    for name in (*others, ".a.png.7.tmp"):
        (tmp_path / name).touch()
    atomic.remove_unfinished(tmp_path / "a.png")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == sorted(others)


def test_two_processes_do_not_write_into_one_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic.replacing(tmp_path / "a") as ours:
        ours.write_text("ours")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 4711)
            atomic.write_text(tmp_path / "a", "theirs")
        assert (tmp_path / "a").read_text() == "theirs" and ours.read_text() == "ours"
    assert (tmp_path / "a").read_text() == "ours"
