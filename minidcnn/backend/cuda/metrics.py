"""The confusion matrix on the GPU: kernels/metrics.cu."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .base import CudaBase
from .launcher import BLOCK, LIMIT

SHARED = 48 << 10  # bytes that every GPU gives a block
MOST_BLOCKS = 1 << 10  # each adds its counts to the result, so not too many
PIXELS = 16  # of a thread, at least


class CudaMetrics(CudaBase):
    """count_pairs."""

    def count_pairs(self, matrix: Array, truth: Array, prediction: Array, ignore_index: int | None) -> Array:
        if not 0 < truth.size < LIMIT or not matrix.flags.c_contiguous:
            return super().count_pairs(matrix, truth, prediction, ignore_index)
        labels = (self.plain(a, "int64") for a in (truth, prediction))
        first: Array = self.xp.full(1, -1, "int32")
        k = len(matrix)
        private = k * k * 4 <= SHARED
        blocks = max(1, min(truth.size // (BLOCK * PIXELS), MOST_BLOCKS))
        ignored = np.int64(0 if ignore_index is None else ignore_index)
        self.launcher.launch(
            (blocks,), (BLOCK,), "metrics.cu", "confusion", "float32", *labels, matrix, first, truth.size, k, ignored,
            ignore_index is not None, shared=k * k * 4 if private else 0, defines=(f"PRIVATE={int(private)}",),
        )  # fmt: skip
        return first.reshape(())
