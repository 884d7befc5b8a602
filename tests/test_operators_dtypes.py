"""Which dtypes may be changed in place by which: kinds decide, and neither widths nor signs."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from minidcnn import Tensor

DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")


@pytest.mark.parametrize("op", [operator.iadd, operator.imul, operator.itruediv])
@pytest.mark.parametrize("other", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kinds_decide_as_in_torch(dtype: str, other: str, op: Any) -> None:
    """Signed and unsigned integers of any width go into each other; no integer into bool, no float into integers."""
    torch = pytest.importorskip("torch")
    a, b = np.array([1, 0, 1]).astype(dtype), np.array([1, 1, 1]).astype(other)
    ours, theirs = Tensor(a.copy()), torch.tensor(a)
    try:
        op(theirs, torch.tensor(b))
    except RuntimeError:
        with pytest.raises(TypeError, match="does not fit into a tensor of"):
            op(ours, Tensor(b))
        assert ours.numpy().tolist() == a.tolist()
    else:
        assert op(ours, Tensor(b)).dtype == dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(("dtype", "other"), [("uint8", "int16"), ("int8", "uint32"), ("uint32", "int8"), ("int16", "uint16")])
def test_signed_and_unsigned_integers_of_any_width(dtype: str, other: str) -> None:
    x = Tensor(np.array([3, 5], dtype))
    x += Tensor(np.array([4, 2], other))
    assert x.dtype == dtype and x.numpy().tolist() == [7, 7]
