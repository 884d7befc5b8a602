"""Stopping anywhere and going on leads to the same bits as never stopping: weights, optimizer, schedule, random numbers, best score."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training

import minidcnn
from minidcnn import Tensor, nn, optim
from minidcnn.data import Subset
from minidcnn.interop import CheckpointError, load_checkpoint, save_checkpoint
from minidcnn.segmentation import command
from minidcnn.segmentation.command import Request, make_trainer
from minidcnn.segmentation.interrupt import Interrupt, Stopped
from minidcnn.segmentation.options import read_options
from minidcnn.segmentation.runs import RunFolder
from minidcnn.segmentation.state import apart, together
from minidcnn.segmentation.train import Trainer

CONFIGS: dict[str, dict[str, Any]] = {
    "adam, cosine, dropout": {"repeat": 2},
    "sgd, step, warm-up": {"optimizer": "sgd", "schedule": "step", "warmup": 2, "weight_decay": 0.1},
    "adamw, plateau, prefetch": {"optimizer": "adamw", "schedule": "plateau", "prefetch": 2, "limit": 1},
    "poly, clip, median weights": {"schedule": "poly", "clip": 0.5, "class_weights": "median"},
}


def build(data: Any) -> Any:
    return training.unet(data, dropout=0.4)


def stop_when(trainer: Trainer, ask: Callable[[int, bool], bool]) -> None:
    """Press Ctrl-C in the n-th run of the network (from 0, counted over training and validation) if ask(n, whether it trains) says so."""
    runs = 0

    def press(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal runs
        if ask(runs, module.training):
            signal.raise_signal(signal.SIGINT)
        runs += 1

    trainer.model.register_forward_hook(press)


@pytest.mark.parametrize("name", CONFIGS)
def test_stopped_anywhere_and_resumed_is_never_stopped(name: str, tmp_path: Path) -> None:
    config = training.options(**CONFIGS[name])
    runs: list[bool] = []
    whole = training.make(tmp_path / "whole", config, build=build)
    whole.model.register_forward_hook(lambda m, i, o: runs.append(m.training))
    whole.fit()
    assert len(runs) == 2 * (whole.steps + 2)  # two validations of two batches
    for place, trains in enumerate(runs):
        if name != "adam, cosine, dropout" and place % 3 != 1:  # one everywhere, the others here and there
            continue
        out = tmp_path / f"stopped-{place}"
        trainer = training.make(out, config, build=build)
        stop_when(trainer, lambda n, _, place=place: n == place)  # type: ignore[misc]
        with pytest.raises(Stopped):
            trainer.fit()
        saved = load_checkpoint(out / "last.safetensors").training
        assert (saved["epoch"], saved["step"]) == (trainer.epoch, trainer.step)
        assert saved["step"] == (place % (whole.steps + 2) + 1 if trains else whole.steps)  # the step was finished first
        assert len(training.metrics(out)) == saved["epoch"] if (out / "metrics.jsonl").exists() else saved["epoch"] == 0
        minidcnn.manual_seed(999)  # whatever the new process did before
        training.make(out, config, build=build, resume=True).fit()
        training.same_results(tmp_path / "whole", out)
        shutil.rmtree(out)


def test_resuming_again_and_again_is_the_same_too(tmp_path: Path) -> None:
    config = training.options(epochs=2)
    training.make(tmp_path / "whole", config, build=build).fit()
    first = training.make(tmp_path / "pieces", config, build=build)
    stop_when(first, lambda n, trains: trains)
    with pytest.raises(Stopped):
        first.fit()
    attempts = 0
    while True:  # a stop at each step
        attempts += 1
        trainer = training.make(tmp_path / "pieces", config, build=build, resume=True)
        stop_when(trainer, lambda n, trains: trains)
        try:
            trainer.fit()
            break
        except Stopped:
            pass
    assert attempts == 4  # of 4 steps the first was made before; the last attempt finds nothing but a validation left
    training.same_results(tmp_path / "whole", tmp_path / "pieces")


def test_after_a_crash_the_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Power fails between two writes: metrics.jsonl and best.safetensors know an epoch more than last.safetensors."""
    config = training.options(epochs=3)
    training.make(tmp_path / "whole", config, build=build).fit()
    out = tmp_path / "crashed"
    trainer = training.make(out, config, build=build)
    save = trainer._save_last

    def fail() -> None:
        if trainer.epoch == 2:
            raise OSError("power failed")
        save()

    trainer._save_last = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="power failed"):
        trainer.fit()
    assert len(training.metrics(out)) == 2 and load_checkpoint(out / "last.safetensors").training["epoch"] == 1
    again = training.make(out, config, build=build, resume=True)
    assert [entry["epoch"] for entry in training.metrics(out)] == [1] and again.epoch == 1
    again.fit()
    training.same_results(tmp_path / "whole", out)


def test_a_run_that_never_saved_starts_from_its_beginning(tmp_path: Path) -> None:
    config = training.options()
    training.make(tmp_path / "whole", config).fit()
    training.make(tmp_path / "early", config)  # config.json is written, nothing else
    training.make(tmp_path / "early", config, resume=True).fit()
    training.same_results(tmp_path / "whole", tmp_path / "early")


def test_more_epochs_go_on_from_where_it_was(tmp_path: Path) -> None:
    config = training.options(schedule="constant")
    training.make(tmp_path / "four", training.options(schedule="constant", epochs=4)).fit()
    training.make(tmp_path / "two", config).fit()
    trainer = training.make(tmp_path / "two", training.options(schedule="constant", epochs=4), resume=True)
    assert trainer.epoch == 2
    trainer.fit()
    training.same_results(tmp_path / "four", tmp_path / "two")


def test_the_best_epoch_is_remembered(tmp_path: Path) -> None:
    """A best epoch before the stop stays the best after it, if no later one is better."""
    config = training.options(epochs=2)
    trainer = training.make(tmp_path, config)
    stop_when(trainer, lambda n, _: n == trainer.steps + 2)
    with pytest.raises(Stopped):
        trainer.fit()
    best = (tmp_path / "best.safetensors").read_bytes()
    again = training.make(tmp_path, config, resume=True)
    again.best["val_miou"] = 1.0
    again.fit()
    assert (tmp_path / "best.safetensors").read_bytes() == best


# -- asking to stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_breaks_off(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(number)
        said = capfd.readouterr().err
        assert said == "stopping: this step is finished and the state saved first; Ctrl-C again breaks off at once\n"
        with pytest.raises(Stopped):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A shell has the background processes of a script ignore Ctrl-C, which is meant for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            interrupt.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_curves_are_drawn_when_somebody_stops(tmp_path: Path) -> None:
    trainer = training.make(tmp_path, draw=True)
    stop_when(trainer, lambda n, _: n == 0)
    with pytest.raises(Stopped):
        trainer.fit()
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "last.safetensors", "curves.png"}


@pytest.mark.parametrize("broken", ["draw_curves", "draw_predictions"])
def test_pictures_that_a_stop_left_out_are_drawn_by_resuming(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing ones, and those of an epoch before: drawn when more than a minute was over."""
    config = training.options()

    def press(self: Trainer, *_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, broken, press)
        trainer = training.make(tmp_path, config, draw=True)
        with pytest.raises(Stopped, match=r"after epoch 2; the run is complete, --resume draws its pictures"):
            command.run(trainer, Request(config, trainer.folder, False))
    pictures = [trainer.folder.curves, trainer.folder.predictions]
    assert [p.exists() for p in pictures] == [broken == "draw_predictions", False]

    def resume() -> str:
        command.run(training.make(tmp_path, config, draw=True, resume=True), Request(config, trainer.folder, True))
        return capsys.readouterr().out

    said = resume()
    assert "drawn now" in said and "complete (2 of 2 epochs)" in said and all(p.exists() for p in pictures)
    drawn = [p.read_bytes() for p in pictures]
    trainer.folder.predictions.write_bytes(b"of epoch 1")
    before = trainer.folder.last.stat().st_mtime_ns
    os.utime(trainer.folder.predictions, ns=(before, before - 1))
    resume()
    assert [p.read_bytes() for p in pictures] == drawn
    monkeypatch.setattr(Trainer, "draw_pictures", press)  # they are of the end now
    assert "drawn now" not in resume()


# -- what does not fit -------------------------------------------------------------------------------------------------------


def test_other_data_another_network_and_other_files_are_refused(tmp_path: Path) -> None:
    config = training.options(epochs=1)
    training.make(tmp_path, config).fit()
    train, val = training.cells()
    with pytest.raises(CheckpointError, match=r"started on 5 training images, now there are 4"):
        training.make(tmp_path, config, (train[:4], val), resume=True)
    for images, said in (
        ((train[::-1], val), "on other images: some have another name now, or another order: put"),
        ((train, val[1:]), "with 3 images held out, now there are 2: put"),
        ((train, Subset(val, [0, 1, 1])), "with cells-val-0002 held out, which is not any more: put"),
        ((train, val[::-1]), "on other images: some have"),
    ):
        with pytest.raises(CheckpointError, match=f"started {said}"):
            training.make(tmp_path, config, images, resume=True)
    with pytest.raises(CheckpointError, match=r"is \(2, 1, 3, 3\), the model's is \(3, 1, 3, 3\)"):
        training.make(tmp_path, config, build=lambda d: training.unet(d, base=3), resume=True)
    shutil.copy(tmp_path / "best.safetensors", tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError, match=r"last\.safetensors has no state of a training"):
        training.make(tmp_path, config, resume=True)
    (tmp_path / "last.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        training.make(tmp_path, config, resume=True)


def test_a_run_of_an_older_version_that_knows_no_names_goes_on(tmp_path: Path) -> None:
    training.make(tmp_path, training.options(epochs=1)).fit()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    del checkpoint.info["held_out"], checkpoint.info["mask_ignored"], checkpoint.training["names"], checkpoint.training["scaler"]
    save_checkpoint(tmp_path / "last.safetensors", checkpoint)
    train, val = training.cells()
    assert training.make(tmp_path, training.options(epochs=2), (train[::-1], val), resume=True).epoch == 1


@pytest.mark.parametrize("more", [{"schedule": "cosine", "warmup": 3}, {"schedule": "step"}, {"schedule": "plateau"}], ids=str)
def test_a_run_of_an_older_version_goes_on_at_the_same_rate(more: dict[str, Any], tmp_path: Path) -> None:
    """Its schedule's state had other names, or held no rates."""
    config = training.options(epochs=3, **more)
    done = training.make(tmp_path, config)
    stop_when(done, lambda n, trains: trains and n > done.steps)
    with pytest.raises(Stopped):
        done.fit()
    rates = done.schedule.get_last_lr()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    state = checkpoint.training["schedule"]
    kept = {k: state[k] for k in ("last_epoch", "best", "num_bad_epochs", "cooldown_counter") if k in state}
    checkpoint.training["schedule"] = kept | ({"last_lr": state["_last_lr"]} if "best" in state else {"base_lrs": state["base_lrs"]})
    save_checkpoint(tmp_path / "last.safetensors", checkpoint)
    again = training.make(tmp_path, config, resume=True)
    assert again.schedule.get_last_lr() == rates == [group["lr"] for group in again.optimizer.param_groups]
    assert again.schedule.last_epoch == done.schedule.last_epoch > 0


@pytest.mark.parametrize("change", [lambda kept: kept, lambda kept: json.loads(json.dumps(kept))], ids=["as it is", "through JSON"])
def test_an_optimizers_state_taken_apart_is_put_together_again(change: Callable[[Any], Any]) -> None:
    weight = nn.Parameter(np.ones((2, 3), np.float32))
    optimizer = optim.Adam([nn.Parameter(np.ones(2, np.float32)), weight], lr=0.1)
    weight.grad = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    optimizer.step()
    before = optimizer.state_dict()
    kept, arrays = apart(before)
    assert sorted(arrays) == ["1.exp_avg", "1.exp_avg_sq"]
    optimizer.load_state_dict(together(change(kept), arrays))
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["state"].keys() == before["state"].keys() == {1}
    for name, value in before["state"][1].items():
        np.testing.assert_array_equal(after["state"][1][name], value)


def test_a_broken_line_of_metrics_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"epoch": 1}\n{"epoch": 2, "val_\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not the JSON object of an epoch"):
        folder.read_metrics()
    for line in (b"\xff\xfe", b'{"epoch": "two"}', b"[2]"):
        folder.metrics.write_bytes(b'{"epoch": 1}\n' + line)
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not"):
            folder.read_metrics()
    folder.config.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"config\.json does not hold the options of a run"):
        folder.read_config()


def test_a_run_goes_on_without_a_line_of_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is said of the best epoch goes by its number, not by its place."""
    training.make(tmp_path, training.options(epochs=2)).fit()
    folder = RunFolder(tmp_path)
    for best, said in ((1, "(epoch 1), on held-out images\n"), (2, "(epoch 2), on held-out images:\nclass ")):
        folder.write_metrics([entry for entry in folder.read_metrics() if entry["epoch"] != 1])
        config = training.options(epochs=2 + best)
        trainer = training.make(tmp_path, config, resume=True)
        trainer.best = {"epoch": best, "val_miou": 1.0}
        command.run(trainer, Request(config, folder, True))
        assert said in capsys.readouterr().out


def test_fewer_epochs_than_are_done_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_data", lambda config: training.cells())
    training.make(tmp_path, training.options(epochs=2)).fit()
    config = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"the run in .* has done 2 epochs, more than --epochs 1: give at least 2"):
        make_trainer(request("--resume", "--out", str(tmp_path), "--epochs", "1"), lambda data, options: training.unet(data))
    assert (tmp_path / "config.json").read_bytes() == config


# -- the command line --------------------------------------------------------------------------------------------------------


def request(*argv: str) -> Request:
    return read_options("unet", argv, add_options=lambda group: group.add_argument("--base", type=int, default=2))


def test_resuming_takes_the_options_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = request("--lr", "0.5", "--base", "3", "--augment", "mirror", "--crop", "16x20", "--out", "here")
    first.folder.write_config(first.config)
    again = request("--resume", "--out", "here")
    assert again.resume and again.config == first.config and again.config.network_options == {"base": 3} and again.config.crop == (16, 20)
    same = request("--resume", "--out", "here", "--lr", "0.5", "--augment", "mirror", "--base", "3")
    assert same.config == first.config
    more = request("--resume", "--out", "here", "--epochs", "99", "--root", "moved", "--backend", "numpy")
    assert (more.config.epochs, more.config.root, more.config.lr) == (99, "moved", 0.5)
    with pytest.raises(ValueError, match=r"--lr is 0\.1 now, but the run in here was started with 0\.5: leave it out"):
        request("--resume", "--out", "here", "--lr", "0.1")
    with pytest.raises(ValueError, match=r"--base is 2 now, but the run in here was started with 3"):
        request("--resume", "--out", "here", "--base", "2")
    with pytest.raises(ValueError, match=r"--augment is none now"):
        request("--resume", "--out", "here", "--no-augment")
    with pytest.raises(ValueError, match="run in here trains the network unet, not segnet: go on with the script of unet"):
        read_options("segnet", ("--resume", "--out", "here"))


def test_folders_of_runs_are_numbered_and_the_latest_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is no run runs/unet-\* to resume"):
        request("--resume")
    folders = []
    for i in range(2):
        made = request()
        folders.append(str(made.folder))
        made.folder.write_config(made.config)
        os.utime(made.folder.config, (i, i))
    assert folders == ["runs/unet-cells-1", "runs/unet-cells-2"]
    Path("runs/unet-cells-7-notes").mkdir()
    assert str(request("--resume").folder) == "runs/unet-cells-2"
    with pytest.raises(ValueError, match=r"no run runs/unet-isbi-\*"):
        request("--resume", "--data", "isbi")
    shutil.rmtree("runs/unet-cells-1")
    assert str(request().folder) == "runs/unet-cells-3"  # a number is never used twice


def test_what_a_killed_process_was_writing_is_gone_when_its_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--out", "m[i]ne")):
        folder = request(*options).folder
        folder.write_config(training.options())
        killed = [folder.path / f".{name}.4711.tmp" for name in ("last.safetensors", "best.safetensors", "curves.png", "config.json")]
        for file in killed:
            file.touch()
        own = folder.path / ".notes.txt.4711.tmp"
        own.touch()
        found = request("--resume", *options).folder
        assert found.path == folder.path and all(
            file.exists() for file in killed
        )  # they may be a living process's, until the folder is claimed
        with found.claimed(resume=True):
            pass
        assert not any(file.exists() for file in killed) and own.exists() and folder.config.exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = request("--out", "mine", "--epochs", "7")
    first.folder.write_config(first.config)
    first.folder.write_metrics([{"epoch": 1}, {"epoch": 2}])
    with pytest.raises(
        ValueError, match=r"mine holds a run already \(2 of 7 epochs\); add --resume to go on with it, or choose another --out"
    ):
        request("--out", "mine")
    Path("notes").mkdir()
    Path("notes/a.txt").touch()
    request("--out", "notes")  # a folder with other things in it may be used
    with pytest.raises(ValueError, match=r"notes/a\.txt is a file, not a folder"):
        request("--out", "notes/a.txt")
    with pytest.raises(ValueError, match=r"notes holds no run \(no config\.json\), so that there is nothing to resume"):
        request("--out", "notes", "--resume")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        request("--out", "nowhere", "--resume")
    weights_only = Path("weights")
    weights_only.mkdir()
    shutil.copy("mine/config.json", weights_only / "best.safetensors")
    with pytest.raises(ValueError, match="weights holds a run already;"):
        request("--out", "weights")


def test_the_whole_way_by_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From options to a trainer and back again: the seed makes the weights, and resuming takes up the run's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_data", lambda config: training.cells())

    def net(data: Any, options: dict[str, Any]) -> Any:
        return training.unet(data, base=options["base"])

    options = ("--epochs", "1", "--limit", "1", "--batch-size", "2")
    a, b = (make_trainer(request("--out", name, *options), net) for name in "ab")
    for name, array in a.model.state_dict().items():
        np.testing.assert_array_equal(array, b.model.state_dict()[name])
    a.model.get_submodule("head").bias.data[:] = 42.0
    save_checkpoint(a.folder.last, a._checkpoint(training=True))
    again = make_trainer(request("--out", "a", "--resume"), net)
    np.testing.assert_array_equal(again.model.get_submodule("head").bias.numpy(), [42.0, 42.0])
