"""Whether CuPy and its GPU can be used here, and if not, one sentence that says why and how to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from typing import Any

#: Lowest compute capability for which the kernels are compiled in the tests (Turing, 2018), and the first with the tensor cores of kernels/mma.cuh.
LOWEST, TENSOR_CORES = (7, 5), (8, 0)
CUDA = (12, 13)  # major versions of CUDA for which there are wheels of the CuPy that we need
PACKAGES = (
    "cupy",
    "amd-cupy",
    *(f"cupy-cuda{v}x" for v in range(11, 15)),
    *(f"cupy-cuda{v}" for v in (102, *range(110, 118))),
    "cupy-rocm-5-0",
)

_found: Any = None  # the module `cupy`, once it was found to work


class BackendError(RuntimeError):
    """The backend that was asked for cannot be had; the message says what is missing, or set wrongly, and what to do."""


def why_no_cupy() -> str:
    """One sentence that says why the cupy backend cannot be used here and how to mend it, or "" if it can. That is found out once."""
    global _found
    if _found is not None and sys.modules.get("cupy") is _found:  # every upload asks
        return ""
    reason = _why_not()
    _found = None if reason else sys.modules.get("cupy")
    return f'{reason}, or use backend "numpy"' if reason else ""


def _why_not() -> str:
    if importlib.util.find_spec("cupy") is None:
        return (
            'backend "cupy" needs the package CuPy, which is not installed: pip install cupy-cuda12x (or cupy-cuda13x, to match '
            "the driver's CUDA version)"
        )
    packages = installed()
    if len(packages) > 1:  # CuPy itself would only warn, and then fail where the one has overwritten the other
        return (
            f'backend "cupy": {len(packages)} packages of CuPy are installed ({", ".join(packages)}) and overwrite each other\'s files: pip '
            f"uninstall {' '.join(packages)}, then install the one that matches the CUDA version that nvidia-smi prints"
        )
    try:
        cupy: Any = importlib.import_module("cupy")
        runtime = cupy.cuda.runtime
        driver, built = int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion())
        available = (
            driver >= built // 1000 * 1000 and cupy.cuda.is_available()
        )  # which CuPy 13 answers with an error if the driver is older, or none
        if available:
            properties = runtime.getDeviceProperties(runtime.getDevice())
            cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # a broken installation fails in many ways: missing libraries, files of another version
        said = str(error).strip()
        if "nvrtc" in said.lower():
            return (
                f'backend "cupy": CuPy does not find the compiler of its own CUDA version, NVRTC ({said.splitlines()[0]}): pip install '
                f'"{packages[0] if packages else "cupy-cuda12x"}[ctk]"'
            )
        return (
            f'backend "cupy": CuPy is installed but does not load ({said.splitlines()[0] if said else type(error).__name__}); '
            "keep exactly one of cupy-cuda12x and cupy-cuda13x, the one that matches the driver"
        )
    if 0 < driver < built // 1000 * 1000:
        mine = driver // 1000
        other = f"install cupy-cuda{mine}x instead, or " if mine in CUDA else ""
        return (
            f'backend "cupy": CuPy is built for CUDA {built // 1000}, but the driver knows CUDA {version(driver)} at most: {other}update the '
            f"driver"
        )
    if not available:
        return (
            'backend "cupy" needs an NVIDIA GPU with a driver for CUDA 12 or newer, and CuPy finds none: check that nvidia-smi lists a '
            "GPU and update the driver"
        )
    capability = properties["major"], properties["minor"]
    if capability < LOWEST:
        return (
            f'backend "cupy" needs a GPU of compute capability {_dotted(LOWEST)} or higher, and {_name(properties)} has {_dotted(capability)}: '
            f"use another GPU (CUDA_VISIBLE_DEVICES)"
        )
    return ""


def why_not_precision(precision: str) -> str:
    """The same for a precision, where CuPy can be used."""
    runtime: Any = importlib.import_module("cupy").cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    capability = properties["major"], properties["minor"]
    if precision in ("float32", "float16") or capability >= TENSOR_CORES:
        return ""
    return (
        f'precision "{precision}" needs tensor cores of compute capability {_dotted(TENSOR_CORES)} or higher, and {_name(properties)} has '
        f'{_dotted(capability)}; use precision "float32", or backend "numpy"'
    )


def installed() -> list[str]:
    """The packages of CuPy that are installed; all of them are imported as `cupy`."""
    found = []
    for name in PACKAGES:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def version(number: int) -> str:
    """12040 -> "12.4", as CUDA counts."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _name(properties: Any) -> str:
    name = properties["name"]
    return name.decode() if isinstance(name, bytes) else str(name)
