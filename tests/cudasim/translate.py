"""From the text of a .cu file to C++ that g++ compiles: __shared__ declarations become macros, and each kernel gets a record.

Everything else is CUDA C++ as it stands; runtime/device.h gives its names a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class SimError(RuntimeError):
    """A kernel does not compile, was launched wrongly, or did something that a GPU would not forgive."""


_TYPE = r"(?:const\s+|unsigned\s+|volatile\s+)*[A-Za-z_][\w:]*(?:<[^;<>]*>)?(?:\s*\*)*"
_ALIGN = r"(?:(?:__align__\s*|alignas)\((?P<align>[^()]*)\)\s+)?"
_DYNAMIC = re.compile(rf"extern\s+__shared__\s+{_ALIGN}(?P<type>{_TYPE})\s*\b(?P<name>\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(rf"__shared__\s+{_ALIGN}(?P<type>{_TYPE})\s*\b(?P<name>\w+)\s*(?P<dims>(?:\[[^\];]*\]\s*)*);")
_KERNEL = re.compile(
    r"(?P<template>template\s*<[^;{}]*?>\s*)?(?:extern\s+\"C\"\s*)?__global__\s+(?:void\s+)?"
    r"(?:__launch_bounds__\s*\((?P<bounds>[^()]*)\)\s*)?(?:void\s+)?(?P<name>\w+)\s*\("
)


def without_comments(source: str) -> str:
    """The source with comments blanked out, line numbers kept."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.S)


def kernel_names(source: str) -> list[str]:
    """The kernels that are no templates."""
    return [m["name"] for m in _KERNEL.finditer(without_comments(source)) if not m["template"]]


def launch_bounds(source: str) -> dict[str, str]:
    """What __launch_bounds__ says, by kernel."""
    return {m["name"]: m["bounds"] for m in _KERNEL.finditer(without_comments(source)) if m["bounds"]}


def translate(source: str, instances: Sequence[str], filename: str) -> tuple[str, list[str]]:
    """(C++, kernels) of a source whose headers are inlined; `instances` names instances of templates, such as "pool<float>".

    SimError for a __shared__ declaration that cannot be read.
    """
    names = [*kernel_names(source), *instances]
    body = _DYNAMIC.sub(r"SIM_DYNAMIC_SHARED(\g<type>, \g<name>);", without_comments(source))
    body = _STATIC.sub(lambda m: f"SIM_SHARED({m['type']}, {m['name']}, {m['dims']}, {m['align'] or 1});".replace("\n", " "), body)
    if left := re.search(r"\b__shared__\b", body):
        line = body[: left.start()].count("\n") + 1
        raise SimError(f"{filename}:{line}: a __shared__ declaration that the simulator cannot read; write one variable per statement")
    records = "".join(
        f'extern "C" __attribute__((visibility("default"))) const sim::Kernel sim_kernel_{i} = sim::Record<&{name}>::make("{name}");\n'
        for i, name in enumerate(names)
    )
    return f'#include "device.h"\n#line 1 "{filename}"\n{body}\n#line 1 "records"\n{records}', names
