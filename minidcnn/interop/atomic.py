"""Files that are always whole: whoever reads one, at any moment and after any crash, sees the old contents or the new."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..backend import Array


_LONGEST = 200  # bytes of a target's name in its temporary's; usual file systems know names of 255


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well; after an error, `path` is as it was.

    FileNotFoundError if there is no folder for it, IsADirectoryError if it is one, OSError with its name if it cannot be written, as on a full
    disk.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} cannot be written: there is no folder {target.parent}; make it first")
    temporary = target.with_name(f"{_beginning(target)}{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # of new files here; some writers make private ones
        try:
            yield temporary
            with temporary.open("r+b") as written:  # Windows syncs only what may be written
                os.fsync(written.fileno())  # the contents reach the disk before the name does
            temporary.chmod(mode)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename != str(temporary) and (error.filename is not None or str(target) in str(error)):  # it names its file already
            raise
        raise OSError(f"{target} cannot be written: {error.strerror or error}") from error


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what `replacing` left beside `path` when its process was killed. For files that nobody writes meanwhile."""
    target = Path(path)
    for temporary in target.parent.glob(f"{escape(_beginning(target))}*.tmp"):
        temporary.unlink(missing_ok=True)


def _beginning(target: Path) -> str:
    """Of the temporary file's name, which must not be too long where the target's is not."""
    name = os.fsencode(target.name)
    return f".{target.name if len(name) <= _LONGEST else name[:_LONGEST].decode(errors='ignore')}."


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8, as it is) atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically. OSError if the disk is full."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        try:
            save_file(dict(arrays), temporary, metadata)
        except SafetensorError as error:  # it wraps what the system says
            raise OSError(str(error)) from error
