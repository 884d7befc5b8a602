"""Files that the system refuses to open or to write: the sentence names the file that was asked for, and the system's own reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidcnn.interop import CheckpointError, WeightsError, load_checkpoint, read_weights, save_weights
from minidcnn.models import UNet


@pytest.mark.parametrize(("read", "error"), [(load_checkpoint, CheckpointError), (read_weights, WeightsError)])
def test_a_file_that_one_may_not_read_is_not_called_missing(
    read: Any, error: type[ValueError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, UNet(1, 2, base=2, depth=1))

    def refused(self: Path, *how: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)  # the superuser may read anything
    with pytest.raises(error, match=r"a\.safetensors cannot be read: Permission denied$"):
        read(path)
