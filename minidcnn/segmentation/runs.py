"""The folder of a training run: what lies in it, finding it again, never writing over one unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..interop.atomic import remove_unfinished, write_text
from .config import TrainConfig

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

    @property
    def holds_a_run(self) -> bool:
        """Whether any file of a run is there."""
        return any(file.exists() for file in (self.config, self.metrics, self.last, self.best))

    @property
    def pictures_are_old(self) -> bool:
        """Whether a picture is missing, or was drawn before the state was last saved."""
        return not all(p.exists() and p.stat().st_mtime_ns >= self.last.stat().st_mtime_ns for p in (self.curves, self.predictions))

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
                    return folder
                except FileExistsError:
                    number += 1
        folder = cls(out)
        if folder.path.exists() and not folder.path.is_dir():
            raise ValueError(f"--out {out} is a file, not a folder; choose another place for the run")
        if folder.holds_a_run:
            raise ValueError(f"{out} holds a run already{folder._progress()}; add --resume to go on with it, or choose another --out")
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    @classmethod
    def found(cls, out: str | None, name: str) -> RunFolder:
        """The run to resume: in `out`, or the latest of runs/NAME*, without what a killed process was writing. ValueError if there is none."""
        if out is not None:
            folder = cls(out)
            if not folder.config.is_file():
                what = "holds no run (no config.json)" if folder.path.is_dir() else "does not exist"
                raise ValueError(f"{out} {what}, so that there is nothing to resume; leave --resume out to start a run there")
            return folder._without_unfinished()
        runs = [cls(path) for path in sorted(RUNS.glob(f"{name}-*"))] if RUNS.is_dir() else []
        runs = [run for run in runs if run.config.is_file()]
        if not runs:
            raise ValueError(f"there is no run {RUNS / name}-* to resume; say where it lies with --out, or leave --resume out to start one")
        latest = max(runs, key=lambda run: max(f.stat().st_mtime_ns for f in (run.config, run.last) if f.exists()))
        return latest._without_unfinished()

    def _without_unfinished(self) -> RunFolder:
        for file in (self.config, self.metrics, self.curves, self.predictions, self.last, self.best):
            remove_unfinished(file)
        return self

    def _progress(self) -> str:
        """How far the run has come, for a sentence; "" where that cannot be read."""
        try:
            epochs = TrainConfig.from_json(_text(self.config)).epochs
            done = len(self.read_metrics())
        except (OSError, ValueError):
            return ""
        return f" ({done} of {epochs} epochs)"

    def discard_if_empty(self) -> None:
        """Leave nothing behind of a run that could not begin."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def discard(self) -> None:
        """Leave nothing behind of a run that came to nothing: its options, and the folder if that is all it holds."""
        self.config.unlink(missing_ok=True)
        self.discard_if_empty()

    # -- reading and writing -----------------------------------------------------------------------------------------------

    def read_config(self) -> TrainConfig:
        """The run's options. ValueError if the file holds something else."""
        return TrainConfig.from_json(_text(self.config), self.config)

    def write_config(self, config: TrainConfig) -> None:
        """Write the options to config.json."""
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


def _text(path: Path) -> str:
    """What the file holds, in UTF-8; of a damaged file something that is no JSON."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _number(path: Path, name: str) -> int:
    """N of a folder NAME-N, else 0."""
    start, _, number = path.name.rpartition("-")
    return int(number) if start == name and number.isdecimal() else 0
