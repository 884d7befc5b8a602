"""`import minidcnn` is quick because it imports almost nothing. How quick is measured, not tested; what it imports is tested."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

HEAVY = {"numba", "llvmlite", "cupy", "matplotlib", "scipy", "onnx", "torch", "PIL", "safetensors", "tqdm", "threadpoolctl", "hypothesis"}


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    modules = imported_by("import minidcnn")
    assert {"minidcnn", "numpy"} <= modules
    assert not HEAVY & modules


@pytest.mark.parametrize("room", ["functional", "nn", "optim", "models", "segmentation", "study"])
def test_rooms_load_nothing_heavy_either(room: str) -> None:
    modules = imported_by(f"import minidcnn\nminidcnn.{room}")
    assert not (HEAVY - {"PIL"}) & modules


def test_no_room_is_loaded_before_it_is_asked_for() -> None:
    code = "import minidcnn, sys\nassert 'minidcnn.models' not in sys.modules\nminidcnn.models\nassert 'minidcnn.models' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_only_the_room_for_tests_needs_hypothesis() -> None:
    code = (
        "import sys\nsys.modules['hypothesis'] = None\nfrom minidcnn import *\nstudy\nimport minidcnn\n"
        "try:\n    minidcnn.testing\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert re.fullmatch(r"minidcnn\.testing needs the package hypothesis \(.+\); install it with: pip install hypothesis\n", done.stdout)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    import minidcnn

    with pytest.raises(AttributeError, match="no attribute 'conv3d'"):
        minidcnn.conv3d  # noqa: B018
