"""What the environment says wrongly is told as such, whoever asks for the CPU kernels first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minidcnn import models
from minidcnn.backend import BackendError, switch
from minidcnn.backend.cpu import CpuKernels, threads
from minidcnn.bench import Job, measure
from minidcnn.cli import main
from minidcnn.interop import Checkpoint, load_checkpoint, model_of, save_checkpoint

WRONG = {
    "MINIDCNN_NUM_THREADS": ("two", "0", "-1"),
    "MINIDCNN_CONV": ("fft",),
    "MINIDCNN_LANES": ("12",),
    "MINIDCNN_AMX": ("1",),
    "NUMBA_DISABLE_JIT": ("1",),
}
SETTINGS = [(variable, value) for variable, values in WRONG.items() for value in values]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = models.UNet(3, 2, base=2, depth=1, padding="same")
    info = {"classes": ["sky", "road"], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    save_checkpoint(tmp_path / "best.safetensors", Checkpoint("unet", model.config, model.state_dict(), info))
    return tmp_path / "best.safetensors"


@pytest.fixture
def at_the_start(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not computed yet; the checkpoint is of another one."""
    monkeypatch.setattr(switch, "_made", {})
    monkeypatch.setattr(threads, "_count", None)


@pytest.mark.usefixtures("at_the_start")
@pytest.mark.parametrize(("variable", "value"), SETTINGS)
def test_a_wrong_variable_is_no_fault_of_the_checkpoint(
    variable: str, value: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BackendError, match=f"^{variable}.*unset it"):
        model_of(load_checkpoint(checkpoint))
    for command in (["predict", checkpoint, tmp_path, "--out", tmp_path / "out"], ["evaluate", checkpoint], ["summary", checkpoint]):
        assert main([str(word) for word in command]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {variable}") and value in said and said.count("\n") == 1


def test_the_process_that_measures_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDCNN_NUM_THREADS", "two")
    with pytest.raises(ValueError, match="^bench: MINIDCNN_NUM_THREADS must be a whole number"):
        measure(Job(shape=(1, 3, 16, 24), base=2), rounds=1)


@pytest.mark.parametrize("value", ["", "0", "no number, which numba does not heed"])
def test_numba_compiles_unless_it_is_told_not_to(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert CpuKernels().name == "cpu"


def test_reference_kernels_train_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step as with the fast kernels, in a process that may not compile."""
    step = (
        "import sys, json, numpy as np, minidcnn\nfrom minidcnn import Tensor, functional as F, models, optim\n"
        "def step():\n"
        "    minidcnn.manual_seed(0)\n    model = models.UNet(3, 2, base=4, depth=1, padding='same', norm='batch')\n"
        "    x = Tensor(np.linspace(-1, 1, 3 * 12 * 16, dtype='f4').reshape(1, 3, 12, 16))\n"
        "    optimizer, losses = optim.SGD(model.parameters(), lr=0.1), []\n"
        "    for _ in range(2):\n"
        "        loss = F.cross_entropy(model(x), Tensor((x.numpy()[:, 0] > -0.8).astype('i8')))\n"
        "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n        losses.append(loss.item())\n"
        "    return losses\n"
    )
    alone = step + "with minidcnn.use_kernels('reference'): print(json.dumps([step(), 'numba' in sys.modules]))"
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False)
    losses, compiled = json.loads(done.stdout or "[0, 0]")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    here: dict[str, object] = {}
    exec(step, here)
    assert losses == pytest.approx(here["step"](), rel=1e-4), done.stderr  # type: ignore[operator]
    assert losses[1] < losses[0] and not compiled
