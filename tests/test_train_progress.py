"""What a run tells while it goes on: the bar where a person watches, lines that stay, errors as sentences, names in any encoding."""

from __future__ import annotations

import errno
import io
import re
import sys
from typing import Any

import pytest

from minidcnn.segmentation.progress import Progress, any_name_printable, clock, on_terminal, sentence


class Screen(io.StringIO):
    """A stream that is a terminal, or says that it is none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("stream", "watched"),
    [(Screen(True), True), (Screen(False), False), (None, False), (object(), False)],
    ids=["terminal", "file", "none", "cannot tell"],
)
def test_a_bar_is_shown_where_a_person_watches(stream: Any, watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert on_terminal() is watched
    if isinstance(stream, Screen):
        with Progress(4) as progress:
            progress.tell("at work")
        assert ("at work" in stream.getvalue()) == watched
        with Progress(4, shown=not watched) as progress:  # whoever asks for it gets it
            assert progress.shown is not watched


def test_the_bar_counts_from_what_was_done_before(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(8, done=3, shown=True) as progress:
        progress.tell("resumed")
        for _ in range(3):
            progress.step("epoch 2/3", 0.5, 2, 1.0)
        progress.validating("epoch 3/3", 1, 7)
    shown = capsys.readouterr().err
    assert re.search(r" 38%\|[^|]*\| resumed", shown) and re.search(r"epoch 3/3  75%\|[^|]*\| validating 1/7, 0:00 left", shown)
    assert re.search(r"\r +\r$", shown)  # gone in the end


@pytest.mark.parametrize(
    ("images", "seconds", "said"),
    [(25, 2.0, "12 images/s"), (30, 3.0, "10 images/s"), (19, 2.0, "9.5 images/s"), (1, 8.0, "0.12 images/s"), (3, 0.0, "0 images/s")],
)
def test_the_speed_is_that_of_all_steps(images: int, seconds: float, said: str) -> None:
    with Progress(9, shown=False) as progress:
        assert progress.speed == "0 images/s"
        progress.step("epoch 1/1", 0.1, images - 1, seconds / 4)
        progress.step("epoch 1/1", 0.1, 1, seconds * 3 / 4)
        assert progress.speed == said


@pytest.mark.parametrize("shown", [True, False])
def test_lines_go_to_stdout_and_warnings_to_stderr(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is a bar, it is taken away before and drawn again after them."""
    with Progress(4, shown=shown) as progress:
        calls: list[str] = []
        for name in ("clear", "refresh"):
            setattr(progress.bar, name, lambda name=name: calls.append(name))
        progress.say("a line")
        progress.warn("careful")
        assert calls == ["clear", "refresh"] * 2 * shown
    printed = capsys.readouterr()
    assert printed.out == "a line\n" and "warning: careful\n" in printed.err and "a line" not in printed.err


def test_the_time_left_is_zero_before_and_after_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr("minidcnn.segmentation.progress.time.perf_counter", lambda: now[0])
    with Progress(2, shown=False) as progress:
        now[0] = 9.0
        assert progress.left == 0
        for left in (4.0, 0.0):
            progress.step("epoch 1/1", 0.1, 2, 1.0)
            assert progress.left == left


@pytest.mark.parametrize(
    ("seconds", "said"), [(-3, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (3605, "1:00:05"), (36000, "10:00:00")]
)
def test_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b.png"), "a/b.png: No space left on device"),
        (OSError("the disk is gone"), "the disk is gone"),
        (ValueError("its own words"), "its own words"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "out of memory ("),
    ],
    ids=repr,
)
def test_an_error_is_a_sentence(error: BaseException, said: str) -> None:
    assert sentence(error).startswith(said) and (said.endswith("(") or sentence(error) == said)


def test_any_name_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    any_name_printable()
    for stream in streams.values():
        print("\u9053", file=stream, flush=True)
        assert stream.buffer.getvalue() == b"\\u9053\n"  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", None)  # a program without a console
    any_name_printable()
