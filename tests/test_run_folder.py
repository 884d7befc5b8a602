"""The folder of a run: claimed by one process at a time, and as it was before when a run comes to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import training

from minidcnn.segmentation import command, runs
from minidcnn.segmentation.options import Request
from minidcnn.segmentation.runs import RunFolder

locks = pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
HOLD = "import sys; from minidcnn.segmentation import RunFolder\nwith RunFolder(sys.argv[1]).claimed(False):\n    print('claimed', flush=True); input()"


@locks
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_is_claimed_by_one_process_and_free_when_that_is_killed(resume: bool, tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "unet")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "claimed\n"
        (folder.path / ".last.safetensors.4711.tmp").touch()
        with pytest.raises(ValueError, match=r"another process is training in .*run; wait until it ends, or choose another --out"):
            folder.claimed(resume).__enter__()
        assert (folder.path / ".last.safetensors.4711.tmp").exists()  # which the other one may be writing
        other.kill()
    with folder.claimed(resume):
        assert not list(folder.path.iterdir())
    with folder.claimed(resume):  # a claim ends with its block
        pass


def test_a_run_that_another_process_began_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and claiming; and where there are no locks, while the data were read."""
    out = str(tmp_path / "run")
    folder, other = RunFolder.new(out, "unet"), RunFolder.new(out, "unet")
    other.write_config(training.options(seed=5))
    with pytest.raises(ValueError, match=r"run holds a run already \(0 of 2 epochs\); add --resume"):
        folder.claimed(resume=False).__enter__()
    monkeypatch.setattr(command, "open_data", lambda config: training.cells())
    with pytest.raises(ValueError, match="run holds a run already"):
        command.make_trainer(Request(training.options(), folder, False), lambda data, options: training.unet(data))
    folder.discard()
    assert other.read_config().seed == 5  # it is not ours to throw away


@locks
def test_a_folder_that_knows_no_locks_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(runs.fcntl, "flock", unsupported)
    folder = RunFolder.new(str(tmp_path / "run"), "unet")
    with folder.claimed(resume=False), RunFolder(folder.path).claimed(resume=False):
        pass


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    """With its permissions, and if it is a link or a volume, which cannot be removed."""
    (tmp_path / "before").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("before")
    for name in ("before", "link", "new"):
        folder = RunFolder.new(str(tmp_path / name), "unet")
        folder.write_config(training.options())
        folder.write_metrics([{"epoch": 1}])
        folder.best.touch()
        folder.discard()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "link"] and not list((tmp_path / "before").iterdir())


def test_other_files_in_a_folder_stay(tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "unet")
    (folder.path / "notes.txt").touch()
    folder.write_config(training.options())
    folder.discard()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
