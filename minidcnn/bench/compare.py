"""Processes that take turns, and what their times come to."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from ..backend.cuda.graph import WARM_UP
from .job import Job

PEERS = Path(__file__).resolve().parent.parent.parent / "tests" / "peers"  # of a checkout: the product itself knows no other library
FORMATS = ("contiguous", "channels_last")  # PyTorch's memory formats; the better one counts
GPU_FORMATS = (*FORMATS, "compiled")  # the last is channels_last with torch.compile
PER_PIXEL = {"microseconds": "seconds", "peer_microseconds": "peer_seconds"}  # of a training step, for each pixel of its images
Progress = Callable[[int, int], None]  # turns done, turns in all


class Side:
    """One process that measures on request. It gets ready while others do.

    optional: if it fails, it is left out with a warning, as if it took for ever.
    """

    optional = failed = False

    def __init__(self, command: list[str], job: dict[str, Any], **environment: str) -> None:
        self.said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # a pipe that nobody empties would stop it
        self.process = subprocess.Popen(
            [*command, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip

    def wait(self) -> None:
        """Until it is `ready`, which is what it says then. ValueError if it never will be."""
        if not hasattr(self, "ready"):
            self.ready = self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        self.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # of a process that has ended, which has no answer
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        return self._answer()

    def run(self, which: int = 0) -> float:
        """Seconds of one turn; infinite from the turn on in which an optional one failed."""
        try:
            return math.inf if self.failed else float(self.ask(f"run {which}")["seconds"])
        except ValueError as error:
            if not self.optional:
                raise
            self.failed = True
            print(f"warning: one side is left out: {error}", file=sys.stderr, flush=True)
            return math.inf

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines() or ["it ended without a word"]
            raise ValueError(f"bench: the process that measures failed: {said[-1]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(f"bench: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process, and pass on what it was warned of: it may be that something else was measured than asked for."""
        with self.said:
            with self.process:
                assert self.process.stdin is not None
                with contextlib.suppress(OSError):
                    self.process.stdin.close()
            self.said.seek(0)
            warned = (match[1] for line in self.said if (match := re.search(r"Warning: (.+)", line)))
            for message in dict.fromkeys(warned):
                print(f"warning: {message}", file=sys.stderr, flush=True)


def _ours(job: dict[str, Any], **environment: str) -> Side:
    tf32 = str(int(job["precision"] == "tf32"))  # of cuBLAS, whose product is the ceiling; our own products do not ask it
    return Side([sys.executable, "-m", "minidcnn.bench.worker"], job, **{"CUPY_TF32": tf32, **environment})


def _theirs(peer: str, job: dict[str, Any]) -> Side:
    side = Side([sys.executable, str(_script(peer))], job)
    side.optional = job["format"] == GPU_FORMATS[-1]  # torch.compile needs more than PyTorch does: Triton, a C compiler
    return side


def _script(peer: str) -> Path:
    script = PEERS / f"{peer}_bench.py"
    if not script.is_file():
        raise ValueError(
            f'--peer {peer} needs a checkout of minidcnn, whose tests hold the same networks in PyTorch, with pip install -e ".[test,bench]"'
        )
    return script


@contextlib.contextmanager
def _sides(*makers: Callable[[], Side]) -> Iterator[list[Side]]:
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(contextlib.closing(make())) for make in makers]
        for side in sides:  # before anything is measured
            side.wait()
        yield sides


def measure(job: Job, peer: str | None = None, rounds: int = 7, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Everything that `text` reports, as plain values. ValueError if options do not fit together, the peer cannot be had or a process fails."""
    if job.graph and job.what in ("infer", "layers"):
        raise ValueError(f"--graph launches a training step as one; --what {job.what} has none: leave it out")
    if job.graph and job.what == "memory":
        raise ValueError("--what memory does not see what a recorded step takes, which has memory of its own: leave out --graph")
    if job.what == "memory" and job.backend == "numpy" and importlib.util.find_spec("resource") is None:
        raise ValueError("--what memory asks the system by Python's module resource, which Windows lacks: measure memory on Linux or macOS")
    if peer:
        _script(peer)  # before anything is measured
    result: dict[str, Any] = {**job.told(), "peer": peer, "rounds": rounds}
    return result | {
        "step": _turns,
        "infer": _turns,
        "layers": _layers,
        "memory": _memory,
        "cold": _cold,
        "sweep": _sweep,
        "kernels": _kernels,
    }[job.what](job, peer, rounds, progress)


def _makers(job: dict[str, Any], peer: str | None) -> list[Callable[[], Side]]:
    makers: list[Callable[[], Side]] = [lambda: _ours(job)]
    if peer:
        makers += [lambda f=f: _theirs(peer, {**job, "format": f}) for f in _formats(job)]  # type: ignore[misc]
    return makers


def _formats(job: dict[str, Any]) -> tuple[str, ...]:
    return GPU_FORMATS if job["backend"] == "cupy" and not job.get("layers") else FORMATS


def _ratios(ours: list[float], theirs: list[list[float]]) -> dict[str, Any]:
    """Median seconds of each side, and the median of the ratios to the peer's better memory format."""
    values: dict[str, Any] = {"seconds": median(ours)}
    if theirs:
        best = min(range(len(theirs)), key=lambda i: median(theirs[i]))
        values["peer_seconds"], values["peer_format"] = median(theirs[best]), GPU_FORMATS[best]
        values["ratio"] = median(b / a for a, b in zip(ours, theirs[best], strict=True))
    return values


def _in_turns(
    sides: list[Side], rounds: int, which: int = 0, first: int = 1, progress: Progress = lambda done, total: None
) -> list[list[float]]:
    """Seconds of each side's turns, one side after the other; the `first` turns warm up and do not count."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(first + rounds):
        for side, of_side in zip(sides, times, strict=True):
            of_side.append(side.run(which))
        progress(turn + 1, first + rounds)
    return [of_side[first:] for of_side in times]


def _turns(job: Job, peer: str | None, rounds: int, progress: Progress, roofline: bool = True) -> dict[str, Any]:
    makers = _makers(job.told(record=True), peer)
    stays = job.what == "infer" and job.backend == "numpy"  # then once more with weights that stay
    first = WARM_UP + 1 if job.graph else 1  # turns that warm up; the last of a graph's records it
    if stays:
        makers.append(lambda: _ours(job.told(constant=True)))
    with _sides(*makers) as sides:
        times = _in_turns(sides, rounds, first=first, progress=progress)
        gflop = sum(map(operations, sides[0].ready["layers"])) / 1e9
        constant = times.pop() if stays else None
        values = _ratios(times[0], times[1:])
        if constant:
            gain = median(a / b for a, b in zip(times[0], constant, strict=True))
            values |= {"constant_seconds": median(constant), "constant_gain": gain}
        values |= {"gflop": gflop, "gflops": gflop / values["seconds"]}
        return values | ({"machine": sides[0].ask("machine")} if roofline else {})


def _sweep(job: Job, peer: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    points, table = job.points(), []
    for k, point in enumerate(points):
        values = _turns(point, peer, rounds, lambda done, total: None, roofline=False)
        n, _, h, w = point.shape
        of_pixel = {key: 1e6 * values[seconds] / (n * h * w) for key, seconds in PER_PIXEL.items() if seconds in values}
        table.append({"shape": point.shape, **values, **of_pixel})
        progress(k + 1, len(points))
    return {"points": table}


def operations(layer: dict[str, Any]) -> int:
    """Multiplications and additions of one convolution by the definition, whichever algorithm it runs on."""
    n, o, oh, ow = layer["y"]
    kh, kw = layer["kernel"]
    return 2 * n * oh * ow * o * (layer["x"][1] // layer["groups"]) * kh * kw  # type: ignore[no-any-return]


def _layers(job: Job, peer: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    with _sides(lambda: _ours(job.told(record=True))) as (side,):
        seen = side.ready["layers"]
        machine = side.ask("machine")
    distinct = list({json.dumps(item): item for item in seen}.values())
    table = []
    with _sides(*_makers(job.told(layers=distinct), peer)) as sides:
        for k, item in enumerate(distinct):
            times = _in_turns(sides, rounds, k)
            values = _ratios(times[0], times[1:])
            table.append({**item, "times": seen.count(item), **values, "gflops": operations(item) / values["seconds"] / 1e9})
            progress(k + 1, len(distinct))
    return {"layers": table, "machine": machine}


def _kernels(job: Job, peer: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    if job.backend != "cupy" or job.graph:
        raise ValueError("--what kernels times the launches of a step on a GPU one by one: it needs --backend cupy, and no --graph")
    with _sides(lambda: _ours(job.told(what="step"))) as (side,):
        values = {"machine": side.ask("machine"), **side.ask("kernels")}
        progress(1, 1)
        return values


def _memory(job: Job, peer: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    peaks = []
    makers = _makers(job.told(), peer)
    for k, make in enumerate(makers):  # one after the other: together they might not fit
        with _sides(make) as (side,):
            for _ in range(3):
                side.run()
            peaks.append(math.inf if side.failed else side.ask("memory")["peak"])
        progress(k + 1, len(makers))
    values: dict[str, Any] = {"peak": peaks[0]}
    if peer:
        values |= {"peer_peak": min(peaks[1:]), "share": peaks[0] / min(peaks[1:])}
    return values


def _cold(job: Job, peer: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Callable[[], Side]]] = [
            (name, lambda: _ours(job.told(), NUMBA_CACHE_DIR=folder, CUPY_CACHE_DIR=folder)) for name in ("cold", "warm")
        ]
        if peer:
            cases.append(("other", lambda: _theirs(peer, job.told(format=FORMATS[1]))))
        for k, (name, make) in enumerate(cases):
            with _sides(make) as (side,):
                first, later = side.run(), median(side.run() for _ in range(3))
                values[name] = {"import": side.ready["imported"], "first": first, "later": later, "extra": first - later}
            progress(k + 1, len(cases))
    return values
