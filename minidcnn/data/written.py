"""Mask values, class names and options as they are written on a command line, and read from it. Nothing in it needs quotes in a shell."""

from __future__ import annotations

import os
import re
import shlex
from argparse import ArgumentTypeError
from typing import Any

from ..words import option_name
from .sample import Value

_MOST = 65535  # of 16 bits; so that colours in six digits, 808080, are never taken for gray


def value_text(value: Value) -> str:
    """ "255", or "255/0/0" for a colour."""
    return str(value) if isinstance(value, int) else "/".join(map(str, value))


def argument_text(value: Any) -> str:
    """ "0,128,255", "background,road": what follows an option."""
    return ",".join(v if isinstance(v, str) else value_text(v) for v in value) if isinstance(value, tuple | list) else str(value)


def option_text(name: str, value: Any) -> str:
    """ "--values 0,128,255": the option called `name` with its value, to be copied."""
    text = argument_text(value)
    between = "=" if text.startswith("-") else " "  # what begins with - would be an option itself
    return f"{option_name(name)}{between}{shell_text(text)}"


def shell_text(text: str, windows: bool = os.name == "nt") -> str:
    """`text` as one word of a shell; on Windows its paths hold backslashes, and only double quotes quote."""
    if re.fullmatch(r"[\w./,:+\\-]+" if windows else r"[\w./,:+-]+", text):
        return text
    if windows:  # a backslash stands for itself except before a quote
        escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), text)
        return f'"{escaped}"'
    return (
        f'"{text}"' if re.fullmatch(r"[\w./,:+ -]*", text) else shlex.quote(text)
    )  # double quotes are understood everywhere, but not around all


def image_size(text: str, way_out: str = "") -> tuple[int, int]:
    """ "360x480" -> (360, 480), "256" -> (256, 256). ArgumentTypeError, with `way_out`, for anything else."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ArgumentTypeError(f"{text!r} is no size: give HEIGHTxWIDTH such as 360x480, or one number for both{way_out}")
    return int(parts[0]), int(parts[-1])


def class_names(text: str) -> tuple[str, ...] | int:
    """ "background,road,car" -> ("background", "road", "car"), "3" -> 3."""
    if text.isdecimal():
        return int(text)
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ArgumentTypeError(f"{text!r} names a class with no name: put one comma and no space between names, as in background,road,car")
    return names


def mask_values(text: str) -> tuple[Value, ...]:
    """ "0,128,255" -> (0, 128, 255), "0/0/0,255/0/0" -> ((0, 0, 0), (255, 0, 0))."""
    return tuple(_mask_value(part.strip()) for part in text.split(","))


def _mask_value(text: str) -> Value:
    if re.fullmatch(r"-?[0-9]+", text) and int(text) <= _MOST:
        return int(text)
    parts = text.split("/")
    if len(parts) == 3 and all(re.fullmatch("[0-9]{1,3}", part) and int(part) <= 255 for part in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    example = "as in 255/0/0"
    if hexadecimal := re.fullmatch("#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text):
        example = "here " + "/".join(str(int(part, 16)) for part in hexadecimal.groups())
    raise ArgumentTypeError(
        f"{text!r} is no mask value: give numbers up to {_MOST} as in 0,128,255, or colours as red/green/blue, {example}"
    )
