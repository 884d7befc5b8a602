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
