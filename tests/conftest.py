"""What all tests share: one thread per library, derandomized searches, the data beside the checkout, a seed for every test."""

from __future__ import annotations

import os

# Before NumPy is imported: several test processes share the cores, so no library may start a thread per core in each of them. Our own
# kernels always split their work in two, on any machine, so that splitting is tested.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MINIDCNN_NUM_THREADS", "2")
os.environ["MPLBACKEND"] = "Agg"

import importlib.util
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cudasim.build import why_not as why_no_simulator
from hypothesis import HealthCheck, settings
from javascript import why_not as why_no_node

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MINIDCNN_SHARED") or ROOT.parent / "shared")

# The first call of a compiled kernel is slow, which says nothing about the test.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=30, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("short", settings.get_profile("ci"), max_examples=5)  # where every access is watched from outside
settings.register_profile("exhaustive", settings.get_profile("ci"), derandomize=False, max_examples=2000, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how long Hypothesis searches, and refuse to start where something is missing that this run must not do without."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a script's background: Ctrl-C is what some tests are about
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("exhaustive" if _exhaustive(config) else "ci"))
    present = {
        "torch": importlib.util.find_spec("torch") is not None,
        "shared": (SHARED / "data").is_dir(),
        "cudasim": not why_no_simulator(),
        "nvrtc": all(importlib.util.find_spec(name) is not None for name in ("cuda", "cuda.core", "cuda.bindings")),
        "node": not why_no_node(),
        "sphinx": all(importlib.util.find_spec(name) is not None for name in ("sphinx", "myst_parser", "furo")),
    }
    for name in filter(None, os.environ.get("MINIDCNN_REQUIRE", "").split(",")):
        if name not in present:
            raise pytest.UsageError(f"MINIDCNN_REQUIRE knows {', '.join(present)}, got {name!r}")
        if not present[name]:
            raise pytest.UsageError(f"MINIDCNN_REQUIRE asks for {name}, which is missing: tests that need it would be skipped")


def _exhaustive(config: pytest.Config) -> bool:
    return "exhaustive" in (config.getoption("markexpr") or "").replace("not exhaustive", "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`pytest -m exhaustive` also runs every property of the usual tests, over thousands of examples."""
    if _exhaustive(config):
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("exhaustive")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state, on NumPy, whatever ran before it in the same process."""
    from minidcnn import backend, manual_seed, use

    manual_seed(0)
    before = backend()
    yield
    if backend() != before:
        use(before)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real images, ../shared/data beside the checkout or $MINIDCNN_SHARED/data; without it the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real images of {SHARED / 'data'} (MINIDCNN_SHARED names another folder)")
    return SHARED / "data"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator seeded with the test's own name: always the same, and independent of every other test's."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
