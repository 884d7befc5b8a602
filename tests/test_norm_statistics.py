"""When running statistics follow the batches, and when they are left alone: as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from minidcnn import Tensor, nn


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("tracking", [(True, False, True), (True, True, False), (False, True, True)])
def test_statistics_that_are_tracked_no_longer_stay_as_they_are(momentum: float | None, tracking: tuple[bool, ...]) -> None:
    """track_running_stats may change later; eval() goes on normalising by the statistics that are there."""
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm2d(2, momentum=momentum).double(), torch.nn.BatchNorm2d(2, momentum=momentum).double()
    for x, tracked in zip(np.random.default_rng(0).standard_normal((3, 4, 2, 3, 5)), tracking, strict=True):
        ours.track_running_stats = theirs.track_running_stats = tracked
        for training in (True, False):
            y, expected = (norm.train(training)(kind(x)).detach().numpy() for norm, kind in ((ours, Tensor), (theirs, torch.tensor)))
            np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
        for name, values in theirs.named_buffers():
            np.testing.assert_allclose(getattr(ours, name).numpy(), values.numpy(), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(("dtype", "kind"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")])
def test_scale_and_offset_are_the_layer_in_eval(affine: bool, shifted: bool, dtype: str, kind: str) -> None:
    """Behind whatever is added to the channels before; in float32 for float16."""
    rng = np.random.default_rng(0)
    norm = nn.BatchNorm2d(3, eps=0.02, affine=affine).to(dtype).eval()
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data = rng.random(3) + 0.5
    x, before = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(3).astype(dtype) if shifted else None
    found = norm.scale_offset(None if before is None else Tensor(before))
    assert found is not None and [t.dtype for t in found] == [kind] * 2
    scale, offset = (t.numpy().astype(np.float64)[:, None, None] for t in found)
    there = x + (0 if before is None else before.astype(np.float64)[:, None, None])
    expected = norm.to("float64")(Tensor(there)).numpy()
    np.testing.assert_allclose(scale * x + offset, expected, rtol=0, atol=1e-12 if dtype == "float64" else 2e-6)


def test_the_batch_decides_scale_and_offset_in_training_and_without_statistics() -> None:
    assert nn.BatchNorm2d(3).train().scale_offset() is None
    assert nn.BatchNorm2d(3, track_running_stats=False).eval().scale_offset() is None
