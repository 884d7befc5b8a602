"""Counting which class is taken for which."""

from __future__ import annotations

from ..arrays import Array
from .transfer import TransferKernels


class MetricKernels(TransferKernels):
    """The confusion matrix."""

    def count_pairs(self, matrix: Array, truth: Array, prediction: Array, ignore_index: int | None) -> Array:
        """Add the pixels of integer truth and prediction, one shape, to matrix (K, K) int64, rows being the truth, in place.

        Pixels whose truth is ignore_index are left out, and so is what holds no class: returns the flat index of the first such pixel, as an
        integer without axes, -1 if there is none.
        """
        xp, k = self.xp, len(matrix)
        if not truth.size:
            return self.scalar(-1, "int64")
        t, p = truth.reshape(-1).astype("int64"), prediction.reshape(-1).astype("int64")
        counted = xp.ones(t.shape, bool) if ignore_index is None else t != ignore_index
        wrong = counted & ((t < 0) | (t >= k) | (p < 0) | (p >= k))
        places = xp.where(counted & ~wrong, t * k + p, k * k)  # one more for what is left out
        matrix += xp.bincount(places, minlength=k * k + 1)[:-1].reshape(k, k)
        return self.first(wrong)
