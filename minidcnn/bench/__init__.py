"""How long it takes: training steps, inference, layers, memory and the first step, here and, side by side, in PyTorch.

Each side lives in a process of its own (`worker`, or tests/peers/torch_bench.py of a checkout), and they take turns: whatever else the
machine does falls on both alike. What counts is the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

from .compare import measure
from .job import NETS, WHATS, Job
from .report import text

__all__ = ["NETS", "WHATS", "Job", "measure", "text"]
