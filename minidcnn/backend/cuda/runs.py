"""Runs of 16 bytes, as kernels/runs.cuh moves them."""

from __future__ import annotations

from ..arrays import Array
from .launcher import Launcher

BYTES = 16


def runs(launcher: Launcher, length: int, *arrays: Array | None) -> tuple[int, tuple[str, ...]]:
    """(RUN, the definitions that make it so): numbers that a thread moves at once, 16 bytes of them if all is in whole runs, else 1.

    length: how many numbers lie side by side before an array goes on somewhere else, such as the channels of a pixel. The first array's dtype is REAL.
    """
    present = [a for a in arrays if a is not None]
    run = BYTES // present[0].dtype.itemsize
    wide = length % run == 0 and all(launcher.address(a) % BYTES == 0 for a in present)
    return (run, ("WIDE=1",)) if wide else (1, ())
