"""Settings that every optimizer checks the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def not_negative(optimizer: str, group: Mapping[str, Any], *names: str) -> None:
    """ValueError unless the settings `names` are numbers >= 0 (NaN is not)."""
    for name in names:
        if not group[name] >= 0:
            raise ValueError(f"{optimizer}: {name} must not be negative, got {group[name]}")
