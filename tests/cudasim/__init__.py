"""Runs CUDA C++ kernels on the CPU, checked: see README.md beside this file."""

from __future__ import annotations

from .module import SimKernel, SimModule
from .translate import SimError

__all__ = ["SimError", "SimKernel", "SimModule"]
