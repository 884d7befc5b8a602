"""Compiles translated kernels with g++ into shared libraries, cached by everything that went into them."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .ptx import is_ptx, translate_ptx
from .translate import SimError, translate

RUNTIME = Path(__file__).resolve().parent / "runtime"
SOURCES = ("runtime.h", "mma.h", "device.h", "ptx.h", "scheduler.h", "scheduler.cpp", "memory_checker.cpp", "warpgroup.cpp", "traffic.cpp")
COMMON = (
    "g++",
    "-std=c++17",
    "-g1",
    "-gdwarf-4",
    "-fno-var-tracking",  # where variables lie, which nobody asks for: half of the time
    "-fPIC",
    "-ffp-contract=off",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-unused",
    f"-I{RUNTIME}",
)
MODES = {
    "fast": ("-O2",),
    "traffic": ("-O2", "-DTRAFFIC", "-fno-optimize-sibling-calls"),
    "check": (
        "-O1",
        "-fsanitize=thread",
        "-fsanitize=bounds-strict,alignment,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow",
        "-fno-sanitize-recover=undefined",
    ),
}


def why_not() -> str:
    """One sentence that says why the simulator cannot run here, or "" if it can."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the CUDA simulator needs an x86-64 processor, this is {platform.machine()}"
    return "" if shutil.which("g++") else "the CUDA simulator needs g++, which is not installed"


@functools.cache
def cache_folder() -> Path:
    """Where libraries are kept: $MINIDCNN_CUDASIM_CACHE, else a folder of the user's cache, else of the temporary files."""
    chosen = os.environ.get("MINIDCNN_CUDASIM_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (
        [Path(chosen)] if chosen else [home / "minidcnn" / "cudasim", Path(tempfile.gettempdir()) / f"minidcnn-cudasim-{os.getuid()}"]
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise SimError("the CUDA simulator finds no folder to keep compiled kernels in; name one in MINIDCNN_CUDASIM_CACHE")


def build(source: str, instances: Sequence[str], options: Sequence[str], mode: str, filename: str) -> tuple[Path, Path, list[str]]:
    """(library, runtime library, kernel names) of a .cu source whose headers are inlined. SimError with g++'s words if it does not compile."""
    if mode not in MODES:
        raise ValueError(f'mode "{mode}" is unknown; use {" or ".join(MODES)}')
    if mode == "traffic" and not is_ptx(source):
        raise ValueError('mode "traffic" counts on what a compiler made: give PTX')
    text, names = translate_ptx(source) if is_ptx(source) else translate(source, instances, filename)
    defines = [o for o in options if o.startswith("-D")]
    runtime_text = [(RUNTIME / name).read_text() for name in SOURCES]

    def make_runtime(out: Path) -> None:
        parts = [str(RUNTIME / name) for name in SOURCES if name.endswith(".cpp")]
        _run([*COMMON, "-O2", "-shared", "-pthread", *parts, "-o", str(out)], "the simulator's runtime")

    def make_headers(out: Path) -> None:
        _run([*COMMON, "-fvisibility=hidden", *MODES[mode], "-x", "c++-header", str(headers), "-o", str(out)], "the simulator's headers")

    # Headers compiled once: each kernel would take a third of a second for them. Where the compiler cannot use that, it reads the text.
    header, key = "ptx.h" if is_ptx(source) else "device.h", [mode, *COMMON, *MODES[mode], *runtime_text]
    headers = cached(key, f"-{header}", lambda out: out.write_text(f'#include "{header}"\n'))
    cached(key, f"-{header}.gch", make_headers)

    # One runtime library for all kernels: its thread-local variables use the little static TLS there is, once.
    runtime = cached([*runtime_text, *COMMON], "-runtime.so", make_runtime)

    def make(out: Path) -> None:
        code, compiled = out.parent / "kernel.cpp", out.parent / "kernel.o"
        code.write_text(text)
        _run(
            [*COMMON, "-fvisibility=hidden", *MODES[mode], *defines, "-include", str(headers), "-c", str(code), "-o", str(compiled)],
            filename,
        )
        _run(["g++", "-shared", str(compiled), str(runtime), "-o", str(out)], filename)  # linked without the sanitizers' libraries

    return cached([text, mode, *defines, *COMMON, *MODES[mode], *runtime_text], ".so", make), runtime, names


def cached(key: Sequence[str], suffix: str, make: Callable[[Path], object]) -> Path:
    """The file made by make(path), made once; safe when several processes do so at the same time."""
    path = cache_folder() / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:20] + suffix)
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            make(Path(folder) / "made")
            os.replace(Path(folder) / "made", path)
    return path


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimError(f"{what} does not compile for the CPU:\n{done.stderr}")
