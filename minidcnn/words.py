"""How sentences say numbers, lists and options: one way each, for messages of every room."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """(1, "class") -> "1 class", (2, "class") -> "2 classes"."""
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def some(items: Iterable[object], most: int = 5) -> str:
    """All of them, or the first and how many there are more: ("abcd", 2) -> "a, b and 2 more"."""
    words = list(map(str, items))
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def size(number: int) -> str:
    """Bytes in the unit that makes them readable: 1572864 -> "1.5 MiB"."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):.1f} {unit}"
    return f"{number} bytes"


def option_name(name: str) -> str:
    """An argument as it is called on a command line: "val_fraction" -> "--val-fraction"."""
    return "--" + name.replace("_", "-")
