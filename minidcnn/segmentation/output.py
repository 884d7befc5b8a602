"""What the system may withhold from programs: standard output, whose reader ends, as `| head` does, or whose disk is full; and threads."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """What is printed within it is written at its end, where it can be told if that fails, and not when Python exits, where it cannot.

    BrokenPipeError if nobody reads any more, OSError if it cannot be written; another error within it goes first.
    """
    failed = False
    try:
        yield
    except SystemExit:  # of --help
        raise
    except BaseException:
        failed = True
        raise
    finally:
        try:
            if sys.stdout is not None:  # as it is in a program without a console
                sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more, and complain
            if not failed:
                raise


@contextlib.contextmanager
def threads_given() -> Iterator[None]:
    """OSError with a sentence, where Python has a bare RuntimeError, if the system starts no more threads within it."""
    try:
        yield
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise OSError(
            "the system starts no more threads for this program: raise its limit of processes (ulimit -u, --pids-limit of a container) or end "
            "others; a training with --prefetch 0 needs fewer"
        ) from error
