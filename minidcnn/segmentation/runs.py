"""The folder of a training run: what lies in it, finding it again, never writing over one unasked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..interop.atomic import remove_unfinished, write_text
from .config import TrainConfig

if sys.platform != "win32":
    import fcntl

RUNS = Path("runs")  # where runs without --out go


class RunFolder:
    """config.json, metrics.jsonl (one object per epoch), curves.png, predictions.png, last.safetensors, best.safetensors."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.curves = self.path / "curves.png"
        self.predictions = self.path / "predictions.png"
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self._made = False  # by this object; a folder that was there before stays, whatever becomes of the run
        self._begun = False  # its files are this run's, and may be discarded

    @property
    def holds_a_run(self) -> bool:
        """Whether any file of a run is there."""
        return any(file.exists() for file in (self.config, self.metrics, self.last, self.best))

    @property
    def pictures_are_old(self) -> bool:
        """Whether a picture is missing, or was drawn before the state was last saved."""
        return not all(p.exists() and p.stat().st_mtime_ns >= self.last.stat().st_mtime_ns for p in (self.curves, self.predictions))

    @property
    def _files(self) -> tuple[Path, ...]:
        return self.config, self.metrics, self.curves, self.predictions, self.last, self.best

    def __str__(self) -> str:
        return str(self.path)

    # -- making and finding ----------------------------------------------------------------------------------------------

    @classmethod
    def new(cls, out: str | None, name: str) -> RunFolder:
        """The folder `out`, made if need be, or a fresh runs/NAME-N. ValueError if `out` holds a run, or is no folder."""
        if out is None:
            RUNS.mkdir(parents=True, exist_ok=True)
            number = 1 + max((_number(path, name) for path in RUNS.iterdir()), default=0)
            while True:  # another run may take the number between looking and making
                folder = cls(RUNS / f"{name}-{number}")
                try:
                    folder.path.mkdir()
                    folder._made = True
                    return folder
                except FileExistsError:
                    number += 1
        folder = cls(out)
        if folder.path.exists() and not folder.path.is_dir():
            raise ValueError(f"--out {out} is a file, not a folder; choose another place for the run")
        folder.demand_no_run()
        folder._made = not folder.path.exists()
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    @classmethod
    def found(cls, out: str | None, name: str) -> RunFolder:
        """The run to resume: in `out`, or the latest of runs/NAME*. ValueError if there is none."""
        if out is not None:
            folder = cls(out)
            if not folder.config.is_file():
                what = "holds no run (no config.json)" if folder.path.is_dir() else "does not exist"
                raise ValueError(f"{out} {what}, so that there is nothing to resume; leave --resume out to start a run there")
            return folder
        runs = [cls(path) for path in sorted(RUNS.glob(f"{name}-*"))] if RUNS.is_dir() else []
        runs = [run for run in runs if run.config.is_file()]
        if not runs:
            raise ValueError(f"there is no run {RUNS / name}-* to resume; say where it lies with --out, or leave --resume out to start one")
        return max(runs, key=lambda run: max(f.stat().st_mtime_ns for f in (run.config, run.last) if f.exists()))

    def demand_no_run(self) -> None:
        """ValueError if a run is there."""
        if self.holds_a_run:
            raise ValueError(f"{self} holds a run already{self._progress()}; add --resume to go on with it, or choose another --out")

    @contextmanager
    def claimed(self, resume: bool) -> Iterator[None]:
        """In the block, no other process can claim the folder; what a killed one was writing is removed.

        The claim is a lock on the folder itself, which leaves no file behind and ends with the process, however that ends. Where there are
        no such locks (Windows, some network drives), nothing is claimed. ValueError if another process has it, or without `resume`, if a run
        is there by now.
        """
        lock = _lock(self.path)
        try:
            if not resume:
                self.demand_no_run()
            for file in self._files:
                remove_unfinished(file)
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def _progress(self) -> str:
        """How far the run has come, for a sentence; "" where that cannot be read."""
        try:
            epochs = TrainConfig.from_json(_text(self.config)).epochs
            done = len(self.read_metrics())
        except (OSError, ValueError):
            return ""
        return f" ({done} of {epochs} epochs)"

    def discard(self) -> None:
        """Leave nothing behind of a run that came to nothing: no file that it wrote, and no folder that was made for it and holds nothing else."""
        with suppress(OSError):  # of a folder that holds other things, or cannot be written any more
            for file in self._files if self._begun else ():
                file.unlink(missing_ok=True)
            if self._made:
                self.path.rmdir()

    # -- reading and writing -----------------------------------------------------------------------------------------------

    def read_config(self) -> TrainConfig:
        """The run's options. ValueError if the file holds something else."""
        return TrainConfig.from_json(_text(self.config), self.config)

    def write_config(self, config: TrainConfig) -> None:
        """Write the options to config.json. From then on the folder's files are this run's."""
        self._begun = True
        write_text(self.config, config.to_json())

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dict per epoch; none without the file. ValueError that names the line which is no JSON object."""
        if not self.metrics.exists():
            return []
        history = []
        for number, line in enumerate(_text(self.metrics).splitlines(), 1):
            try:
                entry = json.loads(line)
                int(entry["epoch"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{self.metrics}, line {number}, is not the JSON object of an epoch; remove the line to go on") from error
            history.append(entry)
        return history

    def write_metrics(self, history: Sequence[dict[str, Any]]) -> None:
        """All epochs, a JSON object per line; the file is replaced whole, so that no reader ever sees half a line."""
        write_text(self.metrics, "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in history))


def _lock(folder: Path) -> int | None:
    """An open file that locks the folder, until it is closed; None where there are no such locks."""
    if sys.platform == "win32":
        return None
    lock = None
    try:
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise ValueError(f"another process is training in {folder}; wait until it ends, or choose another --out") from None
        return None
    return lock


def _text(path: Path) -> str:
    """What the file holds, in UTF-8; of a damaged file something that is no JSON."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _number(path: Path, name: str) -> int:
    """N of a folder NAME-N, else 0."""
    start, _, number = path.name.rpartition("-")
    return int(number) if start == name and number.isdecimal() else 0
