"""Checkpoints: what goes in comes out, the same bits each time; every kind of broken file is one sentence."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from cupy_stand_in import make_module

import minidcnn
from minidcnn.backend import random_state, switch
from minidcnn.interop import Checkpoint, CheckpointError, atomic, load_checkpoint, model_of, save_checkpoint, save_weights
from minidcnn.interop.checkpoints import _checksum
from minidcnn.models import UNet

INFO = {"classes": ["sky", "Straße"], "palette": [[0, 0, 0], [255, 1, 2]], "mean": [0.1], "std": [0.2], "mask_values": None, "scores": {}}


def checkpoint(rng: np.random.Generator) -> Checkpoint:
    model = UNet(1, 2, base=2, padding="same", norm="batch", depth=1)
    training = {"epoch": 3, "random_state": random_state(), "loss_sum": 0.1 + 0.2}
    moments = {"0.exp_avg": rng.standard_normal((2, 3, 1, 5)).transpose(3, 0, 2, 1), "0.exp_avg_sq": np.zeros((0, 3), np.float32)}
    return Checkpoint(model.name, model.config, model.state_dict(), INFO, training, moments)


def same(a: Checkpoint, b: Checkpoint) -> None:
    assert (a.model, a.config, a.info, a.training) == (b.model, b.config, b.info, b.training)
    for x, y in ((a.tensors, b.tensors), (a.training_tensors, b.training_tensors)):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype and x[name].shape == y[name].shape
            np.testing.assert_array_equal(x[name], y[name])


def test_what_is_saved_is_loaded(tmp_path: Path, rng: np.random.Generator) -> None:
    before = checkpoint(rng)
    save_checkpoint(tmp_path / "a.safetensors", before)
    after = load_checkpoint(tmp_path / "a.safetensors")
    same(before, after)
    assert after.training["random_state"]["state"]["state"] > 2**64  # integers of any size survive
    assert after.tensors["encoder.0.1.num_batches_tracked"].shape == ()


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    save_checkpoint(tmp_path / "a", checkpoint(rng))
    save_checkpoint(tmp_path / "b", load_checkpoint(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_programs_find_the_weights_under_their_own_names(tmp_path: Path, rng: np.random.Generator) -> None:
    from safetensors.numpy import load_file

    before = checkpoint(rng)
    save_checkpoint(tmp_path / "a.safetensors", before)
    stored = load_file(tmp_path / "a.safetensors")
    assert set(before.tensors) == {name for name in stored if not name.startswith("training/")}
    np.testing.assert_array_equal(stored["head.weight"], before.tensors["head.weight"])


def test_the_model_answers_as_before_and_draws_no_random_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    model = UNet(1, 2, base=2, padding="same", norm="batch", depth=1)
    images = minidcnn.Tensor(rng.standard_normal((2, 1, 6, 8)).astype(np.float32))
    model(images)  # moves the running statistics
    save_checkpoint(tmp_path / "a", Checkpoint(model.name, model.config, model.state_dict()))
    state = random_state()
    again = model_of(load_checkpoint(tmp_path / "a"))
    assert random_state() == state
    assert not again.training
    np.testing.assert_array_equal(again(images).numpy(), model.eval()(images).numpy())


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.safetensors"
    good = checkpoint(rng)
    save_checkpoint(path, good)
    bytes_before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):  # NaN is none
        save_checkpoint(path, Checkpoint("unet", {}, good.tensors, {"scores": {"miou": float("nan")}}))
    with pytest.raises(Exception, match="dtype|object"):
        save_checkpoint(path, Checkpoint("unet", {}, {"x": np.array(["text"])}))
    assert path.read_bytes() == bytes_before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing half written lies about


def test_replacing_shows_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old" and temporary.parent == tmp_path
        raise RuntimeError
    assert path.read_text() == "old"
    atomic.write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path: Path, rng: np.random.Generator) -> None:
    import resource

    old = checkpoint(rng)
    large = Checkpoint(old.model, old.config, {"x": np.zeros((300, 100))})
    model = UNet(1, 2, base=8, padding="same", depth=2)
    writers = {
        "a.safetensors": lambda path: save_checkpoint(path, large),
        "b.safetensors": lambda path: save_weights(path, model),
        "c.npz": lambda path: save_weights(path, model),
        "d.json": lambda path: atomic.write_text(path, "x" * 200_000),
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, write in writers.items():
        save_checkpoint(tmp_path / name, old)
        before = (tmp_path / name).read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # as if no more were free
        try:
            with pytest.raises(OSError, match=rf"{name} cannot be written: .*File too large"):
                write(tmp_path / name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(writers)


def test_files_need_a_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    for write in (lambda path: atomic.write_text(path, ""), lambda path: save_checkpoint(path, checkpoint(rng))):
        with pytest.raises(FileNotFoundError, match="c.safetensors cannot be written: there is no folder .*missing; make it first"):
            write(tmp_path / "missing" / "c.safetensors")
        with pytest.raises(IsADirectoryError, match=f"{tmp_path.name} is a folder; give the name of a file in it"):
            write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_checkpoints_can_be_read_by_whoever_may_read_new_files(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "usual").touch()
    save_checkpoint(tmp_path / "a", checkpoint(rng))
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


# -- broken files ------------------------------------------------------------------------------------------------------------


def test_missing_files_and_folders(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere\.safetensors"):
        load_checkpoint(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"is a folder, not a checkpoint file$"):
        load_checkpoint(tmp_path)
    for name in ("last", "best"):  # the best one, where both are there
        save_checkpoint(tmp_path / f"{name}.safetensors", checkpoint(rng))
        with pytest.raises(CheckpointError, match=rf"is a folder.*did you mean .*{name}\.safetensors\?"):
            load_checkpoint(tmp_path)


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint(rng))
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    for length in (0, 5, 8, 8 + header // 2, 8 + header, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            load_checkpoint(path)
    for at in np.linspace(8 + header, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match="do not match its checksum"):
            load_checkpoint(path)


def test_flipped_bytes_of_the_header_are_errors_of_checkpoints(tmp_path: Path, rng: np.random.Generator) -> None:
    """Where the header still can be read, the checksum or the network decides."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint(rng))
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    noticed, places = 0, range(8, 8 + header, 29)
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            load_checkpoint(path)
        except CheckpointError:
            noticed += 1
    assert noticed > len(places) // 2


@pytest.mark.parametrize("about", ["{", "[]", "[1]", "null", "{}", '{"format": "1"}', '{"format": 1, "checksum": 0, "model": "unet"}'])
def test_metadata_that_is_not_ours(tmp_path: Path, about: str) -> None:
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "a.safetensors", {"minidcnn": about})
    with pytest.raises(CheckpointError, match="is damaged: its metadata cannot be read"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("key", ["model", "config", "info", "training", "checksum"])
@pytest.mark.parametrize("value", [None, [1], 0.5])
def test_metadata_of_another_kind(key: str, value: object, tmp_path: Path) -> None:
    """A number of the right format vouches for nothing else."""
    from safetensors.numpy import save_file

    about: dict[str, object] = {"format": 1, "model": "unet", "config": {}, "info": {}, "training": {}, "checksum": 0}
    save_file({}, tmp_path / "a.safetensors", {"minidcnn": json.dumps(about)})
    assert load_checkpoint(tmp_path / "a.safetensors").model == "unet"
    save_file({}, tmp_path / "a.safetensors", {"minidcnn": json.dumps(about | {key: value})})
    with pytest.raises(CheckpointError, match="is damaged: its metadata cannot be read"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_numbers_that_numpy_lacks(tmp_path: Path, dtype: str) -> None:
    about = json.dumps({"format": 1, "model": "unet", "config": {}, "info": {}, "training": {}, "checksum": 0})
    tensor = {"dtype": dtype, "shape": [4], "data_offsets": [0, 8 if dtype == "BF16" else 4]}
    header = json.dumps({"__metadata__": {"minidcnn": about}, "w": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(tensor["data_offsets"][1]))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(64), b"weights", b'{"a": 1}' * 9])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"photo\.png is no checkpoint"):
        load_checkpoint(tmp_path / "photo.png")


def test_safetensors_of_others(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for metadata in ({"format": "pt"}, None):
        save_file({"x": np.zeros(3, np.float32)}, tmp_path / "a.safetensors", metadata)
        with pytest.raises(CheckpointError, match="no checkpoint of minidcnn"):
            load_checkpoint(tmp_path / "a.safetensors")


def test_files_of_a_newer_version(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "a.safetensors", {"minidcnn": json.dumps({"format": 99})})
    with pytest.raises(CheckpointError, match="newer minidcnn.*format 99"):
        load_checkpoint(tmp_path / "a.safetensors")


# -- checkpoints that do not fit ---------------------------------------------------------------------------------------------


def test_weights_of_another_shape_name_the_tensor_and_both_shapes(rng: np.random.Generator) -> None:
    before = checkpoint(rng)
    wider = Checkpoint("unet", {**before.config, "base": 3}, before.tensors)
    with pytest.raises(
        CheckpointError, match=r"network unet: 33 shapes differ: encoder\.0\.0\.weight is \(2, 1, 3, 3\), the model's is \(3, 1, 3, 3\)"
    ):
        model_of(wider)


def test_missing_and_surplus_weights_are_named(rng: np.random.Generator) -> None:
    before = checkpoint(rng)
    fewer = {name: array for name, array in before.tensors.items() if name != "head.bias"}
    with pytest.raises(CheckpointError, match=r"1 key missing: head\.bias; it was trained as unet with"):
        model_of(Checkpoint("unet", before.config, fewer))
    with pytest.raises(CheckpointError, match="it was trained as unet with its defaults$"):
        model_of(Checkpoint("unet", {}, {}))
    with pytest.raises(CheckpointError, match="1 key unexpected: tail; it was trained"):
        model_of(Checkpoint("unet", before.config, {**before.tensors, "tail": np.zeros(1)}))


@pytest.mark.parametrize(
    ("name", "config", "match"), [("resnet", {}, 'no model "resnet"'), ("unet", {"widht": 3}, "widht"), ("unet", {"base": 0}, "base")]
)
def test_networks_that_cannot_be_built(name: str, config: dict[str, object], match: str) -> None:
    state = random_state()
    with pytest.raises(CheckpointError, match=match):
        model_of(Checkpoint(name, config, {}))
    assert random_state() == state


def test_a_model_on_the_gpu_saves_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", make_module())
    monkeypatch.setattr(switch, "_made", {})
    monkeypatch.setattr(switch, "_which", "reference")  # the stand-in has arrays, but no CUDA
    model = UNet(1, 2, base=2, padding="same", depth=1)
    names = [name for name, _ in model.named_parameters()]
    for name, place in (("cpu", "numpy"), ("gpu", "cupy")):
        model.to(place)
        tensors = {key: tensor._array for key, tensor in model.named_parameters()}
        save_checkpoint(tmp_path / name, Checkpoint(model.name, model.config, tensors, training_tensors=tensors))
    assert (tmp_path / "cpu").read_bytes() == (tmp_path / "gpu").read_bytes()
    minidcnn.use("cupy")
    assert all(p.backend == "cupy" for p in model_of(load_checkpoint(tmp_path / "gpu")).parameters())
    assert list(load_checkpoint(tmp_path / "gpu").training_tensors) == sorted(names)
    minidcnn.use("numpy")


def test_a_checksum_knows_the_names() -> None:
    a, b = np.zeros(2), np.ones(2)
    assert _checksum({"a": a, "b": b}) != _checksum({"a": a, "c": b})
