"""The wheel is complete: built, installed outside the checkout, and trained with there."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="building the wheel needs the test extra")
pytest.importorskip("hatchling", reason="building the wheel needs the test extra")

ROOT = Path(__file__).resolve().parent.parent

STEP = """
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

import minidcnn
from minidcnn import functional as F, optim
from minidcnn.models import UNet

package = Path(minidcnn.__file__).parent
assert package.is_relative_to(sys.argv[1]), f"imported from {package}"
assert (package / "py.typed").is_file()
assert any((package / "kernels").iterdir())

minidcnn.manual_seed(0)
model = UNet(in_channels=1, classes=2, base=2, padding="same", norm="batch")
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
images = np.random.default_rng(0).random((2, 1, 32, 48), dtype=np.float32)
masks = (images[:, 0] > 0.5).astype(np.int64)
losses = []
for _ in range(3):
    loss = F.cross_entropy(model(minidcnn.Tensor(images)), minidcnn.Tensor(masks))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
print("trained", *losses)
"""


def run(*command: object, cwd: Path) -> str:
    """What the command prints; where it fails, so does the test, with all that it said."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command[:4]))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with what is installed: nothing is downloaded."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_the_kernels(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "minidcnn").rglob("*.py")}
    kernels = {f"minidcnn/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "kernels").rglob("*") if p.is_file()}
    assert sources <= names
    assert kernels
    assert kernels <= names
    assert "minidcnn/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"minidcnn", next(n for n in names if n.endswith("/METADATA")).split("/")[0]}


def test_a_fresh_environment_trains_with_it(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    paths = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
    python = Path(sysconfig.get_path("scripts", scheme="venv", vars=paths)) / ("python.exe" if sys.platform == "win32" else "python")
    # Unpacking is all that installing a pure wheel does. Dependencies come from the environment that runs the tests, after the wheel's
    # own folder; its .pth files are not followed, so an editable install of the checkout is not seen.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])))
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "trained" in run(python, "-I", "-c", STEP, site, cwd=outside)
