"""What a state dict may lack: older files do not know how many batches a batch norm has seen."""

from __future__ import annotations

import numpy as np
import pytest

from minidcnn import nn


def network() -> nn.Sequential:
    """Batch norms at two depths."""
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))


@pytest.mark.parametrize("strict", [True, False])
def test_the_number_of_batches_may_be_missing(strict: bool) -> None:
    """It stays what it was, and is not called missing."""
    model = network()
    older = {name: array + 1 for name, array in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = model.load_state_dict(older, strict)
    assert (found.missing_keys, found.unexpected_keys) == ([], [])
    after = model.state_dict()
    assert all(np.array_equal(after[name], array) for name, array in older.items())
    assert after["1.num_batches_tracked"] == after["2.0.num_batches_tracked"] == 0


@pytest.mark.parametrize("name", ["1.running_mean", "2.0.running_var", "2.0.weight", "0.bias"])
def test_nothing_else_may(name: str) -> None:
    model = network()
    less = {key: array for key, array in model.state_dict().items() if key != name}
    with pytest.raises(ValueError, match=f"1 key missing: {name}"):
        model.load_state_dict(less)
    assert model.load_state_dict(less, strict=False).missing_keys == [name]
    norm = nn.BatchNorm2d(3)
    assert norm.load_state_dict({key: array for key, array in norm.state_dict().items() if "num" not in key}).missing_keys == []


@pytest.mark.parametrize("values", [np.zeros(3, np.complex64), np.array(["a", "b", "c"])])
def test_what_is_no_number_is_refused(values: np.ndarray) -> None:
    model = nn.BatchNorm2d(3)
    before = model.state_dict()
    with pytest.raises(TypeError, match=f"load_state_dict: bias holds {values.dtype} values instead of numbers"):
        model.load_state_dict(before | {"weight": np.zeros(3), "bias": values})
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())
